//! The configuration of every command that serves: one section a role, and what they share.

use std::path::Path;

use chorale_feature::FeatureConfig;
use chorale_gateway::GatewayConfig;
use chorale_inference::InferenceConfig;
use chorale_runtime::{
    admin::AdminConfig,
    config::{self, ConfigError},
    shutdown::ShutdownConfig,
    telemetry::LogConfig,
    trace::TelemetryConfig,
};
use serde::{Deserialize, Serialize};

/// Everything that can be configured. Keys are sections of the TOML file and, as
/// `CHORALE_<SECTION>__<KEY>`, environment variables.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) gateway: GatewayConfig,
    pub(crate) feature: FeatureConfig,
    pub(crate) inference: InferenceConfig,
    pub(crate) admin: AdminConfig,
    pub(crate) log: LogConfig,
    pub(crate) telemetry: TelemetryConfig,
    pub(crate) shutdown: ShutdownConfig,
}

/// What the command line sets, by dotted key.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<(String, config::Value)>);

impl Flags {
    /// Sets `key` if the flag was given.
    pub(crate) fn set<T: Serialize>(mut self, key: &'static str, value: Option<T>) -> Result<Self, ConfigError> {
        if let Some(value) = value {
            self.0.push((key.to_owned(), config::flag_value(value)?));
        }
        Ok(self)
    }

    /// Sets `key` if the flag was given at least once.
    pub(crate) fn set_list<T: Serialize>(self, key: &'static str, values: &[T]) -> Result<Self, ConfigError> {
        self.set(key, (!values.is_empty()).then_some(values))
    }

    /// Sets keys to what their texts mean, as in an environment variable.
    pub(crate) fn set_texts(mut self, settings: &[(String, String)]) -> Self {
        self.0.extend(settings.iter().map(|(key, text)| (key.clone(), config::text_value(text))));
        self
    }

    /// Loads defaults, `file`, the environment and these flags, in this order.
    pub(crate) fn load(&self, file: Option<&Path>) -> Result<Config, ConfigError> {
        let flags: Vec<_> = self.0.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        config::load(file, &flags)
    }
}
