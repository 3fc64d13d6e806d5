//! The thread that owns a device: it takes batches, runs them, and answers.
//!
//! ```text
//!              loaded and warmed up                     3 failures in a row
//!   starting ────────────────────────▶ serving ────────────────────────────────▶ resting
//!      │                                  ▲  │                                    │   │
//!      │ failed: the role does not start  │  │ no further chunk can come          │   │
//!      ▼                                  │  ▼                                    │   │
//!     end                                 │ end ◀─────────────────────────────────┘   │
//!                                         └───────────────────────────────────────────┘
//!                                            a probe succeeded: the warm-up once more
//! ```
//!
//! A resting device takes no batches, as one that fails at once would win every chunk from those that work.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use chorale_model::{Classifier, DeviceSpec, Manifest, ModelError, contract::CHUNK_CELLS};
use chorale_proto::v1::Prediction;
use chorale_runtime::failure::{Failure, Reason};
use tokio::sync::oneshot;

use crate::{InferenceError, batcher::Batcher, metrics::InferenceMetrics, queue::Batch, waiting::WaitingChunk};

/// Failed forward passes in a row after which a device rests.
const FAILURES_TO_REST: u32 = 3;
/// The pause before the first probe of a resting device; it doubles up to the longest.
const FIRST_PROBE: Duration = Duration::from_secs(1);
const LONGEST_PROBE: Duration = Duration::from_secs(30);

/// A network on a device.
pub(crate) trait Forward {
    /// The probability of every label, for every chunk of the batch, in order.
    fn forward(&self, chunks: &[&[u8]]) -> Result<Vec<Vec<f32>>, ModelError>;
}

impl Forward for Classifier {
    fn forward(&self, chunks: &[&[u8]]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.classify(chunks)
    }
}

/// What the workers of a role share.
#[derive(Debug, Clone)]
pub(crate) struct WorkerContext {
    model_version: Arc<str>,
    labels: usize,
    max_batch: usize,
    batcher: Arc<Batcher>,
    metrics: Arc<InferenceMetrics>,
    first_probe: Duration,
}

impl WorkerContext {
    /// Workers for a model, which take batches of up to `max_batch` chunks from `batcher`.
    pub(crate) fn new(
        manifest: &Manifest,
        max_batch: usize,
        batcher: Arc<Batcher>,
        metrics: Arc<InferenceMetrics>,
    ) -> Self {
        Self {
            model_version: manifest.version.as_str().into(),
            labels: manifest.labels.len(),
            max_batch,
            batcher,
            metrics,
            first_probe: FIRST_PROBE,
        }
    }
}

/// Starts the thread that owns `device`, and waits until it is ready: the network loaded and warmed up.
///
/// # Errors
/// If the network cannot be loaded or fails in the warm-up.
pub(crate) async fn start<F: Forward>(
    device: DeviceSpec,
    load: impl FnOnce() -> Result<F, ModelError> + Send + 'static,
    context: WorkerContext,
) -> Result<(), InferenceError> {
    let (started, ready) = oneshot::channel();
    let run = move || {
        let prepared = load().map_err(|source| InferenceError::Load { device, source }).and_then(|network| {
            let worker = Worker { device, network, context };
            worker.warm_up()?;
            Ok(worker)
        });
        // A failed send means that another device failed and the role gave up: the queue is closed then.
        match prepared {
            Ok(worker) => worker.run(|| drop(started.send(Ok(())))),
            Err(error) => drop(started.send(Err(error))),
        }
    };
    thread::Builder::new()
        .name(format!("infer-{device}"))
        .spawn(run)
        .map_err(|source| InferenceError::Thread { device, source })?;
    ready.await.unwrap_or(Err(InferenceError::ThreadEnded { device }))
}

struct Worker<F> {
    device: DeviceSpec,
    network: F,
    context: WorkerContext,
}

impl<F: Forward> Worker<F> {
    /// Takes batches until no further one can come. Calls `ready` when it counts among those that do.
    fn run(&self, ready: impl FnOnce()) {
        let mut ready = Some(ready);
        loop {
            let serving = self.context.batcher.join();
            if let Some(ready) = ready.take() {
                ready();
            }
            let mut failures = 0;
            while failures < FAILURES_TO_REST {
                let Some(batch) = self.context.batcher.next_batch() else { return };
                failures = if self.run_batch(batch) { 0 } else { failures + 1 };
            }
            drop(serving);
            tracing::error!(device = %self.device, failures, "the device takes no batches until a probe succeeds");
            if !self.recovers() {
                return;
            }
            tracing::info!(device = %self.device, "the device works again");
        }
    }

