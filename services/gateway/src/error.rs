//! Why a gateway does not start.

use std::{io, path::PathBuf};

use chorale_runtime::server::ServerError;

/// A gateway that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A value of the configuration does not fit.
    #[error("configuration: {key}: expected {expected}, found {found}")]
    Config {
        /// The dotted key.
        key: &'static str,
        /// What would fit.
        expected: &'static str,
        /// What was there.
        found: String,
    },
    /// The cache cannot be set up. A Redis server that is merely away does not cause this.
    #[error("cache: {0}")]
    Cache(#[from] redis::RedisError),
    /// The file with the cache's secret cannot be read.
    #[error("gateway.cache.secret_file: {}: {source}", path.display())]
    SecretFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server cannot start.
    #[error(transparent)]
    Server(#[from] ServerError),
}
