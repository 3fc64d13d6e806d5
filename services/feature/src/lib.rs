//! Audio to log-mel chunks: decode, downmix, resample, log-mel, chunk.
//!
//! [`analyze`] is the one way in. It reads an [`AudioSource`], which may still be arriving, and hands every chunk to its
//! caller as soon as its last frame is known. The trainer and the command line use the same function on files, and
//! [`Chunker`] on features that were computed before, so that training and serving cannot drift apart.
//!
//! All input is hostile: whatever the bytes are, the answer is a summary or a [`FeatureError`], in memory that does not
//! grow with the length of the track.

mod analyze;
mod au;
mod audio_files;
mod audio_track;
mod chunk;
mod config;
mod conveyor;
mod decode;
mod decoded;
mod dispatch;
mod edit_list;
mod error;
mod lacking;
mod mel;
mod messages;
mod metrics;
mod mono;
mod open_streams;
mod pcm;
mod pipeline;
mod recent;
mod resample;
mod role;
mod served;
mod service;
mod signal;
mod sniff;
mod source;
mod track_decoder;
mod turns;

pub use analyze::{AudioInput, AudioSummary, Limits, Warning, WarningKind, analyze, analyze_bytes, analyze_file};
pub use audio_files::has_audio_extension;
pub use chunk::{Chunker, DbChunk, MelChunk};
pub use config::{DispatchConfig, FeatureConfig, FeatureLimits};
pub use dispatch::{ChunkOptions, Dispatcher};
pub use error::FeatureError;
pub use mel::{MelFrame, MelSpectrogram, hz_to_mel};
pub use metrics::FeatureMetrics;
pub use pcm::{PcmSpec, SampleFormat};
pub use pipeline::{Envelope, Event};
pub use resample::Resampler;
pub use role::{StartError, start};
pub use signal::{SignalSummary, read_signal};
pub use source::{AudioClosed, AudioSender, AudioSource};
