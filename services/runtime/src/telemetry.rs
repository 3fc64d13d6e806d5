//! Logs: structured `tracing` events on standard error.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt};

/// What is logged, and how.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A `tracing` filter: a level (`info`), or levels by crate (`info,chorale_gateway=debug`). Default: `info`.
    pub level: String,
    /// How a line looks. Default: text on a terminal, JSON elsewhere.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// A log filter that cannot be read, or telemetry that was started twice.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is wrong.
    #[error("log.level: expected a level or a tracing filter, found {level:?}: {source}")]
    Filter {
        /// The filter.
        level: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Telemetry runs already.
    #[error("logs are being written already: {0}")]
    AlreadyStarted(Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging for the process.
///
/// # Errors
/// If the filter cannot be read, or logging was started before.
pub fn start(config: &LogConfig) -> Result<(), TelemetryError> {
    // Decoders report damage as errors; their own log lines would only let an upload fill the log.
    let filter = EnvFilter::try_new(format!("symphonia=off,{}", config.level))
        .map_err(|source| TelemetryError::Filter { level: config.level.clone(), source })?;
    let terminal = std::io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        lines.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        lines.with_ansi(terminal).with_target(false).try_init()
    };
    started.map_err(TelemetryError::AlreadyStarted)
}
