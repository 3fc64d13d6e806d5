//! The thread that owns a device: it takes batches, runs them, and answers.
//!
//! ```text
//!              the models are loaded                    3 failures in a row
//!   starting ────────────────────────▶ serving ────────────────────────────────▶ resting
//!                                         ▲  │                                    │   │
//!                                         │  │ no further chunk can come          │   │
//!                                         │  ▼                                    │   │
//!                                         │ end ◀─────────────────────────────────┘   │
//!                                         └───────────────────────────────────────────┘
//!                                            a probe succeeded: a warm-up once more
//! ```
//!
//! A resting device takes no batches, as one that fails at once would win every chunk from those that work. A GPU that rests for a
//! minute is lost: `watchdog` says what follows. The chunks of a batch may be for several models: those of each have a forward
//! pass of their own.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashSet},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use chorale_model::DeviceSpec;
use chorale_proto::v1::Prediction;
use chorale_runtime::{
    failure::{Failure, Reason},
    priority::give_way,
    trace::{self, Span},
};

use crate::{
    InferenceError,
    batcher::{Batcher, Serving},
    metrics::InferenceMetrics,
    models::{LoadedModel, Models},
    network::Network,
    queue::Batch,
    waiting::WaitingChunk,
    watchdog::Pulse,
};

/// Failed batches in a row after which a device rests.
const FAILURES_TO_REST: u32 = 3;
/// The pause before the first probe of a resting device; it doubles up to the longest.
const FIRST_PROBE: Duration = Duration::from_secs(1);
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_PROBE: Duration = Duration::from_secs(30);
/// Failed probes in a row, in a minute, after which a GPU is one that only a new process can mend.
const PROBES_TO_LOSE: u32 = 6;

/// What the workers of a role share.
#[derive(Debug, Clone)]
pub(crate) struct WorkerContext {
    models: Arc<Models>,
    max_batch: usize,
    batcher: Arc<Batcher>,
    metrics: Arc<InferenceMetrics>,
    first_probe: Duration,
}

impl WorkerContext {
    /// Workers that take batches of up to `max_batch` chunks from `batcher`.
    pub(crate) fn new(
        models: Arc<Models>,
        max_batch: usize,
        batcher: Arc<Batcher>,
        metrics: Arc<InferenceMetrics>,
    ) -> Self {
        Self { models, max_batch, batcher, metrics, first_probe: FIRST_PROBE }
    }
}

/// Starts the thread that owns `device`, which the models are on already. It counts among those that take batches when this
/// returns: its pulse.
///
/// # Errors
/// If the operating system gives no thread.
pub(crate) fn start(device: DeviceSpec, context: WorkerContext) -> Result<Pulse, InferenceError> {
    let serving = context.batcher.join();
    let pulse = Pulse::new(device);
    let worker = Worker { device, context, pulse: pulse.clone(), memory_due: Cell::default() };
    thread::Builder::new()
        .name(format!("infer-{device}"))
        .spawn(move || {
            give_way();
            worker.run(serving);
        })
        .map_err(|source| InferenceError::Thread { device, source })?;
    Ok(pulse)
}

struct Worker {
    device: DeviceSpec,
    context: WorkerContext,
    pulse: Pulse,
    /// When the device's memory is measured again.
    memory_due: Cell<Option<Instant>>,
}

impl Worker {
    /// Takes batches until no further one can come.
    fn run(&self, mut serving: Serving) {
        loop {
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
            serving = self.context.batcher.join();
        }
    }

    /// Runs a batch, model by model, and answers every chunk. True if the device works: any forward pass went well.
    fn run_batch(&self, batch: Batch) -> bool {
        self.watch_memory();
        let mut by_model: Vec<(Arc<LoadedModel>, Vec<WaitingChunk>)> = Vec::new();
        for chunk in batch.chunks {
            match by_model.iter_mut().find(|(model, _)| Arc::ptr_eq(model, chunk.model())) {
                Some((_, chunks)) => chunks.push(chunk),
                None => by_model.push((Arc::clone(chunk.model()), vec![chunk])),
            }
        }
        by_model.into_iter().fold(false, |works, (model, chunks)| self.run_chunks(&model, chunks) || works)
    }

