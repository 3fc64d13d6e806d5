//! Whether a backend that does not answer is asked at all.

use std::time::{Duration, Instant};

/// This many operations in a row without an answer open the breaker.
const FAILURES_TO_OPEN: u32 = 3;
/// How long an open breaker lets nothing through.
const OPEN_FOR: Duration = Duration::from_secs(1);

/// A circuit breaker: calls do not wait, one after the other, for a backend that hangs.
///
/// - *Closed*: every operation is tried. [`FAILURES_TO_OPEN`] in a row without an answer open it.
/// - *Open*: none is tried, for [`OPEN_FOR`]. Then it is half-open.
/// - *Half-open*: one operation is tried, others are not. An answer closes it; none, for as long again, is as if it had been
///   opened anew.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures_in_a_row: u32,
    /// While it is open or half-open: when the next operation is tried.
    next_try: Option<Instant>,
}

impl Breaker {
    /// Whether an operation may be tried `now`.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match self.next_try {
            None => true,
            Some(next_try) if now < next_try => false,
            Some(_) => {
                self.next_try = Some(now + OPEN_FOR);
                true
            }
        }
    }

    /// Learns that an operation was answered.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// Learns that an operation had no answer. Returns whether the breaker is open after it.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if self.failures_in_a_row >= FAILURES_TO_OPEN {
            self.next_try = Some(now + OPEN_FOR);
        }
        self.is_open()
    }

    /// Whether it is open, or half-open.
    pub(super) fn is_open(&self) -> bool {
        self.next_try.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_hangs_is_asked_once_a_second_until_it_answers() {
        let began = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES_TO_OPEN {
            assert!(breaker.admits(began));
            assert!(!breaker.failed(began));
        }
        breaker.answered();
        for failure in 1..=FAILURES_TO_OPEN {
            assert!(breaker.admits(began));
            assert_eq!(breaker.failed(began), failure == FAILURES_TO_OPEN);
        }
        assert!(!breaker.admits(began + OPEN_FOR / 2));

        let later = began + OPEN_FOR;
        assert!(breaker.admits(later), "half-open");
        assert!(!breaker.admits(later), "for one only");
        assert!(breaker.failed(later) && !breaker.admits(later + OPEN_FOR / 2));

        let later = later + OPEN_FOR;
        assert!(breaker.admits(later));
        // Its caller went away: nothing was learnt.
        assert!(!breaker.admits(later + OPEN_FOR / 2));
        assert!(breaker.admits(later + OPEN_FOR));
        breaker.answered();
        assert!(!breaker.is_open() && breaker.admits(later) && breaker.admits(later));
    }
}
