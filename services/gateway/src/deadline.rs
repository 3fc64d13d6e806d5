//! When an answer is due.

use std::time::Duration;

use chorale_runtime::deadline::LONGEST_TIMEOUT;
use tokio::time::Instant;

/// The most time before a deadline at which a partial verdict is given, so that it arrives in time.
const PARTIAL_MARGIN: Duration = Duration::from_millis(500);
/// The most time before a deadline at which a call fails: our failure, which says why, must come before the bare one
/// that the transport makes at the deadline itself.
const FAILURE_MARGIN: Duration = Duration::from_millis(10);

/// How long a caller waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// The deadline of a call that comes in now. `None` if it is too far away to matter.
    pub(crate) fn after(timeout: Duration) -> Option<Self> {
        let timeout = Some(timeout).filter(|timeout| *timeout <= LONGEST_TIMEOUT)?;
        Instant::now().checked_add(timeout).map(|at| Self { at, timeout })
    }

    /// When the call must be answered: at most a tenth of its time before the deadline.
    pub(crate) fn answer_by(&self, partial: bool) -> Instant {
        let margin = if partial { PARTIAL_MARGIN } else { FAILURE_MARGIN };
        self.at - margin.min(self.timeout / 10)
    }

    /// The time left.
    pub(crate) fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_in_a_hundred_years_is_not_due() {
        let years = |years: u64| Duration::from_secs(years * 365 * 24 * 3_600);
        assert!(Deadline::after(years(99)).is_some());
        assert!(Deadline::after(years(20_000)).is_none() && Deadline::after(Duration::MAX).is_none());
    }
}
