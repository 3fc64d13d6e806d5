//! Everything that can go wrong in training and evaluation.

use std::path::PathBuf;

use chorale_feature::FeatureError;
use chorale_model::ModelError;

/// A result whose error is a [`TrainerError`].
pub type Result<T> = std::result::Result<T, TrainerError>;

/// Why a model could not be trained or evaluated.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A path is not labelled data in any of the known layouts.
    #[error(
        "{} holds no labelled tracks: expected a folder with mel_u8.npy and tracks.csv, a folder with one subfolder of \
         audio a genre, or a CSV file (or a folder with tracks.csv) with the columns file,genre[,split]",
        path.display()
    )]
    UnknownLayout {
        /// The path.
        path: PathBuf,
    },
    /// A path holds no files that could be audio without music.
    #[error(
        "{} holds no files: expected a folder of audio that is no music, or a CSV file with the columns file,kind",
        path.display()
    )]
    NoFiles {
        /// The path.
        path: PathBuf,
    },
    /// A CSV file is damaged, or a value in it is wrong.
    #[error("{}, line {line}: {what}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 1 is the header.
        line: u64,
        /// What was expected, and what is there.
        what: String,
    },
    /// An array of features is damaged or of another kind.
    #[error("{}: {what}", path.display())]
    MelFile {
        /// The file.
        path: PathBuf,
        /// What was expected, and what is there.
        what: String,
    },
    /// Some tracks have a split and others have none.
    #[error("track `{0}` has no split, but others have: give every track one, or none")]
    PartlySplit(String),
    /// No track is in the split.
    #[error("no track is in the split `{split}`: the data has {}", list(known))]
    NoSuchSplit {
        /// The split asked for.
        split: String,
        /// The splits of the data.
        known: Vec<String>,
    },
    /// A track has a genre that the model does not know.
    #[error("track `{track}` has the genre `{genre}`, which is not one of {}", list(known))]
    UnknownGenre {
        /// The track.
        track: String,
        /// Its genre.
        genre: String,
        /// The genres that were expected.
        known: Vec<String>,
    },
    /// A genre has nothing to learn from.
    #[error("no track of the genre `{genre}` is in the split `{split}`")]
    EmptyGenre {
        /// The genre.
        genre: String,
        /// The split.
        split: String,
    },
    /// Training needs something to tell apart.
    #[error("the split `{split}` has {found} genre, at least 2 are needed")]
    TooFewGenres {
        /// The split.
        split: String,
        /// How many genres it has.
        found: usize,
    },
    /// A list of tracks names one that is not in the data.
    #[error("the list of tracks names `{0}`, which is not in the data")]
    NoSuchTrack(String),
    /// Not one track gave a chunk that votes.
    #[error("none of the {tracks} tracks can be used; the first one: {reason}")]
    NothingUsable {
        /// How many tracks there were.
        tracks: usize,
        /// What is wrong with the first one.
        reason: String,
    },
    /// An option has a value that makes no sense.
    #[error("{option}: expected {expected}, found {found}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// Options cannot be written down.
    #[error("the options cannot be kept in a checkpoint: {0}")]
    Options(String),
    /// There is nothing to go on from.
    #[error("{} holds no checkpoint to go on from", path.display())]
    NoCheckpoint {
        /// The folder.
        path: PathBuf,
    },
    /// A new run would overwrite an unfinished one.
    #[error("{} holds the checkpoint of an unfinished run: go on with it (--resume), or delete it", path.display())]
    CheckpointInTheWay {
        /// The folder.
        path: PathBuf,
    },
    /// A checkpoint is damaged.
    #[error("the checkpoint {}: {what}", path.display())]
    Checkpoint {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A checkpoint is of a run with other options or data.
    #[error("the checkpoint {} is of another run: {what}", path.display())]
    OtherRun {
        /// The folder.
        path: PathBuf,
        /// The first thing that differs.
        what: String,
    },
    /// The fit ran away to infinity.
    #[error("the loss is not finite in epoch {0}: try a lower learning rate")]
    Diverged(usize),
    /// Features have no covariance to tell classes by.
    #[error("the network's features of the training chunks are not finite: training has diverged")]
    NoDiscriminant,
    /// A picture or a page cannot be made.
    #[error("cannot draw the report: {0}")]
    Picture(Box<dyn std::error::Error + Send + Sync>),
    /// Audio cannot be turned into chunks.
    #[error(transparent)]
    Feature(#[from] FeatureError),
    /// A model cannot be read, run or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The operating system gives no thread.
    #[error("cannot start a thread: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A computation failed.
    #[error("the computation failed: {0}")]
    Compute(#[from] candle_core::Error),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
