//! The end of a process: signals, and the order in which roles drain.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

/// How a process ends.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// How long to go on serving after readiness is withdrawn, so that load balancers notice. Default: none.
    #[serde(with = "humantime_serde")]
    pub delay: Duration,
    /// How long accepted work may take to finish before it is cut off. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { delay: Duration::ZERO, grace: Duration::from_secs(30) }
    }
}

/// Waits for SIGTERM or SIGINT and says which.
///
/// # Errors
/// If the handlers cannot be installed.
pub async fn signalled() -> io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
