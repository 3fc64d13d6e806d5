//! Whether an upload makes progress that is worth its place.

use std::time::Duration;

use chorale_runtime::failure::Failure;

/// The pace of an upload while it is waited for. Time in which it is not, as the cluster is busy with what came, does not
/// count.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second.
    least: u64,
    over: Duration,
    waited: Duration,
    /// Bytes that had come when the wait began to be counted.
    before: u64,
}

impl Pace {
    /// At least so many bytes a second, on average over so long.
    pub(crate) fn new(least: u64, over: Duration) -> Self {
        Self { least, over, waited: Duration::ZERO, before: 0 }
    }

    /// Counts a wait, after which so many bytes had come in all.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` if it was too slow for too long.
    pub(crate) fn waited(&mut self, wait: Duration, bytes: u64) -> Result<(), Failure> {
        self.waited += wait;
        if self.waited < self.over {
            return Ok(());
        }
        let came = bytes.saturating_sub(self.before) as f64 / self.waited.as_secs_f64();
        (self.waited, self.before) = (Duration::ZERO, bytes);
        if came >= self.least as f64 {
            return Ok(());
        }
        let (least, over) = (self.least, self.over);
        let message = format!("expected an upload of at least {least} bytes a second over {over:?}, found {came:.0}");
        Err(Failure::limit("min_upload_rate", least, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_drips_ends_and_one_that_flows_does_not() {
        let (second, window) = (Duration::from_secs(1), Duration::from_secs(10));
        let mut drip = Pace::new(100, window);
        for seconds in 1..10 {
            assert!(drip.waited(second, seconds).is_ok());
        }
        let failure = drip.waited(second, 10).unwrap_err();
        assert_eq!(failure.metadata["limit"], "min_upload_rate");
        assert!(failure.message.contains("found 1"), "{failure}");

        let mut flow = Pace::new(100, window);
        for seconds in 1..100 {
            assert!(flow.waited(second, seconds * 100).is_ok());
        }
        // What came early does not pay for later.
        let later = (100..110).map(|_| flow.waited(second, 9_900)).find(Result::is_err);
        assert!(later.is_some());
        assert!(Pace::new(0, window).waited(2 * window, 0).is_ok());
    }
}