    /// Measures what the device's memory holds, which takes a moment: now and then.
    fn watch_memory(&self) {
        let now = Instant::now();
        if self.memory_due.get().is_some_and(|due| now < due) {
            return;
        }
        self.memory_due.set(Some(now + MEMORY_INTERVAL));
        if let Some(bytes) = self.device.memory_in_use() {
            self.context.metrics.device_memory(self.device, bytes);
        }
    }

    /// One forward pass over chunks for `model`, at least one. True if it went well.
    fn run_chunks(&self, model: &LoadedModel, chunks: Vec<WaitingChunk>) -> bool {
        let started = Instant::now();
        for chunk in &chunks {
            let wait = started.saturating_duration_since(chunk.received());
            self.context.metrics.queue_wait(chunk.urgency(), wait, chunk.trace());
            chunk.trace().record("queue", started, wait, &[]);
        }
        let batch = trace_batch(&chunks, self.device);
        let mels: Vec<&[u8]> = chunks.iter().map(WaitingChunk::mel).collect();
        let want_embeddings = chunks.iter().any(WaitingChunk::wants_embedding);
        let forward =
            |network: &Network| self.pulse.during(|| network.forward(&mels, want_embeddings, &self.context.metrics));
        let span = batch.child("forward");
        let began = Instant::now();
        let result = self.network(model).and_then(forward);
        drop(span);
        tell_other_traces(&chunks, &batch, began.elapsed());
        // A batch of 2³² chunks does not fit into memory.
        let compute = started.elapsed() / u32::try_from(mels.len()).unwrap_or(u32::MAX).max(1);
        match result {
            Ok(answers) => {
                for (chunk, answer) in chunks.into_iter().zip(answers) {
                    let prediction = Prediction {
                        probabilities: answer.probabilities,
                        embedding: if chunk.wants_embedding() { answer.embedding } else { Vec::new() },
                        model_version: model.version().to_owned(),
                        queue: started.saturating_duration_since(chunk.received()).try_into().ok(),
                        compute: compute.try_into().ok(),
                    };
                    chunk.answer(Ok(prediction));
                }
                true
            }
            Err(error) => {
                batch.fail(error.to_string());
                let traces = trace_ids(&chunks);
                tracing::error!(%error, version = model.version(), traces, "a batch failed");
                for chunk in chunks {
                    chunk.answer(Err(Failure::new(Reason::Internal, error.to_string())));
                }
                false
            }
        }
    }

    fn network<'a>(&self, model: &'a LoadedModel) -> Result<&'a Network, InferenceError> {
        let not_there = || InferenceError::NotLoaded { device: self.device, version: model.version().to_owned() };
        model.on(self.device).ok_or_else(not_there)
    }

    /// Probes the device until it works: true, or until no further chunk can come: false.
    fn recovers(&self) -> bool {
        let mut pause = self.context.first_probe;
        let mut failures = 0;
        while !self.context.batcher.ends_within(pause) {
            let Err(error) = self.probe() else {
                self.pulse.set_lost(false);
                return true;
            };
            failures += 1;
            tracing::warn!(%error, failures, "a probe failed");
            self.pulse.set_lost(failures >= PROBES_TO_LOSE && self.device != DeviceSpec::Cpu);
            pause = (pause * 2).min(LONGEST_PROBE);
        }
        false
    }

    /// Warms the model up that most chunks are for.
    fn probe(&self) -> Result<(), InferenceError> {
        let Ok(heaviest) = self.context.models.find("") else { return Ok(()) };
        let network = self.network(&heaviest)?;
        self.pulse.during(|| network.warm_up(self.context.max_batch, &self.context.metrics))
    }
}

/// A span for a batch, linked to those of all its chunks, and in the trace of the first that somebody follows.
fn trace_batch(chunks: &[WaitingChunk], device: DeviceSpec) -> Span {
    let followed = chunks.iter().map(WaitingChunk::trace).filter(|trace| trace.is_sampled());
    let Some(first) = followed.clone().next() else { return trace::Context::default().child("batch") };
    let span = first.child_for("batch", followed);
    span.set("chorale.batch.chunks", i64::try_from(chunks.len()).unwrap_or(i64::MAX));
    span.set("chorale.device", device.to_string());
    span
}

