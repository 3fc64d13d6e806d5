//! Notices what only a new process can mend.
//!
//! - A device that hangs, in a forward pass that never ends: nothing can take it back from the thread that waits for it.
//! - GPUs that do not recover. After an illegal access, say, or an error of its memory, CUDA answers everything else that this
//!   process asks of the GPU with that error. As long as another device of the process works, it goes on with that one.
//!
//! The role withdraws its readiness, and the process ends, to be started anew by whoever runs it; chunks that were here go to
//! other replicas.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chorale_model::DeviceSpec;
use chorale_proto::service_names;
use chorale_runtime::process::Process;

/// How a device is.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    device: DeviceSpec,
    /// Since when it has been at its forward pass.
    began: Arc<Mutex<Option<Instant>>>,
    /// Whether it does not recover by itself.
    lost: Arc<AtomicBool>,
}

impl Pulse {
    /// The pulse of a device that does nothing yet.
    pub(crate) fn new(device: DeviceSpec) -> Self {
        Self { device, began: Arc::default(), lost: Arc::default() }
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

    /// Says whether the device is one that does not recover by itself.
    pub(crate) fn set_lost(&self, lost: bool) {
        self.lost.store(lost, Ordering::Relaxed);
    }

    /// Whether it is.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// How long the forward pass of now has run.
    fn running(&self, now: Instant) -> Option<Duration> {
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        began.map(|began| now.saturating_duration_since(began))
    }
}

/// Ends `process` when one of these devices has been at a forward pass for longer than `limit`, or all are lost.
pub(crate) async fn watch(pulses: Vec<Pulse>, limit: Duration, process: Process) {
    loop {
        tokio::time::sleep(limit / 10).await;
        let now = Instant::now();
        let hung = pulses.iter().find(|pulse| pulse.running(now).is_some_and(|running| running > limit));
        let message = if let Some(Pulse { device, .. }) = hung {
            format!("{device} hangs: a forward pass has not ended within {limit:?}; start this role again")
        } else if !pulses.is_empty() && pulses.iter().all(Pulse::is_lost) {
            let devices: Vec<_> = pulses.iter().map(|pulse| pulse.device.to_string()).collect();
            format!("{}: no forward pass succeeds any more; start this role again", devices.join(", "))
        } else {
            continue;
        };
        tracing::error!(message, "the process ends");
        process.readiness.withdraw(service_names::INFERENCE);
        process.fail(message);
        return;
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

    #[tokio::test]
    async fn a_process_whose_devices_are_all_lost_ends_and_not_before() {
        let limit = Duration::from_millis(50);
        let (process, pulses) = (Process::default(), [0, 1].map(|index| Pulse::new(DeviceSpec::Cuda(index))));
        let watching = tokio::spawn(watch(pulses.to_vec(), limit, process.clone()));
        for lost in [[true, false], [false, true], [true, true]] {
            assert!(!watching.is_finished(), "{lost:?}");
            pulses.iter().zip(lost).for_each(|(pulse, lost)| pulse.set_lost(lost));
            tokio::time::sleep(limit).await;
        }
        let message = tokio::time::timeout(Duration::from_secs(10), process.failed()).await.expect("it is noticed");
        assert!(message.contains("cuda:0, cuda:1") && message.contains("start this role again"), "{message}");
    }
}
