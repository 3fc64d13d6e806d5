//! The command line.

pub(crate) mod completions;
pub(crate) mod library;
pub(crate) mod man;
pub(crate) mod playlist;
pub(crate) mod plot;
pub(crate) mod tag;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chorale_model::DeviceSpec;
use chorale_runtime::{replicas::Target, telemetry::LogFormat, tls::ClientTlsConfig};
use chorale_trainer::SplitBy;
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::styling::{AnsiColor, Styles},
};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  chorale classify song.mp3                    what is it, how sure, and where in the track
  chorale classify --json ~/Music > genres.jsonl
  chorale up                                   serve gRPC on 127.0.0.1:50051, the studio page on 127.0.0.1:8080
  chorale classify --endpoint http://127.0.0.1:50051 song.mp3

Exit codes: 0 all done, 1 something failed (the rest was done), 2 wrong usage or configuration.";

const CONFIGURATION: &str = "\
Configuration: defaults, then --config FILE (TOML), then environment variables such as
CHORALE_GATEWAY__CACHE__TTL=1h (section, two underscores, key), then flags, also --set KEY=VALUE for
any key; the later one wins.
SIGTERM or Ctrl-C drains: calls in flight finish, new ones are refused.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  chorale doctor --admin http://127.0.0.1:9090            a cluster on this machine
  chorale doctor --endpoint https://chorale.example:443 --token-file token

Sends ten seconds of sound and expects a verdict, twice: the second one from the cache.
Exit codes: 0 nothing is ill, 1 something is.";

const SERVING_MODELS: &str = "\
Serving models without a restart: `chorale inference --models DIR` (or `up`) serves what the file
DIR/serving.toml says, and follows it while it serves:

  [[serve]]
  model = \"v2\"      # DIR/v2, a model folder; or `default` or `small`, which are embedded
  weight = 95       # its share of the tracks whose callers name no version

  [[serve]]
  model = \"v3\"
  weight = 5

A new set is loaded beside the old one, and takes over once every device has run it. One that cannot be
used is refused: the log says why, and the old one serves on. To roll back is to write the old file again.
A track gets the same version as long as the weights are the same; a model of weight 0 answers only
callers who name its version, which this command prints.";

/// Chorale listens to music and says what genre it is.
#[derive(Debug, Parser)]
#[command(name = "chorale", version, styles = STYLES, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Name the genre of files, folders or standard input
    Classify(ClassifyArguments),
    /// Serve the whole cluster from this one process
    #[command(after_help = CONFIGURATION)]
    Up(UpArguments),
    /// Serve the gateway role alone: the public RPCs, the vote and the result cache
    #[command(after_help = CONFIGURATION)]
    Gateway(GatewayArguments),
    /// Serve the feature role alone: audio to mel chunks
    #[command(after_help = CONFIGURATION)]
    Feature(FeatureArguments),
    /// Serve the inference role alone: mel chunks to probabilities, on a device
    #[command(after_help = CONFIGURATION)]
    Inference(InferenceArguments),
    /// Examine a deployment from outside, and say what is wrong
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArguments),
    /// Say by the exit code whether a process is ready, for a container's health check
    Healthcheck(HealthcheckArguments),
    /// Make a bearer token for a caller of a gateway
    Token(TokenArguments),
    /// Write the mel chunks of a file as a NumPy array
    Features(FeaturesArguments),
    /// Draw tracks: waveform, mel spectrogram, what was heard where, and the vote
    #[command(after_help = plot::EXAMPLES)]
    Plot(Box<plot::PlotArguments>),
    /// Train a model on your tracks
    Train(Box<TrainArguments>),
    /// Measure a model on labelled tracks
    Evaluate(EvaluateArguments),
    /// Describe the embedded model, or models in folders
    #[command(after_long_help = SERVING_MODELS)]
    Models(ModelsArguments),
    /// Sort a music library: classify folders, keep up with them, find and export what is in them
    #[command(after_help = library::EXAMPLES)]
    Library(library::LibraryArguments),
    /// Write genres into the tags of the library's files, and take them back
    #[command(after_help = tag::HELP)]
    Tag(tag::TagArguments),
    /// Make a playlist from the library: by genre, mix, length, or likeness
    #[command(after_help = playlist::HELP)]
    Playlist(Box<playlist::PlaylistArguments>),
    /// Print what a shell reads to complete this command line
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArguments),
    /// Write the manual: a page for each command
    #[command(after_help = man::EXAMPLES)]
    Man(man::ManArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ClassifyArguments {
    /// Audio files, folders to search for audio files, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Use this server instead of starting a cluster in this process
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "devices"])]
    pub(crate) endpoint: Option<Target>,
    #[command(flatten)]
    pub(crate) credentials: CredentialFlags,
    /// Print one JSON object a line for each file
    #[arg(long)]
    pub(crate) json: bool,
    /// With --json: add each track's embedding, numbers that are close for tracks that sound alike
    #[arg(long, requires = "json")]
    pub(crate) embedding: bool,
    /// Genres to list for each file, most probable first [default: 3; with --json: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top: Option<u32>,
    /// Show the full card with the timeline for each of several files too
    #[arg(long, conflicts_with = "json")]
    pub(crate) long: bool,
    /// Stop listening to a track when more of it could hardly change its genre: with a probability of at most this, for
    /// example 0.05 [default: hear all of it]
    #[arg(long, value_name = "ERROR_RATE", value_parser = error_rate)]
    pub(crate) early: Option<f64>,
    /// Files to classify at a time [default: the number of cores]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Give up on a file after this long
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) model: ModelFlags,
}

