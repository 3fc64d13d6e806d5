//! The queue in front of the devices, and when a batch leaves it.
//!
//! What a free worker does next depends on the queue and the clock alone:
//!
//! ```text
//!   queue                                          a free worker
//!   ────────────────────────────────────────────────────────────────────────────────
//!   empty                                          waits for a chunk
//!   a full batch                                   takes it                  (full)
//!   less, the oldest waited `max_queue_delay`      takes all of it           (delay)
//!   less, the oldest waited less than that         waits until it has, or a full batch
//!   anything, and no further chunk can come        takes up to a full batch  (drain)
//!   empty, and no further chunk can come           ends
//! ```
//!
//! While every device is busy the oldest chunk's wait goes on, so that a worker that comes back takes what is there:
//! chunks are held back only for a device that would be idle otherwise. A batch takes the chunks whose turn is first: that of
//! a bulk chunk is [`BULK_HANDICAP`](chorale_runtime::overload::BULK_HANDICAP) after it came, so that interactive ones go
//! first and no chunk waits for ever. Before any of this, chunks for which nobody waits any more are answered and leave the
//! queue. New chunks are refused while no device serves, and while as many wait as the devices can take within the target:
//! see [`WaitLimit`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use chorale_runtime::{
    failure::{Failure, Reason},
    overload::{Urgency, WaitLimit, WaitPolicy},
};

use crate::waiting::WaitingChunk;

/// So many chunks may always wait, if there is room for them, and as many more after an increase: one track's.
pub(crate) const LEAST_STEP: usize = 32;

/// The limits of the queue and of a batch, in chunks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchPolicy {
    pub(crate) max_batch: usize,
    pub(crate) max_queue_delay: Duration,
    pub(crate) queue_capacity: usize,
    /// How long a chunk may wait on average.
    pub(crate) target_wait: Duration,
}

/// Why a batch left the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// It was full.
    Full,
    /// Its oldest chunk had waited long enough.
    Delay,
    /// No further chunk could come.
    Drain,
}

impl Release {
    /// Every reason.
    pub(crate) const ALL: [Self; 3] = [Self::Full, Self::Delay, Self::Drain];

    /// The name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Delay => "delay",
            Self::Drain => "drain",
        }
    }
}

/// Chunks for one forward pass: at least one, at most `max_batch`, the oldest first.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) chunks: Vec<WaitingChunk>,
    pub(crate) release: Release,
}

/// What a free worker does next.
#[derive(Debug)]
pub(crate) enum Step {
    Run(Batch),
    WaitUntil(Instant),
    Wait,
    End,
}

#[derive(Debug)]
pub(crate) struct Queue {
    policy: BatchPolicy,
    /// How many may wait.
    limit: WaitLimit,
    /// The oldest first.
    interactive: VecDeque<WaitingChunk>,
    /// The oldest first.
    bulk: VecDeque<WaitingChunk>,
    /// No further chunk can come.
    pub(crate) closed: bool,
}

impl Queue {
    /// An empty one.
    pub(crate) fn new(policy: BatchPolicy) -> Self {
        let BatchPolicy { max_batch, queue_capacity: ceiling, target_wait: target, .. } = policy;
        let limit = WaitLimit::new(WaitPolicy { target, step: max_batch.max(LEAST_STEP), ceiling });
        Self { policy, limit, interactive: VecDeque::new(), bulk: VecDeque::new(), closed: false }
    }

    /// What a free worker does at `now`.
    pub(crate) fn next_step(&mut self, now: Instant) -> Step {
        self.answer_lapsed(now);
        let fronts = self.interactive.front().into_iter().chain(self.bulk.front());
        let Some(oldest) = fronts.map(WaitingChunk::received).min() else {
            return if self.closed { Step::End } else { Step::Wait };
        };
        let release_at = oldest + self.policy.max_queue_delay;
        let release = if self.len() >= self.policy.max_batch {
            Release::Full
        } else if self.closed {
            Release::Drain
        } else if release_at <= now {
            Release::Delay
        } else {
            return Step::WaitUntil(release_at);
        };
        let max_batch = self.policy.max_batch;
        let chunks: Vec<_> = std::iter::from_fn(|| self.take_next()).take(max_batch).collect();
        for chunk in &chunks {
            self.limit.waited(now.saturating_duration_since(chunk.received()), chunk.urgency(), now);
        }
        Step::Run(Batch { chunks, release })
    }

    /// The chunk whose turn is first.
    pub(crate) fn take_next(&mut self) -> Option<WaitingChunk> {
        let bulk_first = match (self.interactive.front(), self.bulk.front()) {
            (Some(interactive), Some(bulk)) => bulk.received() + Urgency::Bulk.handicap() < interactive.received(),
            (interactive, _) => interactive.is_none(),
        };
        if bulk_first { self.bulk.pop_front() } else { self.interactive.pop_front() }
    }

