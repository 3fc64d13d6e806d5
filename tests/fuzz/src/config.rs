//! Configuration files.

use chorale_feature::FeatureConfig;
use chorale_gateway::GatewayConfig;
use chorale_inference::InferenceConfig;
use chorale_runtime::{admin::AdminConfig, config::load, shutdown::ShutdownConfig, telemetry::LogConfig};
use serde::{Deserialize, Serialize};

use crate::scratch::Scratch;

/// The sections of a file, as the binary has them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    gateway: GatewayConfig,
    feature: FeatureConfig,
    inference: InferenceConfig,
    admin: AdminConfig,
    log: LogConfig,
    shutdown: ShutdownConfig,
}

/// The TOML file of any role.
pub fn config(input: &[u8]) {
    thread_local!(static SCRATCH: Scratch = Scratch::new());
    SCRATCH.with(|scratch| {
        let path = scratch.write("chorale.toml", input);
        match load::<Config>(Some(&path), &[]) {
            Ok(config) => {
                let outcomes = [
                    config.gateway.validate().err().map(|error| error.to_string()),
                    config.feature.validate().err().map(|error| error.to_string()),
                    config.inference.validate().err().map(|error| error.to_string()),
                ];
                assert!(outcomes.iter().flatten().all(|message| !message.is_empty()));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}
