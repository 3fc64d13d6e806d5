//! Devices at one end of the [queue](crate::queue), streams at the other: who waits, and who is woken.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::watch;

use crate::{
    metrics::InferenceMetrics,
    queue::{Batch, BatchPolicy, Queue, Step, no_device},
    waiting::WaitingChunk,
};

/// The queue and its waiting workers.
#[derive(Debug)]
pub(crate) struct Batcher {
    queue: Mutex<Queue>,
    /// A chunk came, or no further one can.
    work: Condvar,
    /// No further chunk can come.
    end: Condvar,
    /// Workers that take batches. Changes only under the lock of `queue`.
    serving: watch::Sender<usize>,
    metrics: Arc<InferenceMetrics>,
}

/// What the view `inference.queue` shows.
#[derive(Debug, Serialize)]
pub(crate) struct QueueState {
    waiting_chunks: usize,
    /// Chunks that may wait now.
    limit_chunks: usize,
    /// Devices that take batches.
    serving_devices: usize,
}

impl Batcher {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits, for people.
    pub(crate) fn describe(&self) -> QueueState {
        let queue = self.lock();
        QueueState { waiting_chunks: queue.len(), limit_chunks: queue.limit(), serving_devices: *self.serving.borrow() }
    }

    /// Waits for the next batch. None if there will be no further one.
    pub(crate) fn next_batch(&self) -> Option<Batch> {
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            let step = queue.next_step(now);
            self.metrics.queue_depth(queue.len());
            self.metrics.queue_limit(queue.limit());
            queue = match step {
                Step::Run(batch) => {
                    if queue.len() > 0 {
                        // The calls for these chunks may all have gone to this worker.
                        self.work.notify_one();
                    }
                    self.metrics.batch(batch.release, batch.chunks.len());
                    return Some(batch);
                }
                Step::WaitUntil(instant) => {
                    let pause = instant.saturating_duration_since(now);
                    self.work.wait_timeout(queue, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                Step::Wait => self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Step::End => return None,
            };
        }
    }

    /// Counts a worker among those that take batches, until the returned value is dropped.
    pub(crate) fn join(self: &Arc<Self>) -> Serving {
        self.change_serving(|serving| serving + 1);
        Serving { batcher: Arc::clone(self) }
    }

    fn change_serving(&self, change: impl FnOnce(usize) -> usize) {
        let mut queue = self.lock();
        self.serving.send_modify(|serving| *serving = change(*serving));
        let serving = *self.serving.borrow();
        self.metrics.devices_serving(serving);
        if serving == 0 {
            while let Some(chunk) = queue.take_next() {
                chunk.answer(Err(no_device()));
            }
            self.metrics.queue_depth(0);
        }
    }

    /// Waits for `pause`, or until no further chunk can come: true in that case.
    pub(crate) fn ends_within(&self, pause: Duration) -> bool {
        let waited = self.end.wait_timeout_while(self.lock(), pause, |queue| !queue.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }
}

/// A worker that takes batches.
#[derive(Debug)]
pub(crate) struct Serving {
    batcher: Arc<Batcher>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.batcher.change_serving(|serving| serving.saturating_sub(1));
    }
}

/// The way into the queue. When it is dropped the workers finish what waits, and end.
#[derive(Debug)]
pub(crate) struct Intake {
    batcher: Arc<Batcher>,
}

impl Intake {
    /// An empty queue that no worker serves yet.
    pub(crate) fn new(policy: BatchPolicy, metrics: Arc<InferenceMetrics>) -> Self {
        let batcher = Batcher {
            queue: Mutex::new(Queue::new(policy)),
            work: Condvar::new(),
            end: Condvar::new(),
            serving: watch::Sender::new(0),
            metrics,
        };
        Self { batcher: Arc::new(batcher) }
    }

    /// The side of the workers.
    pub(crate) fn batcher(&self) -> Arc<Batcher> {
        Arc::clone(&self.batcher)
    }

    /// The number of workers that take batches.
    pub(crate) fn serving(&self) -> watch::Receiver<usize> {
        self.batcher.serving.subscribe()
    }

    /// Queues a chunk, or answers it with the refusal.
    pub(crate) fn submit(&self, chunk: WaitingChunk) {
        let batcher = &self.batcher;
        let mut queue = batcher.lock();
        let serving = *batcher.serving.borrow();
        if queue.admit(chunk, serving, Instant::now()) {
            batcher.metrics.queue_depth(queue.len());
            batcher.work.notify_one();
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.batcher.lock().closed = true;
        self.batcher.work.notify_all();
        self.batcher.end.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Caller, POLICY, metrics};

    #[test]
    fn without_a_device_nothing_waits() {
        let mut caller = Caller::new();
        let intake = Intake::new(POLICY, metrics());
        let submit = |tag| intake.submit(caller.chunk(tag, Instant::now(), None));
        submit(0);
        let (one, other) = (intake.batcher().join(), intake.batcher().join());
        submit(1);
        drop(one);
        submit(2);
        assert_eq!(*intake.serving().borrow(), 1);
        drop(other);
        let refused = |tag| Some((tag, Some("DEPENDENCY_UNAVAILABLE")));
        for tag in 0..3 {
            assert_eq!(caller.answered(), refused(tag));
        }
    }

    #[test]
    fn a_chunk_that_is_lost_is_answered_all_the_same() {
        let mut caller = Caller::new();
        drop(caller.chunk(3, Instant::now(), None));
        assert_eq!(caller.answered(), Some((3, Some("INTERNAL"))));
    }

    #[test]
    fn several_workers_share_the_queue_and_every_chunk_leaves_it_once() {
        let caller = Caller::new();
        let policy = BatchPolicy { queue_capacity: 1_000, ..POLICY };
        let intake = Intake::new(policy, metrics());
        let serving = intake.batcher().join();
        let mut tags: Vec<u8> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    let batcher = intake.batcher();
                    scope.spawn(move || {
                        let mut tags = Vec::new();
                        while let Some(batch) = batcher.next_batch() {
                            assert!((1..=policy.max_batch).contains(&batch.chunks.len()));
                            tags.extend(batch.chunks.iter().map(|chunk| chunk.mel()[0]));
                        }
                        tags
                    })
                })
                .collect();
            for tag in 0..250 {
                intake.submit(caller.chunk(tag, Instant::now(), None));
            }
            drop(intake);
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        drop(serving);
        tags.sort_unstable();
        assert_eq!(tags, (0..250).collect::<Vec<u8>>());
    }
}