    /// Runs a batch and answers every chunk. True if it went well.
    fn run_batch(&self, batch: Batch) -> bool {
        let started = Instant::now();
        for chunk in &batch.chunks {
            self.context.metrics.queue_wait(chunk.urgency(), started.saturating_duration_since(chunk.received()));
        }
        let mels: Vec<&[u8]> = batch.chunks.iter().map(WaitingChunk::mel).collect();
        let result = self.forward(&mels);
        // The batcher never lets an empty batch go, and a batch of 2³² does not fit into memory.
        let compute = started.elapsed() / u32::try_from(mels.len()).unwrap_or(u32::MAX).max(1);
        match result {
            Ok(probabilities) => {
                for (chunk, probabilities) in batch.chunks.into_iter().zip(probabilities) {
                    let prediction = Prediction {
                        probabilities,
                        model_version: self.context.model_version.as_ref().to_owned(),
                        queue: started.saturating_duration_since(chunk.received()).try_into().ok(),
                        compute: compute.try_into().ok(),
                    };
                    chunk.answer(Ok(prediction));
                }
                true
            }
            Err(error) => {
                tracing::error!(%error, "a batch failed");
                for chunk in batch.chunks {
                    chunk.answer(Err(Failure::new(Reason::Internal, error.to_string())));
                }
                false
            }
        }
    }

    /// Probes the device until it works: true, or until no further chunk can come: false.
    fn recovers(&self) -> bool {
        let mut pause = self.context.first_probe;
        while !self.context.batcher.ends_within(pause) {
            match self.warm_up() {
                Ok(()) => return true,
                Err(error) => tracing::warn!(%error, "a probe failed"),
            }
            pause = (pause * 2).min(LONGEST_PROBE);
        }
        false
    }

    /// Runs the smallest and the largest batch, so that the first caller does not pay for what a device does once.
    fn warm_up(&self) -> Result<(), InferenceError> {
        let silence = vec![0; CHUNK_CELLS];
        self.forward(&[silence.as_slice()])?;
        self.forward(&vec![silence.as_slice(); self.context.max_batch])?;
        Ok(())
    }

    fn forward(&self, chunks: &[&[u8]]) -> Result<Vec<Vec<f32>>, InferenceError> {
        let started = Instant::now();
        // The network is only read, so that a panic leaves nothing half done behind.
        let result = catch_unwind(AssertUnwindSafe(|| self.network.forward(chunks)));
        let (device, chunk_count) = (self.device, chunks.len());
        let checked = match result {
            Ok(Ok(probabilities)) => self.check(chunk_count, probabilities),
            Ok(Err(source)) => Err(InferenceError::Forward { device, chunks: chunk_count, source }),
            Err(panic) => {
                Err(InferenceError::Panicked { device, chunks: chunk_count, message: panic_message(panic.as_ref()) })
            }
        };
        self.context.metrics.forward(device, started.elapsed(), checked.is_err());
        checked
    }

