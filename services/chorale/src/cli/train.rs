//! The arguments of `chorale train` and `chorale evaluate`.

use std::path::PathBuf;

use chorale_model::DeviceSpec;
use chorale_trainer::SplitBy;
use clap::{Args, ValueEnum};

/// Labelled tracks, and where the network runs.
#[derive(Debug, Args)]
pub(crate) struct DataFlags {
    /// Labelled tracks: a folder with one subfolder of audio a genre, a CSV file `file,genre[,split]` or a folder with
    /// one named tracks.csv, or a folder of precomputed log-mel tracks
    #[arg(long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    /// Where the network runs: cpu, or cuda:0
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub(crate) device: DeviceSpec,
    /// Where chance starts: the split of data that has none, and the fit
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// A network that can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    Ensemble,
    Small,
    SeedCnn,
}

/// What stays together when data is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SplitUnit {
    Track,
    Chunk,
}

impl From<SplitUnit> for SplitBy {
    fn from(unit: SplitUnit) -> Self {
        match unit {
            SplitUnit::Track => Self::Track,
            SplitUnit::Chunk => Self::Chunk,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    #[command(flatten)]
    pub(crate) data: DataFlags,
    /// Folder to write the model to
    #[arg(long, short, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What to call the model [default: the name of the folder]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// What to start from, instead of the embedded model: published MusiCNN weights (safetensors, with adapter.json beside
    /// them), or a model folder (ensemble, small)
    #[arg(long, value_name = "PATH")]
    pub(crate) backbone: Option<PathBuf>,
    /// The network to train: an ensemble behind a pretrained front end, the same at a fraction of the cost, or seed-cnn,
    /// which learns everything from the data
    #[arg(long, value_enum, value_name = "NETWORK", default_value_t = Network::Ensemble)]
    pub(crate) arch: Network,
    /// What stays together when data is split: all chunks of a track, by the data's splits; or nothing, with 80 % of all
    /// chunks to train and 20 % to test. The latter leaks: the test has chunks of tracks that were learnt
    #[arg(long, value_enum, value_name = "UNIT", default_value_t = SplitUnit::Track)]
    pub(crate) split_by: SplitUnit,
    /// Passes over the training chunks at most [default: 8; seed-cnn: 40]
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// Chunks a step [default: 64; seed-cnn: 32]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Step size of Adam [default: 0.001; seed-cnn: 0.0001]
    #[arg(long, value_name = "RATE")]
    pub(crate) learning_rate: Option<f64>,
    /// Share of every weight taken away each step, times the step size [default: 0.05; seed-cnn: 0]
    #[arg(long, value_name = "SHARE")]
    pub(crate) weight_decay: Option<f64>,
    /// Share of inputs of each dense layer that is silenced in training [default: 0.5; seed-cnn: fixed]
    #[arg(long, value_name = "SHARE")]
    pub(crate) dropout: Option<f32>,
    /// Share of the target that is spread over all genres [default: 0.1; seed-cnn: 0]
    #[arg(long, value_name = "SHARE")]
    pub(crate) label_smoothing: Option<f32>,
    /// Share of chunks that another one is mixed into [default: 0.25; seed-cnn: 0]
    #[arg(long, value_name = "SHARE")]
    pub(crate) mix: Option<f64>,
    /// Share of chunks whose sound is changed: equaliser, dynamics, pitch, gaps, noise (ensemble, small) [default: 0.8]
    #[arg(long, value_name = "SHARE")]
    pub(crate) augment: Option<f64>,
    /// Networks whose answers are averaged (ensemble, small) [default: 2; small: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) members: Option<u16>,
    /// What the step size is multiplied by for the pretrained convolutions, member by member and then from the first
    /// again (ensemble, small) [default: 0.1,0.3]
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    pub(crate) backbone_rates: Vec<f64>,
    /// The same for the filters of the front end, which all members share; 0 leaves them as they are, and is much faster
    /// (ensemble, small) [default: 0]
    #[arg(long, value_name = "RATE")]
    pub(crate) front_rate: Option<f64>,
    /// How much of a linear discriminant analysis of its features is added to each network's answer at the end (ensemble,
    /// small) [default: 0.2; 0 with --teacher]
    #[arg(long, value_name = "SHARE")]
    pub(crate) discriminant: Option<f64>,
    /// A model folder to learn from: what is wanted of the network is mostly what this model says of each chunk, and the
    /// label for the rest (ensemble, small)
    #[arg(long, value_name = "DIR")]
    pub(crate) teacher: Option<PathBuf>,
    /// How much of every target is what the teacher says [default: 0.8]
    #[arg(long, value_name = "SHARE", requires = "teacher")]
    pub(crate) teacher_share: Option<f64>,
    /// How much it counts that the network has the features of the teacher, beside what both say. It has to start from the
    /// teacher: --backbone DIR [default: 0]
    #[arg(long, value_name = "WEIGHT", requires = "teacher")]
    pub(crate) teacher_features: Option<f64>,
    /// Audio that is no music (speech, noise, applause …), a folder or CSV file as for --data: the model learns to tell
    /// it from music (ensemble, small), and the threshold of the verdict `unknown` is chosen on it and the valid split
    #[arg(long, value_name = "PATH")]
    pub(crate) not_music: Option<PathBuf>,
    /// A model folder that the same options made: learn from its validation tracks, too, and take over its temperature,
    /// its threshold and what was measured
    #[arg(long, value_name = "DIR", conflicts_with = "split_by")]
    pub(crate) refit: Option<PathBuf>,
    /// Epochs without a better result on the valid split after which training ends [default: 8; seed-cnn: 12]
    #[arg(long, value_name = "N")]
    pub(crate) patience: Option<usize>,
    /// Go on with a run that was interrupted, from its last whole epoch
    #[arg(long)]
    pub(crate) resume: bool,
    /// Folder of the state of an unfinished run [default: OUT.checkpoint]
    #[arg(long, value_name = "DIR")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Threads that train on the CPU; results do not depend on it [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Print the report on the valid split as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArguments {
    /// Model to measure: `default` or `small`, which are embedded, or a folder [default: default]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataFlags,
    /// Only the tracks of this split
    #[arg(long, value_name = "NAME")]
    pub(crate) split: Option<String>,
    /// What stays together when data is split; chunk, with --split train or test and the --seed of the training, measures
    /// chunks as `train --split-by chunk` has split them. That leaks: the test has chunks of tracks that were learnt
    #[arg(long, value_enum, value_name = "UNIT", default_value_t = SplitUnit::Track)]
    pub(crate) split_by: SplitUnit,
    /// Only the tracks that are named in the column `track` of this CSV file
    #[arg(long, value_name = "FILE")]
    pub(crate) tracks: Option<PathBuf>,
    /// Folder to write the report to as well: a page (index.html), its pictures (SVG), and report.json
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Audio that is no music, to measure how much of it gets the verdict `unknown`, and how much music does: a folder
    /// with a subfolder for each kind, or a CSV file `file,kind`
    #[arg(long, value_name = "PATH")]
    pub(crate) not_music: Option<PathBuf>,
    /// Print the report as JSON, with every track's prediction
    #[arg(long)]
    pub(crate) json: bool,
}
