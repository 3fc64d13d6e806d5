//! Why a gateway does not start.

use std::{io, path::PathBuf};

use chorale_runtime::{reload::ReloadError, server::ServerError, tls::TlsError};

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
    /// A file that the cache's configuration names cannot be read.
    #[error("gateway.cache: {}: {source}", path.display())]
    CacheFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The files that say who may call cannot be used.
    #[error("gateway.auth: {0}")]
    Auth(#[from] ReloadError),
    /// Feature services cannot be spoken to as configured.
    #[error("gateway.feature_tls: {0}")]
    FeatureTls(#[from] TlsError),
    /// The server cannot start.
    #[error(transparent)]
    Server(#[from] ServerError),
}
