//! What the roles of one process share.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{health::Readiness, inspect::Views, metrics::Metrics, telemetry::LogLevel};

/// The state of one process, handed to every role that starts in it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Where roles register their metrics.
    pub metrics: Metrics,
    /// Where roles say whether they are ready.
    pub readiness: Readiness,
    /// Where roles show their state.
    pub views: Views,
    /// What is logged.
    pub log_level: LogLevel,
    failure: Arc<watch::Sender<Option<String>>>,
}

impl Process {
    /// A process whose logs are of `log_level`.
    #[must_use]
    pub fn logging_by(log_level: LogLevel) -> Self {
        Self { log_level, ..Self::default() }
    }

    /// Says that only a new process can mend what happened. The first one to say so is heard.
    pub fn fail(&self, message: String) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(message);
            first
        });
    }

    /// Waits until a role says that only a new process can mend what happened: what that was.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let failed = failure.wait_for(Option::is_some).await;
        failed.ok().and_then(|message| message.clone()).unwrap_or_default()
    }
}
