//! A client of Chorale: hand over audio, receive its genre.
//!
//! ```no_run
//! use chorale_client::{Client, ClientOptions, ClassifyOptions};
//!
//! # async fn ask() -> Result<(), chorale_client::ClientError> {
//! let client = Client::connect(&"http://127.0.0.1:50051".parse()?, ClientOptions::default()).await?;
//! let verdict = client.classify_file("song.mp3".as_ref(), ClassifyOptions::default(), |_event| ()).await?;
//! println!("{}, {:.0} % sure", verdict.genre, 100.0 * verdict.confidence);
//! # Ok(())
//! # }
//! ```
//!
//! A file is digested first, so that a verdict which the server knows costs no upload; it is sent while its verdict forms; and
//! a call is made again when its connection breaks or the server asks for that, after the time that it names.

mod client;
mod error;
mod token;
mod upload;

pub use chorale_proto::v1::{
    AudioFormat, ChunkVote, ClassifyOptions, Envelope, EventKind, GenreScore, GetModelResponse, Limits, Model,
    PcmFormat, Priority, Progress, SampleFormat, Segment, Verdict, Warning, classify_stream_response::Event,
};
pub use chorale_runtime::{
    failure::{Failure, Reason},
    replicas::{Target, TargetError},
    tls::ClientTlsConfig,
};

pub use crate::{
    client::{Client, ClientOptions},
    error::ClientError,
    token::BearerToken,
};