/// How a server is believed, and how this caller proves who it is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CredentialFlags {
    /// File with the bearer token to send; the environment variable CHORALE_TOKEN does the same
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that an https:// server is believed by [default: those of this system]
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Certificate (PEM) to show to a server that asks for one
    #[arg(long, value_name = "FILE", requires_all = ["endpoint", "tls_key"])]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
}

impl CredentialFlags {
    /// How a server is believed.
    pub(crate) fn tls(&self) -> ClientTlsConfig {
        let Self { tls_ca, tls_certificate, tls_key, .. } = self.clone();
        ClientTlsConfig { ca: tls_ca, certificate: tls_certificate, key: tls_key }
    }
}

fn error_rate(text: &str) -> Result<f64, String> {
    let expected = || "expected a number above 0 and below 0.5".to_owned();
    text.parse().ok().filter(|rate| *rate > 0.0 && *rate < 0.5).ok_or_else(expected)
}

/// Which model, and on what.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelFlags {
    /// Model to use: `default` or `small`, which are embedded, or a folder [default: default]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Where to compute: cpu, or cuda:0 (comma-separated for several; one worker each) [default: cpu]
    #[arg(long = "device", value_name = "DEVICE", value_delimiter = ',')]
    pub(crate) devices: Vec<String>,
}

/// Which models of a folder, without a restart.
#[derive(Debug, Args)]
pub(crate) struct ModelsFlag {
    /// Folder of models to serve, in place of --model: its file serving.toml says which, and is followed while they are
    /// served; see `chorale models --help`
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    pub(crate) models: Option<PathBuf>,
}

/// What every serving command takes.
#[derive(Debug, Args)]
pub(crate) struct ServeFlags {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to serve gRPC; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where to serve /metrics, /livez and /readyz [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Set a key of the configuration, for example gateway.limits.max_audio_bytes=100MiB; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) settings: Vec<(String, String)>,
    /// What to log: error, warn, info, debug, trace, or a tracing filter [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
    /// How to log [default: text on a terminal, JSON elsewhere]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormatFlag>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if !key.contains('.') {
        return Err(format!("expected a key with its section, as in gateway.listen, found {key:?}"));
    }
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormatFlag {
    Text,
    Json,
}

impl From<LogFormatFlag> for LogFormat {
    fn from(flag: LogFormatFlag) -> Self {
        match flag {
            LogFormatFlag::Text => Self::Text,
            LogFormatFlag::Json => Self::Json,
        }
    }
}

