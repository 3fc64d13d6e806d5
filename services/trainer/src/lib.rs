//! From labelled tracks to a model folder, and from a model folder to numbers about it.
//!
//! [`train`] fits the head of the network on the features of a frozen backbone; [`evaluate`] measures a model on labelled
//! tracks. Both read the same three layouts (see [`Catalogue::open`]), and cut and quantise chunks with the code that
//! serves them.

mod cache;
mod card;
mod catalogue;
mod error;
mod evaluate;
mod fit;
mod mel_file;
mod metrics;
mod pooled;
mod progress;
mod recalibrate;
mod report;
mod train;
mod unknown;

pub use cache::default_cache_folder;
pub use catalogue::{Catalogue, Track};
pub use error::{Result, TrainerError};
pub use evaluate::{EvaluateOptions, evaluate};
pub use fit::FitOptions;
pub use metrics::{GenreScores, Prediction, wilson_interval};
pub use pooled::Skipped;
pub use progress::Progress;
pub use report::Report;
pub use train::{TrainOptions, TrainOutcome, train};
pub use unknown::{MUSIC_REJECTED_AT_MOST, NotMusic, UnknownReport, UnknownShare, choose_threshold};
