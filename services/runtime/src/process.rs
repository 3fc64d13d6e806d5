//! What the roles of one process share.

use crate::{health::Readiness, metrics::Metrics};

/// The state of one process, handed to every role that starts in it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Where roles register their metrics.
    pub metrics: Metrics,
    /// Where roles say whether they are ready.
    pub readiness: Readiness,
}