/// Where the page and the HTTP interface are.
#[derive(Debug, Args)]
pub(crate) struct HttpFlags {
    /// Where to serve the studio page and HTTP; port 0 takes a free one, and --set gateway.http.enabled=false serves none
    /// [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http_listen: Option<SocketAddr>,
}

/// Where results are cached.
#[derive(Debug, Args)]
pub(crate) struct CacheFlags {
    /// Redis to cache results in, redis://HOST:PORT [default: this process's memory]
    #[arg(long, value_name = "URL")]
    pub(crate) cache_url: Option<String>,
}

/// How inference forms batches.
#[derive(Debug, Args)]
pub(crate) struct BatchFlags {
    /// Chunks in a batch at most
    #[arg(long, value_name = "N")]
    pub(crate) max_batch: Option<usize>,
    /// How long an idle device waits for a batch to fill [default: 2ms on a GPU, 0s on the CPU]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) max_queue_delay: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    #[command(flatten)]
    pub(crate) serve: ServeFlags,
    #[command(flatten)]
    pub(crate) http: HttpFlags,
    #[command(flatten)]
    pub(crate) cache: CacheFlags,
    #[command(flatten)]
    pub(crate) model: ModelFlags,
    #[command(flatten)]
    pub(crate) models: ModelsFlag,
    #[command(flatten)]
    pub(crate) batch: BatchFlags,
}

#[derive(Debug, Args)]
pub(crate) struct GatewayArguments {
    #[command(flatten)]
    pub(crate) serve: ServeFlags,
    #[command(flatten)]
    pub(crate) http: HttpFlags,
    /// Feature services, http://HOST:PORT, comma-separated; a name stands for all its addresses
    /// [default: http://127.0.0.1:50052]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) feature: Vec<Target>,
    #[command(flatten)]
    pub(crate) cache: CacheFlags,
}

#[derive(Debug, Args)]
pub(crate) struct FeatureArguments {
    #[command(flatten)]
    pub(crate) serve: ServeFlags,
    /// Inference workers, http://HOST:PORT, comma-separated; a name stands for all its addresses
    /// [default: http://127.0.0.1:50053]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) inference: Vec<Target>,
}

#[derive(Debug, Args)]
pub(crate) struct InferenceArguments {
    #[command(flatten)]
    pub(crate) serve: ServeFlags,
    #[command(flatten)]
    pub(crate) model: ModelFlags,
    #[command(flatten)]
    pub(crate) models: ModelsFlag,
    #[command(flatten)]
    pub(crate) batch: BatchFlags,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// The gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    pub(crate) endpoint: Target,
    #[command(flatten)]
    pub(crate) credentials: CredentialFlags,
    /// Look at the admin port of a process, too: of any role, any number of times
    #[arg(long, value_name = "URL")]
    pub(crate) admin: Vec<Target>,
    /// Print the findings as one JSON array
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HealthcheckArguments {
    /// The admin port of the process
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    pub(crate) endpoint: Target,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    /// What the caller is called, in the logs and in gateway.auth.callers_file
    #[arg(value_name = "CALLER")]
    pub(crate) caller: String,
}

#[derive(Debug, Args)]
pub(crate) struct FeaturesArguments {
    /// Audio file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// NumPy file to write: [chunks, 128, 96]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// u8: the bytes that the network gets; f32: dB below the chunk's loudest cell, before they are rounded to bytes
    #[arg(long, value_enum, default_value_t = CellType::U8)]
    pub(crate) dtype: CellType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CellType {
    U8,
    F32,
}

#[derive(Debug, Args)]
pub(crate) struct ModelsArguments {
    /// Models: `default` or `small`, which are embedded in this binary, or folders [default: default]
    #[arg(value_name = "MODEL")]
    pub(crate) folders: Vec<PathBuf>,
    /// Print the whole of model.json as one line
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the model's card: what it is for, how it was made, where it fails
    #[arg(long, conflicts_with = "json")]
    pub(crate) card: bool,
    /// Draw the models by cost and by accuracy on their valid split as a picture (SVG), and print them as a table
    #[arg(long, value_name = "FILE", requires = "folders", conflicts_with = "card")]
    pub(crate) pareto: Option<PathBuf>,
}

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