    /// Chunks that wait.
    pub(crate) fn len(&self) -> usize {
        self.interactive.len() + self.bulk.len()
    }

    fn answer_lapsed(&mut self, now: Instant) {
        // Looking at every chunk is cheap here: fewer than a batch wait while a worker is idle, and beyond that a look
        // is followed by a forward pass, or answers an overload.
        for lane in [&mut self.interactive, &mut self.bulk] {
            if lane.iter().all(|chunk| chunk.lapsed(now).is_none()) {
                continue;
            }
            for chunk in std::mem::take(lane) {
                match chunk.lapsed(now) {
                    Some(failure) => chunk.answer(Err(failure)),
                    None => lane.push_back(chunk),
                }
            }
        }
    }

    /// How many interactive chunks may wait now.
    pub(crate) fn limit(&self) -> usize {
        self.limit.limit()
    }

    /// Queues `chunk`, or answers it with the refusal. True if it was queued.
    pub(crate) fn admit(&mut self, chunk: WaitingChunk, serving: usize, now: Instant) -> bool {
        if serving == 0 {
            chunk.answer(Err(no_device()));
            return false;
        }
        let urgency = chunk.urgency();
        if !self.limit.allows(self.len(), urgency) {
            self.answer_lapsed(now);
        }
        if !self.limit.allows(self.len(), urgency) {
            let message = format!("{} chunks wait for a device already", self.len());
            chunk.answer(Err(Failure::new(Reason::Overloaded, message)));
            return false;
        }
        match urgency {
            Urgency::Interactive => self.interactive.push_back(chunk),
            Urgency::Bulk => self.bulk.push_back(chunk),
        }
        true
    }
}

