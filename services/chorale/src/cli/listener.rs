//! The arguments by which a command finds who listens to its tracks.

use std::{path::PathBuf, time::Duration};

use chorale_runtime::{replicas::Target, tls::ClientTlsConfig};
use clap::Args;

/// Who listens, and how long a track may take.
#[derive(Debug, Args)]
pub(crate) struct ListenerFlags {
    /// Use this server instead of starting a cluster in this process
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "devices"])]
    pub(crate) endpoint: Option<Target>,
    #[command(flatten)]
    pub(crate) credentials: CredentialFlags,
    /// Give up on a file after this long
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) model: ModelFlags,
}

/// When enough was heard.
#[derive(Debug, Args)]
pub(crate) struct EarlyFlag {
    /// Stop listening to a track when more of it could hardly change its genre: with a probability of at most this, for
    /// example 0.05 [default: hear all of it]
    #[arg(long, value_name = "ERROR_RATE", value_parser = error_rate)]
    early: Option<f64>,
}

impl EarlyFlag {
    /// As a caller asks for it: 0 hears the whole track.
    pub(crate) fn error_rate(&self) -> f64 {
        self.early.unwrap_or_default()
    }
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