/// A batch is in one trace, but its chunks may be of many tracks: each of the other traces is told of it, too, by spans that are
/// linked to it.
fn tell_other_traces(chunks: &[WaitingChunk], batch: &Span, elapsed: Duration) {
    let mut told = HashSet::from([batch.context().trace_id()]);
    let ended = Instant::now();
    for trace in chunks.iter().map(WaitingChunk::trace).filter(|trace| trace.is_sampled()) {
        if told.insert(trace.trace_id()) {
            let _forward = trace.record_of(batch, "batch", ended, elapsed).record_of(batch, "forward", ended, elapsed);
        }
    }
}

/// The ids of the traces that chunks are of, with commas between.
fn trace_ids(chunks: &[WaitingChunk]) -> String {
    let ids: BTreeSet<String> = chunks.iter().filter_map(|chunk| chunk.trace().trace_id()).collect();
    ids.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    };

    use chorale_model::{Answer as Said, ModelError};

    use super::*;
    use crate::{
        batcher::Intake,
        network::Forward,
        testing::{Caller, POLICY, metrics, outcome, served_on},
        waiting::Answer,
    };

    const LABELS: usize = 2;

    /// Says of each chunk what its first cell is, and who says so, with the same as an embedding; fails as often as it is told
    /// to.
    #[derive(Clone, Default)]
    struct Fake {
        name: f32,
        batches: Arc<Mutex<Vec<usize>>>,
        panics: Arc<AtomicU32>,
        errors: Arc<AtomicU32>,
        wrong: Arc<Mutex<Option<Vec<Vec<f32>>>>>,
        embedded: Arc<AtomicU32>,
    }

    fn count_down(counter: &AtomicU32) -> bool {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1)).is_ok()
    }

    impl Forward for Fake {
        fn forward(&self, chunks: &[&[u8]], want_embeddings: bool) -> Result<Vec<Said>, ModelError> {
            self.embedded.fetch_add(u32::from(want_embeddings), Ordering::SeqCst);
            self.batches.lock().unwrap().push(chunks.len());
            assert!(!count_down(&self.panics), "a panic of the test");
            if count_down(&self.errors) {
                return Err(ModelError::ChunkSize { index: 0, expected: 1, found: 2 });
            }
            let wrong = self.wrong.lock().unwrap().take();
            let right = || chunks.iter().map(|chunk| vec![f32::from(chunk[0]), self.name]).collect();
            let said = |probabilities: Vec<f32>| Said {
                embedding: if want_embeddings { probabilities.clone() } else { Vec::new() },
                probabilities,
            };
            Ok(wrong.unwrap_or_else(right).into_iter().map(said).collect())
        }

        fn batch_sizes(&self, most: usize) -> Vec<usize> {
            vec![1, most]
        }
    }

    /// A worker for `fakes`, which are the versions `v0`, `v1` …, and a caller for each.
    fn started<const N: usize>(fakes: [&Fake; N]) -> (Intake, [Caller; N]) {
        let (intake, callers, _pulse) = started_on(DeviceSpec::Cpu, fakes);
        (intake, callers)
    }

    /// The same for a device, with its pulse.
    fn started_on<const N: usize>(device: DeviceSpec, fakes: [&Fake; N]) -> (Intake, [Caller; N], Pulse) {
        let intake = Intake::new(POLICY, metrics());
        let fakes = (0..).zip(fakes);
        let served: Vec<_> =
            fakes.map(|(index, fake)| served_on(device, &format!("v{index}"), 1, LABELS, fake.clone())).collect();
        let models = Arc::new(Models::new(served, metrics()));
        let callers = std::array::from_fn(|index| Caller::of(models.find(&format!("v{index}")).unwrap()));
        let context = WorkerContext::new(models, POLICY.max_batch, intake.batcher(), metrics());
        let pulse = start(device, WorkerContext { first_probe: Duration::from_millis(20), ..context }).unwrap();
        (intake, callers, pulse)
    }

    async fn ask(intake: &Intake, caller: &mut Caller, tag: u64) -> Answer {
        intake.submit(caller.chunk(tag, Instant::now(), None));
        caller.answer().await
    }

    #[tokio::test]
    async fn every_chunk_of_a_batch_is_answered_with_its_own() {
        let fake = Fake::default();
        let (intake, [mut caller]) = started([&fake]);
        for tag in 10..14 {
            intake.submit(caller.chunk(tag, Instant::now(), None));
        }
        for _ in 10..14 {
            let answer = caller.answer().await;
            let prediction = answer.result.unwrap();
            assert_eq!(prediction.probabilities, [answer.tag as f32, 0.0]);
            assert_eq!(prediction.model_version, "v0");
            assert!(prediction.queue.is_some() && prediction.compute.is_some());
        }
        assert_eq!(*fake.batches.lock().unwrap(), [4]);
    }

    #[tokio::test]
    async fn only_chunks_that_want_an_embedding_get_one_and_a_batch_without_any_makes_none() {
        let fake = Fake::default();
        let (intake, [mut caller]) = started([&fake]);
        for wanting in [[false; 4], [true, false, false, true]] {
            for (tag, wants) in (10..14).zip(wanting) {
                intake.submit(caller.chunk(tag, Instant::now(), None).with_embedding(wants));
            }
            for (tag, wants) in (10..14).zip(wanting) {
                let answer = caller.answer().await;
                let expected = if wants { vec![tag as f32, 0.0] } else { Vec::new() };
                assert_eq!((answer.tag, answer.result.unwrap().embedding), (tag, expected));
            }
            assert_eq!(fake.embedded.load(Ordering::SeqCst) > 0, wanting.contains(&true));
        }
    }

    #[tokio::test]
    async fn the_chunks_of_a_batch_are_answered_by_the_model_of_each() {
        let (one, other) = (Fake::default(), Fake { name: 1.0, ..Fake::default() });
        let (intake, [mut first, mut second]) = started([&one, &other]);
        for tag in 0..4 {
            let caller = if tag % 2 == 0 { &first } else { &second };
            intake.submit(caller.chunk(tag, Instant::now(), None));
        }
        for (caller, name, tags) in [(&mut first, 0.0, [0, 2]), (&mut second, 1.0, [1, 3])] {
            for tag in tags {
                let answer = caller.answer().await;
                let prediction = answer.result.unwrap();
                assert_eq!(prediction.probabilities, [tag as f32, name]);
                assert_eq!((answer.tag, prediction.model_version), (tag, format!("v{name}")));
            }
        }
        for fake in [&one, &other] {
            assert_eq!(*fake.batches.lock().unwrap(), [2], "one forward pass each");
        }
    }

    #[tokio::test]
    async fn a_model_that_fails_costs_the_chunks_of_others_nothing() {
        let (good, bad) = (Fake::default(), Fake::default());
        bad.errors.store(u32::MAX, Ordering::SeqCst);
        let (intake, [mut caller, mut unlucky]) = started([&good, &bad]);
        for _ in 0..2 * FAILURES_TO_REST {
            for tag in 0..2 {
                intake.submit(caller.chunk(tag, Instant::now(), None));
                intake.submit(unlucky.chunk(tag, Instant::now(), None));
            }
            for tag in 0..2 {
                assert_eq!(outcome(&caller.answer().await), (tag, None));
                assert_eq!(outcome(&unlucky.answer().await), (tag, Some("INTERNAL")));
            }
        }
        assert_eq!(*intake.serving().borrow(), 1, "the device works");
    }

    #[tokio::test]
    async fn a_panic_an_error_and_a_wrong_output_fail_their_chunks_and_nothing_else() {
        let fake = Fake::default();
        let (intake, [mut caller]) = started([&fake]);
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
    async fn a_gpu_that_does_not_recover_is_lost_until_it_does_and_a_processor_never() {
        for (device, lost) in [(DeviceSpec::Cuda(0), true), (DeviceSpec::Cpu, false)] {
            let fake = Fake::default();
            let (intake, [mut caller], pulse) = started_on(device, [&fake]);
            fake.errors.store(FAILURES_TO_REST + PROBES_TO_LOSE, Ordering::SeqCst);
            for tag in 0..FAILURES_TO_REST.into() {
                assert_eq!(outcome(&ask(&intake, &mut caller, tag).await), (tag, Some("INTERNAL")));
            }
            let mut serving = intake.serving();
            serving.wait_for(|&serving| serving == 0).await.unwrap();
            let mut was_lost = false;
            while *serving.borrow() == 0 {
                was_lost |= pulse.is_lost();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!((was_lost, pulse.is_lost()), (lost, false), "{device}");
        }
    }

    #[tokio::test]
    async fn a_device_that_keeps_failing_rests_until_a_probe_succeeds() {
        let fake = Fake::default();
        let (intake, [mut caller]) = started([&fake]);
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
        let fake = Fake::default();
        let (intake, [mut caller]) = started([&fake]);
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
