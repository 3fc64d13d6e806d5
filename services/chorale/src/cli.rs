//! The command line.

pub(crate) mod classify;
pub(crate) mod completions;
pub(crate) mod features;
pub(crate) mod library;
pub(crate) mod listener;
pub(crate) mod man;
pub(crate) mod playlist;
pub(crate) mod plot;
pub(crate) mod serve;
pub(crate) mod tag;
pub(crate) mod train;

use std::path::PathBuf;

use chorale_runtime::replicas::Target;
use clap::{
    Args, Parser, Subcommand,
    builder::styling::{AnsiColor, Styles},
};

use self::listener::CredentialFlags;

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

const DOCTOR_EXAMPLES: &str = "\
Examples:
  chorale doctor --admin http://127.0.0.1:9090            a cluster on this machine
  chorale doctor --endpoint https://chorale.example:443 --token-file token

Sends ten seconds of sound and expects a verdict, twice: the second one from the cache.
Exit codes: 0 nothing is ill, 1 something is.";

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
    Classify(classify::ClassifyArguments),
    /// Serve the whole cluster from this one process
    #[command(after_help = serve::CONFIGURATION)]
    Up(serve::UpArguments),
    /// Serve the gateway role alone: the public RPCs, the vote and the result cache
    #[command(after_help = serve::CONFIGURATION)]
    Gateway(serve::GatewayArguments),
    /// Serve the feature role alone: audio to mel chunks
    #[command(after_help = serve::CONFIGURATION)]
    Feature(serve::FeatureArguments),
    /// Serve the inference role alone: mel chunks to probabilities, on a device
    #[command(after_help = serve::CONFIGURATION)]
    Inference(serve::InferenceArguments),
    /// Examine a deployment from outside, and say what is wrong
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArguments),
    /// Say by the exit code whether a process is ready, for a container's health check
    Healthcheck(HealthcheckArguments),
    /// Make a bearer token for a caller of a gateway
    Token(TokenArguments),
    /// Write the mel chunks of a file as a NumPy array
    Features(features::FeaturesArguments),
    /// Draw tracks: waveform, mel spectrogram, what was heard where, and the vote
    #[command(after_help = plot::EXAMPLES)]
    Plot(Box<plot::PlotArguments>),
    /// Train a model on your tracks
    Train(Box<train::TrainArguments>),
    /// Measure a model on labelled tracks
    Evaluate(train::EvaluateArguments),
    /// Describe the embedded model, or models in folders
    #[command(after_long_help = serve::SERVING_MODELS)]
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
