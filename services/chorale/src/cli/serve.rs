//! The arguments of the commands that serve.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chorale_runtime::{replicas::Target, telemetry::LogFormat};
use clap::{Args, ValueEnum};

use super::listener::ModelFlags;

pub(crate) const CONFIGURATION: &str = "\
Configuration: defaults, then --config FILE (TOML), then environment variables such as
CHORALE_GATEWAY__CACHE__TTL=1h (section, two underscores, key), then flags, also --set KEY=VALUE for
any key; the later one wins.
SIGTERM or Ctrl-C drains: calls in flight finish, new ones are refused.";

pub(crate) const SERVING_MODELS: &str = "\
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
