//! Notices a device that hangs: a forward pass that never ends.
//!
//! Nothing in this process can take a device back from a thread that waits for it. So the role withdraws its readiness, and the
//! process ends, to be started anew by whoever runs it; chunks that were here go to other replicas.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chorale_model::DeviceSpec;
use chorale_proto::service_names;
use chorale_runtime::process::Process;

/// Since when a device has been at its forward pass.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    device: DeviceSpec,
    began: Arc<Mutex<Option<Instant>>>,
}

impl Pulse {
    /// The pulse of a device that does nothing yet.
    pub(crate) fn new(device: DeviceSpec) -> Self {
        Self { device, began: Arc::default() }
    }

    /// Runs a forward pass.
    pub(crate) fn during<T>(&self, forward: impl FnOnce() -> T) -> T {
        self.set(Some(Instant::now()));
        let result = forward();
        self.set(None);
        result
    }

    fn set(&self, began: Option<Instant>) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }

    /// How long the forward pass of now has run.
    fn running(&self, now: Instant) -> Option<Duration> {
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        began.map(|began| now.saturating_duration_since(began))
    }
}

/// Ends `process` when one of these devices has been at a forward pass for longer than `limit`.
pub(crate) async fn watch(pulses: Vec<Pulse>, limit: Duration, process: Process) {
    loop {
        tokio::time::sleep(limit / 10).await;
        let now = Instant::now();
        let hung = pulses.iter().find(|pulse| pulse.running(now).is_some_and(|running| running > limit));
        if let Some(Pulse { device, .. }) = hung {
            let message =
                format!("{device} hangs: a forward pass has not ended within {limit:?}; start this role again");
            tracing::error!(%device, ?limit, "the device hangs: the process ends");
            process.readiness.withdraw(service_names::INFERENCE);
            process.fail(message);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_forward_pass_that_does_not_end_ends_the_process_and_others_do_not() {
        let limit = Duration::from_millis(50);
        let (process, pulse) = (Process::default(), Pulse::new(DeviceSpec::Cpu));
        process.readiness.set(service_names::INFERENCE, true);
        let watching = tokio::spawn(watch(vec![pulse.clone()], limit, process.clone()));
        for _ in 0..10 {
            pulse.during(|| std::thread::sleep(limit / 5));
            tokio::time::sleep(limit / 5).await;
        }
        assert!(!watching.is_finished() && process.readiness.snapshot()[service_names::INFERENCE]);

        let (ends, end) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || pulse.during(|| end.recv()));
        let message = tokio::time::timeout(Duration::from_secs(10), process.failed()).await.expect("it is noticed");
        assert!(message.contains("cpu") && message.contains("start this role again"), "{message}");
        assert!(!process.readiness.snapshot()[service_names::INFERENCE]);
        drop(ends);
        assert!(thread.join().unwrap().is_err());
    }
}
