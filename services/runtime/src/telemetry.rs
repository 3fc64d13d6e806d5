//! Logs: structured `tracing` events on standard error.

use std::{
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, fmt, layer::SubscriberExt, registry::LookupSpan, reload,
    util::SubscriberInitExt,
};

use crate::tls::TlsError;

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

/// Telemetry that cannot start.
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
    /// A word of the filter is no level. By itself it would name a crate, and silence all others.
    #[error("log.level: expected error, warn, info, debug, trace, off or CRATE=LEVEL, found {word:?}")]
    Level {
        /// The word.
        word: String,
    },
    /// Telemetry runs already.
    #[error("logs are being written already: {0}")]
    AlreadyStarted(Box<dyn std::error::Error + Send + Sync>),
    /// The level of logs that were never started.
    #[error("no logs are being written")]
    NotStarted,
    /// A share of calls that is none.
    #[error("telemetry.sample_ratio: expected a number from 0 to 1, found {0}")]
    SampleRatio(f64),
    /// The files for the collector cannot be used.
    #[error("telemetry.otlp_tls: {0}")]
    Tls(#[from] TlsError),
    /// The collector has a name that no request can carry.
    #[error("telemetry.otlp_endpoint: {0}")]
    Collector(#[from] tonic::transport::Error),
    /// Traces cannot be exported.
    #[error("telemetry.otlp_endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The level of the logs, which can be changed while they are written. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LogLevel {
    current: Arc<Mutex<Option<Current>>>,
}

/// What is logged now, and the way to change it.
#[derive(Debug)]
struct Current {
    level: String,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogLevel {
    /// The level, or the levels by crate; none if no logs are written.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|current| current.level.clone())
    }

    /// Logs by `level` from now on: a level, or levels by crate.
    ///
    /// # Errors
    /// If it cannot be read, or no logs are written.
    pub fn set(&self, level: &str) -> Result<(), TelemetryError> {
        let filter = filter(level)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let current = current.as_mut().ok_or(TelemetryError::NotStarted)?;
        current.filter.reload(filter).map_err(|_gone| TelemetryError::NotStarted)?;
        level.clone_into(&mut current.level);
        Ok(())
    }
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let mut words = level.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.contains(['=', '[']));
    if let Some(word) = words.find(|word| word.parse::<LevelFilter>().is_err()) {
        return Err(TelemetryError::Level { word: word.to_owned() });
    }
    // Decoders report damage as errors; their own log lines would only let an upload fill the log.
    EnvFilter::try_new(format!("symphonia=off,opentelemetry=warn,{level}"))
        .map_err(|source| TelemetryError::Filter { level: level.to_owned(), source })
}

/// Starts logging for the process.
///
/// # Errors
/// If the filter cannot be read, or logging was started before.
pub fn start(config: &LogConfig) -> Result<LogLevel, TelemetryError> {
    let level = config.level.clone();
    let (layer, filter) = reload::Layer::new(filter(&level)?);
    tracing_subscriber::registry()
        .with(layer)
        .with(lines(config.format))
        .try_init()
        .map_err(|error| TelemetryError::AlreadyStarted(error.into()))?;
    Ok(LogLevel { current: Arc::new(Mutex::new(Some(Current { level, filter }))) })
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(std::io::stderr);
    if json {
        lines.json().flatten_event(true).with_current_span(false).boxed()
    } else {
        lines.with_ansi(terminal).with_target(false).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_level_or_has_a_crate() {
        for level in ["info", "off", "warn,chorale_gateway=debug", "WARN", "chorale_feature[call]=trace, info"] {
            filter(level).unwrap();
        }
        for (level, word) in [("infoo", "infoo"), ("info,degub", "degub"), ("chorale_gateway", "chorale_gateway")] {
            let error = filter(level).unwrap_err().to_string();
            assert!(error.contains(&format!("{word:?}")) && error.contains("debug"), "{error}");
        }
        assert!(filter("loud=[").is_err());
    }
}