    fn check(&self, chunks: usize, probabilities: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>, InferenceError> {
        let labels = self.context.labels;
        let output = |found| InferenceError::Output { device: self.device, chunks, labels, found };
        if probabilities.len() != chunks {
            return Err(output(format!("answers for {}", probabilities.len())));
        }
        for values in &probabilities {
            if values.len() != labels {
                return Err(output(format!("{} values", values.len())));
            }
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(output(format!("the value {value}")));
            }
        }
        Ok(probabilities)
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;
    use crate::{
        batcher::Intake,
        testing::{Caller, POLICY, metrics, outcome},
        waiting::Answer,
    };

    const LABELS: usize = 2;

    /// Says of each chunk what its first cell is; fails as often as it is told to.
    #[derive(Clone, Default)]
    struct Fake {
        batches: Arc<Mutex<Vec<usize>>>,
        panics: Arc<AtomicU32>,
        errors: Arc<AtomicU32>,
        wrong: Arc<Mutex<Option<Vec<Vec<f32>>>>>,
    }

    fn count_down(counter: &AtomicU32) -> bool {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1)).is_ok()
    }

    impl Forward for Fake {
        fn forward(&self, chunks: &[&[u8]]) -> Result<Vec<Vec<f32>>, ModelError> {
            self.batches.lock().unwrap().push(chunks.len());
            assert!(!count_down(&self.panics), "a panic of the test");
            if count_down(&self.errors) {
                return Err(ModelError::ChunkSize { index: 0, expected: 1, found: 2 });
            }
            if let Some(wrong) = self.wrong.lock().unwrap().take() {
                return Ok(wrong);
            }
            Ok(chunks.iter().map(|chunk| vec![f32::from(chunk[0]), 0.0]).collect())
        }
    }

    fn context(intake: &Intake) -> WorkerContext {
        WorkerContext {
            model_version: "version".into(),
            labels: LABELS,
            max_batch: POLICY.max_batch,
            batcher: intake.batcher(),
            metrics: metrics(),
            first_probe: Duration::from_millis(20),
        }
    }

    async fn started(fake: &Fake) -> Intake {
        let intake = Intake::new(POLICY, metrics());
        let network = fake.clone();
        start(DeviceSpec::Cpu, move || Ok(network), context(&intake)).await.unwrap();
        intake
    }

    async fn ask(intake: &Intake, caller: &mut Caller, tag: u64) -> Answer {
        intake.submit(caller.chunk(tag, Instant::now(), None));
        caller.answer().await
    }

    #[tokio::test]
    async fn a_worker_is_ready_after_the_smallest_and_the_largest_batch_and_answers_each_chunk_with_its_own() {
        let fake = Fake::default();
        let intake = started(&fake).await;
        assert_eq!(*fake.batches.lock().unwrap(), [1, POLICY.max_batch]);
        let mut caller = Caller::new();
        for tag in 10..14 {
            intake.submit(caller.chunk(tag, Instant::now(), None));
        }
        for _ in 10..14 {
            let answer = caller.answer().await;
            let prediction = answer.result.unwrap();
            assert_eq!(prediction.probabilities, [answer.tag as f32, 0.0]);
            assert_eq!(prediction.model_version, "version");
            assert!(prediction.queue.is_some() && prediction.compute.is_some());
        }
        assert_eq!(fake.batches.lock().unwrap().last(), Some(&4));
    }

    #[tokio::test]
    async fn a_worker_that_cannot_load_or_run_its_network_is_not_started() {
        let intake = Intake::new(POLICY, metrics());
        let load = || Err::<Fake, _>(ModelError::DeviceNotBuilt(DeviceSpec::Cuda(1)));
        let error = start(DeviceSpec::Cuda(1), load, context(&intake)).await.unwrap_err();
        assert!(matches!(error, InferenceError::Load { .. }), "{error}");

        let load = || -> Result<Fake, ModelError> { panic!("a panic of the test") };
        let error = start(DeviceSpec::Cpu, load, context(&intake)).await.unwrap_err();
        assert!(matches!(error, InferenceError::ThreadEnded { .. }), "{error}");

        let fake = Fake::default();
        fake.errors.store(1, Ordering::SeqCst);
        let network = fake.clone();
        let error = start(DeviceSpec::Cpu, move || Ok(network), context(&intake)).await.unwrap_err();
        assert!(matches!(error, InferenceError::Forward { chunks: 1, .. }), "{error}");
        assert_eq!(*intake.serving().borrow(), 0);
    }

    #[tokio::test]
    async fn a_panic_an_error_and_a_wrong_output_fail_their_chunks_and_nothing_else() {
        let (fake, mut caller) = (Fake::default(), Caller::new());
        let intake = started(&fake).await;
        fake.panics.store(1, Ordering::SeqCst);
        assert_eq!(outcome(&ask(&intake, &mut caller, 1).await), (1, Some("INTERNAL")));
        fake.errors.store(1, Ordering::SeqCst);
        assert_eq!(outcome(&ask(&intake, &mut caller, 2).await), (2, Some("INTERNAL")));
        assert_eq!(outcome(&ask(&intake, &mut caller, 3).await), (3, None));
        for (wrong, found) in [
            (vec![], "answers for 0"),
            (vec![vec![0.5; LABELS + 1]], "3 values"),
            (vec![vec![f32::NAN; LABELS]], "the value NaN"),
        ] {
            *fake.wrong.lock().unwrap() = Some(wrong);
            let message = ask(&intake, &mut caller, 4).await.result.unwrap_err().message;
            assert!(message.ends_with(found), "{message}");
            assert_eq!(outcome(&ask(&intake, &mut caller, 5).await), (5, None));
        }
    }

    #[tokio::test]
    async fn a_device_that_keeps_failing_rests_until_a_probe_succeeds() {
        let (fake, mut caller) = (Fake::default(), Caller::new());
        let intake = started(&fake).await;
        let mut serving = intake.serving();
        // Three batches, and the first probe.
        fake.errors.store(4, Ordering::SeqCst);
        for tag in 0..3 {
            assert_eq!(outcome(&ask(&intake, &mut caller, tag).await), (tag, Some("INTERNAL")));
        }
        serving.wait_for(|&serving| serving == 0).await.unwrap();
        assert_eq!(outcome(&ask(&intake, &mut caller, 3).await), (3, Some("DEPENDENCY_UNAVAILABLE")));
        serving.wait_for(|&serving| serving == 1).await.unwrap();
        assert_eq!(outcome(&ask(&intake, &mut caller, 4).await), (4, None));
    }

    #[tokio::test]
    async fn workers_finish_what_waits_and_end_when_the_queue_is_closed() {
        let (fake, mut caller) = (Fake::default(), Caller::new());
        let intake = started(&fake).await;
        let mut serving = intake.serving();
        for tag in 0..3 {
            intake.submit(caller.chunk(tag, Instant::now(), None));
        }
        drop(intake);
        for tag in 0..3 {
            assert_eq!(outcome(&caller.answer().await), (tag, None));
        }
        // The sender goes with the last worker.
        while serving.changed().await.is_ok() {}
    }
}