pub(crate) fn no_device() -> Failure {
    Failure::new(Reason::DependencyUnavailable, "no device of this replica works")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Caller, POLICY};

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn admit(queue: &mut Queue, caller: &Caller, tags: std::ops::Range<u64>, now: Instant) {
        for tag in tags {
            queue.admit(caller.chunk(tag, now, None), 1, now);
        }
    }

    fn taken(step: Step) -> (Vec<u8>, Release) {
        match step {
            Step::Run(batch) => (batch.chunks.iter().map(|chunk| chunk.mel()[0]).collect(), batch.release),
            other => panic!("expected a batch, found {other:?}"),
        }
    }

    #[test]
    fn a_full_batch_leaves_at_once_and_the_rest_stays() {
        let (mut queue, caller, now) = (Queue::new(POLICY), Caller::new(), Instant::now());
        admit(&mut queue, &caller, 0..6, now);
        assert_eq!(taken(queue.next_step(now)), (vec![0, 1, 2, 3], Release::Full));
        assert!(matches!(queue.next_step(now), Step::WaitUntil(_)));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn an_idle_device_waits_for_more_from_the_first_chunk_on_but_not_longer_than_the_delay() {
        let (mut queue, caller, start) = (Queue::new(POLICY), Caller::new(), Instant::now());
        assert!(matches!(queue.next_step(start), Step::Wait));
        admit(&mut queue, &caller, 0..1, start);
        admit(&mut queue, &caller, 1..2, start + 9 * MILLISECOND);
        for waited in [0, 9] {
            match queue.next_step(start + waited * MILLISECOND) {
                Step::WaitUntil(instant) => assert_eq!(instant, start + POLICY.max_queue_delay),
                other => panic!("expected a wait, found {other:?}"),
            }
        }
        assert_eq!(taken(queue.next_step(start + 10 * MILLISECOND)), (vec![0, 1], Release::Delay));
        assert!(matches!(queue.next_step(start + 10 * MILLISECOND), Step::Wait));
    }

    #[test]
    fn what_came_while_the_device_was_busy_is_not_held_back_again() {
        let (mut queue, caller, start) = (Queue::new(POLICY), Caller::new(), Instant::now());
        admit(&mut queue, &caller, 0..2, start);
        admit(&mut queue, &caller, 2..3, start + 299 * MILLISECOND);
        assert_eq!(taken(queue.next_step(start + 300 * MILLISECOND)), (vec![0, 1, 2], Release::Delay));
    }

    #[test]
    fn without_a_delay_whatever_waits_leaves_at_once() {
        let policy = BatchPolicy { max_queue_delay: Duration::ZERO, ..POLICY };
        let (mut queue, caller, now) = (Queue::new(policy), Caller::new(), Instant::now());
        admit(&mut queue, &caller, 0..1, now);
        assert_eq!(taken(queue.next_step(now)), (vec![0], Release::Delay));
    }

    #[test]
    fn a_chunk_whose_deadline_passed_is_answered_and_takes_no_place_in_a_batch() {
        let (mut queue, mut caller, start) = (Queue::new(POLICY), Caller::new(), Instant::now());
        queue.admit(caller.chunk(0, start, Some(5 * MILLISECOND)), 1, start);
        admit(&mut queue, &caller, 1..5, start);
        assert_eq!(taken(queue.next_step(start + 5 * MILLISECOND)), (vec![1, 2, 3, 4], Release::Full));
        assert_eq!(caller.answered(), Some((0, Some("DEADLINE_EXCEEDED"))));
        assert_eq!(caller.answered().map(|(tag, _)| tag), Some(1), "the batch of this test was dropped");
    }

    #[test]
    fn a_chunk_whose_caller_is_gone_leaves_the_queue() {
        let (mut queue, caller, now) = (Queue::new(POLICY), Caller::new(), Instant::now());
        let gone = Caller::new();
        admit(&mut queue, &gone, 0..3, now);
        admit(&mut queue, &caller, 7..8, now);
        drop(gone);
        assert_eq!(taken(queue.next_step(now + POLICY.max_queue_delay)), (vec![7], Release::Delay));
    }

    #[test]
    fn a_full_queue_refuses_the_new_chunk_and_keeps_the_old_ones() {
        let (mut queue, mut caller, now) = (Queue::new(POLICY), Caller::new(), Instant::now());
        admit(&mut queue, &caller, 0..9, now);
        assert_eq!(caller.answered(), Some((8, Some("OVERLOADED"))));
        assert_eq!(caller.answered(), None);
        assert_eq!(taken(queue.next_step(now)), (vec![0, 1, 2, 3], Release::Full));
    }

    #[test]
    fn chunks_that_nobody_waits_for_make_room_in_a_full_queue() {
        let (mut queue, caller, now) = (Queue::new(POLICY), Caller::new(), Instant::now());
        let gone = Caller::new();
        admit(&mut queue, &gone, 0..8, now);
        drop(gone);
        admit(&mut queue, &caller, 8..9, now);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn bulk_chunks_let_interactive_ones_go_first_but_not_for_ever() {
        let (mut queue, caller, start) = (Queue::new(POLICY), Caller::new(), Instant::now());
        for tag in 0..3 {
            queue.admit(caller.bulk(tag, start), 1, start);
        }
        admit(&mut queue, &caller, 10..12, start + Urgency::Bulk.handicap());
        admit(&mut queue, &caller, 12..13, start + Urgency::Bulk.handicap() + MILLISECOND);
        let now = start + Urgency::Bulk.handicap() + MILLISECOND;
        // The last interactive chunk came when the first bulk ones had waited for long enough.
        assert_eq!(taken(queue.next_step(now)), (vec![10, 11, 0, 1], Release::Full));
        assert_eq!(taken(queue.next_step(now)), (vec![2, 12], Release::Delay));
    }

    #[test]
    fn bulk_chunks_leave_room_in_the_queue_for_interactive_ones() {
        let (mut queue, mut caller, now) = (Queue::new(POLICY), Caller::new(), Instant::now());
        for tag in 0..7 {
            queue.admit(caller.bulk(tag, now), 1, now);
        }
        assert_eq!(caller.answered(), Some((6, Some("OVERLOADED"))));
        admit(&mut queue, &caller, 10..12, now);
        assert_eq!((caller.answered(), queue.len()), (None, 8));
        assert_eq!(taken(queue.next_step(now)), (vec![10, 11, 0, 1], Release::Full));

        let smallest = BatchPolicy { max_batch: 1, queue_capacity: 1, ..POLICY };
        assert!(Queue::new(smallest).admit(caller.bulk(0, now), 1, now), "no queue is for interactive ones alone");
    }

    #[test]
    fn after_long_waits_fewer_chunks_may_wait() {
        let policy = BatchPolicy { max_batch: 40, queue_capacity: 100, ..POLICY };
        let (mut queue, mut caller, start) = (Queue::new(policy), Caller::new(), Instant::now());
        for seconds in [0, 3, 6] {
            let now = start + Duration::from_secs(seconds);
            admit(&mut queue, &caller, 0..100, now);
            while queue.len() > 0 {
                taken(queue.next_step(now + policy.target_wait + policy.max_queue_delay + MILLISECOND));
            }
            while caller.answered().is_some() {}
        }
        let limit = queue.limit();
        assert!((policy.max_batch..80).contains(&limit), "{limit}");
        admit(&mut queue, &caller, 0..limit as u64 + 1, start + Duration::from_secs(9));
        assert_eq!(caller.answered(), Some((limit as u64, Some("OVERLOADED"))));
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_ends() {
        let (mut queue, caller, now) = (Queue::new(POLICY), Caller::new(), Instant::now());
        admit(&mut queue, &caller, 0..5, now);
        queue.closed = true;
        assert_eq!(taken(queue.next_step(now)), (vec![0, 1, 2, 3], Release::Full));
        assert_eq!(taken(queue.next_step(now)), (vec![4], Release::Drain));
        assert!(matches!(queue.next_step(now), Step::End));
    }
}
