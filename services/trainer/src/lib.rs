//! From labelled tracks to a model folder, and from a model folder to numbers about it.
//!
//! [`train_network`] trains any [`Trainable`] network from chunks: an ensemble that starts from pretrained weights, or one
//! that starts from nothing. [`evaluate`] measures a model on labelled tracks. Both read the same three layouts (see
//! [`Catalogue::open`]), and cut and quantise chunks with the code that serves them.

mod augment;
mod backbone;
mod batches;
mod calibration;
mod card;
mod catalogue;
mod cells;
mod chance;
mod checkpoint;
mod chunk_report;
mod chunk_split;
mod conclusion;
mod curves;
mod discriminant;
mod ensemble_learner;
mod error;
mod evaluate;
mod examples;
mod file;
mod hear;
mod history;
mod labels;
mod learn;
mod learn_options;
mod learner;
mod mel_file;
mod metrics;
mod optimizer;
mod page;
pub mod pareto;
mod picture;
mod progress;
mod recipes;
mod report;
mod room;
mod run_state;
mod schedule;
mod seed_cnn;
mod teaching;
mod train_network;
mod unknown;
mod workers;

pub use augment::{Augment, NoAugmentation};
pub use backbone::Backbone;
pub use batches::{Batch, BatchOptions};
pub use calibration::{ReliabilityBin, SurestMistake};
pub use catalogue::{Catalogue, Track};
pub use checkpoint::{Checkpoint, Identity};
pub use chunk_report::ChunkReport;
pub use chunk_split::{CHUNK_SPLIT_LEAKS, ChunkSide, SplitBy};
pub use ensemble_learner::{EnsembleLearner, EnsembleOptions};
pub use error::{Result, TrainerError};
pub use evaluate::{EvaluateOptions, evaluate, evaluate_chunks};
pub use examples::{ChunkedTrack, Examples, Skipped};
pub use history::{EpochScores, Goal};
pub use learn::{Learnt, Run, learn};
pub use learn_options::LearnOptions;
pub use learner::{Parameter, Trainable, drop_out};
pub use metrics::{GenreScores, Prediction, wilson_interval};
pub use optimizer::{Adam, OptimizerOptions};
pub use progress::Progress;
pub use recipes::{train_ensemble, train_seed_cnn};
pub use report::{EarlyVerdicts, Report};
pub use room::Room;
pub use schedule::{Decline, Schedule};
pub use seed_cnn::SeedCnnLearner;
pub use teaching::Teaching;
pub use train_network::{Build, Conclude, Measured, NetworkOptions, NetworkOutcome, Recipe, train_network};
pub use unknown::{MUSIC_REJECTED_AT_MOST, NotMusic, UnknownReport, UnknownShare, choose_threshold};
