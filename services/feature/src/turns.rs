//! Whose decoder computes: as many at a time as there are cores, the tracks that came first before others.
//!
//! Tracks that share the cores all end late; one after the other, each ends sooner than it would have, or at the same time. A
//! track keeps its core from its first bytes to its last, with three exceptions, so that nobody waits for who does not
//! compute, and no long track keeps others from theirs:
//!
//! ```text
//!                      has bytes                      its turn came
//!   outside ─────────────────────────────▶ queued ───────────────────▶ running ──▶ ended
//!      │     refused if too many wait        ▲                          │   │
//!      └───────────▶ refused                 │ after QUANTUM_SECONDS, at│   │ the upload is behind, or
//!                                            │ the end of the queue      │   │ who takes the chunks is
//!                                            ├───────────────────────────┘   ▼
//!                                            │                             resting: its core is another's
//!                                            └───────────────────────────────┘
//!                                               goes on, in its old place: before who came later
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use chorale_runtime::{
    failure::{Failure, Reason},
    overload::{Urgency, WaitLimit, WaitPolicy},
};
use tokio::sync::oneshot;

use crate::metrics::FeatureMetrics;

/// A track lets others go first after so much audio, in seconds.
const QUANTUM_SECONDS: f64 = 60.0;

/// The cores, and who waits for one.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    metrics: FeatureMetrics,
}

#[derive(Debug)]
struct State {
    free: usize,
    queue: BTreeMap<Place, oneshot::Sender<Core>>,
    places: u64,
    limit: WaitLimit,
}

impl State {
    /// Tracks that wait.
    fn waiting(&mut self) -> usize {
        // Who went away does not.
        self.queue.retain(|_, sender| !sender.is_closed());
        self.queue.len()
    }
}

/// Where a track stands in the queue: the first one is next. The number tells apart who came at the same time.
type Place = (Instant, u64);

/// A core that is taken until this is dropped: then the next in the queue has it.
#[derive(Debug)]
struct Core {
    turns: Arc<Turns>,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.turns.pass_on();
    }
}

impl Turns {
    /// One turn for every core. At most `max_waiting` tracks wait for one, and fewer after waits longer than `target`.
    pub(crate) fn new(target: Duration, max_waiting: usize, metrics: FeatureMetrics) -> Arc<Self> {
        Self::of_cores(available_parallelism().map_or(1, usize::from), target, max_waiting, metrics)
    }

    fn of_cores(cores: usize, target: Duration, max_waiting: usize, metrics: FeatureMetrics) -> Arc<Self> {
        let limit = WaitLimit::new(WaitPolicy { target, step: cores, ceiling: max_waiting });
        metrics.turn_limit.set(i64::try_from(limit.limit()).unwrap_or(i64::MAX));
        let state = State { free: cores, queue: BTreeMap::new(), places: 0, limit };
        Arc::new(Self { state: Mutex::new(state), metrics })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a core.
    ///
    /// # Errors
    /// `OVERLOADED` at once if too many wait already.
    pub(crate) async fn enter(self: &Arc<Self>, urgency: Urgency) -> Result<Turn, Failure> {
        let came = Instant::now();
        let place = self.new_place(urgency, came);
        let core = self.join(place, Some(urgency))?.await.map_err(|_| lost())?;
        self.entered(urgency, came, Instant::now());
        Ok(Turn { turns: Arc::clone(self), urgency, place, core: Some(core), seconds: 0.0, ended: false })
    }

    /// Whether so many tracks wait that a further one would be refused now.
    pub(crate) fn is_full(&self) -> bool {
        let mut state = self.lock();
        let waiting = state.waiting();
        state.free == 0 && !state.limit.allows(waiting, Urgency::Interactive)
    }

    fn entered(&self, urgency: Urgency, came: Instant, now: Instant) {
        let wait = now.saturating_duration_since(came);
        self.metrics.turn_wait_seconds.get_or_create(&[("priority", urgency.name())]).observe(wait.as_secs_f64());
        let mut state = self.lock();
        state.limit.waited(wait, urgency, now);
        self.metrics.turn_limit.set(i64::try_from(state.limit.limit()).unwrap_or(i64::MAX));
    }

    /// A place for a track that came at `now`: behind everybody of the same urgency.
    fn new_place(&self, urgency: Urgency, now: Instant) -> Place {
        let mut state = self.lock();
        state.places += 1;
        (now + urgency.handicap(), state.places)
    }

    /// Takes a free core, or queues for one. Who is `new` is refused if too many wait already.
    fn join(self: &Arc<Self>, place: Place, new: Option<Urgency>) -> Result<oneshot::Receiver<Core>, Failure> {
        let (sender, granted) = oneshot::channel();
        let mut state = self.lock();
        if state.free > 0 {
            state.free -= 1;
            drop(state);
            // Cannot fail: the receiver is here.
            let _ = sender.send(Core { turns: Arc::clone(self) });
            return Ok(granted);
        }
        let waiting = state.waiting();
        if new.is_some_and(|urgency| !state.limit.allows(waiting, urgency)) {
            let message = format!("{waiting} tracks wait for a core of this replica already");
            return Err(Failure::new(Reason::Overloaded, message));
        }
        state.queue.insert(place, sender);
        Ok(granted)
    }

    /// Gives a core to who is next.
    fn pass_on(self: &Arc<Self>) {
        let mut state = self.lock();
        let next = std::iter::from_fn(|| state.queue.pop_first()).find(|(_, sender)| !sender.is_closed());
        if next.is_none() {
            state.free += 1;
        }
        drop(state);
        if let Some((_, sender)) = next {
            // If it went away just now, the core is dropped, and goes on from there.
            drop(sender.send(Core { turns: Arc::clone(self) }));
        }
    }
}

/// A track's right to a core, and its place in the queue.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    urgency: Urgency,
    place: Place,
    core: Option<Core>,
    /// Audio since it had its place, in seconds.
    seconds: f64,
    ended: bool,
}

impl Turn {
    /// Runs `wait`, which may take any time, while another track has the core. Blocks until there is one again.
    pub(crate) fn rest<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        self.core = None;
        let waited = wait();
        self.resume();
        waited
    }

    /// Counts seconds of audio that were decoded; now and then others go first. Blocks until there is a core again.
    pub(crate) fn count_audio(&mut self, seconds: f64) {
        self.seconds += seconds;
        if self.seconds < QUANTUM_SECONDS {
            return;
        }
        self.seconds = 0.0;
        self.place = self.turns.new_place(self.urgency, Instant::now());
        let others_first = self.turns.lock().queue.first_key_value().is_some_and(|(first, _)| *first < self.place);
        if others_first {
            self.core = None;
            self.resume();
        }
    }

    /// Gives the core back: what is left to do takes none.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.core = None;
    }

    fn resume(&mut self) {
        if self.ended {
            return;
        }
        // Nobody but newcomers is refused, and no sender is dropped without a core while this side waits.
        self.core = self.turns.join(self.place, None).ok().and_then(|granted| granted.blocking_recv().ok());
    }
}

/// A [`Turn`] that rests wherever a track's decoder waits. Its thread alone uses it.
#[derive(Debug, Clone)]
pub(crate) struct SharedTurn(Arc<Mutex<Turn>>);

impl From<Turn> for SharedTurn {
    fn from(turn: Turn) -> Self {
        Self(Arc::new(Mutex::new(turn)))
    }
}

impl SharedTurn {
    /// See [`Turn::rest`].
    pub(crate) fn rest<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rest(wait)
    }

    /// See [`Turn::end`].
    pub(crate) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).end();
    }

    /// See [`Turn::count_audio`].
    pub(crate) fn count_audio(&self, seconds: f64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count_audio(seconds);
    }
}

fn lost() -> Failure {
    Failure::new(Reason::Internal, "a track's turn was lost")
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use chorale_runtime::{metrics::Metrics, overload::BULK_HANDICAP};
    use tokio::{
        task::{JoinHandle, yield_now},
        time::timeout,
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn turns(cores: usize, max_waiting: usize) -> Arc<Turns> {
        Turns::of_cores(cores, SECOND, max_waiting, FeatureMetrics::register(&Metrics::new()))
    }

    /// A track that waits for its turn: it is in the queue when this returns.
    async fn track(turns: &Arc<Turns>, urgency: Urgency) -> JoinHandle<Result<Turn, Failure>> {
        let turns = Arc::clone(turns);
        let track = tokio::spawn(async move { turns.enter(urgency).await });
        yield_now().await;
        track
    }

    async fn taken(track: JoinHandle<Result<Turn, Failure>>) -> Turn {
        timeout(10 * SECOND, track).await.expect("its turn comes").unwrap().unwrap()
    }

    #[tokio::test]
    async fn as_many_run_as_there_are_cores_and_the_first_to_come_is_next() {
        let turns = turns(2, 10);
        let (one, _two) =
            (taken(track(&turns, Urgency::Interactive).await).await, track(&turns, Urgency::Interactive).await);
        let third = track(&turns, Urgency::Interactive).await;
        let fourth = track(&turns, Urgency::Interactive).await;
        assert!(!third.is_finished());
        drop(one);
        let third = taken(third).await;
        assert!(!fourth.is_finished());
        drop(third);
        taken(fourth).await;
    }

    #[tokio::test]
    async fn interactive_tracks_go_before_bulk_ones_but_not_for_ever() {
        let turns = turns(1, 10);
        let running = turns.enter(Urgency::Interactive).await.unwrap();
        let (came, soon) = (Instant::now(), BULK_HANDICAP / 2);
        let join = |urgency, came| turns.join(turns.new_place(urgency, came), None).unwrap();
        let bulk = join(Urgency::Bulk, came);
        let late = join(Urgency::Interactive, came + 2 * BULK_HANDICAP);
        let soon = join(Urgency::Interactive, came + soon);
        drop(running);
        for next in [soon, bulk, late] {
            drop(timeout(SECOND, next).await.expect("it is the next one").unwrap());
        }
    }

    #[tokio::test]
    async fn who_goes_away_waits_for_nothing_and_keeps_no_core() {
        let turns = turns(1, 1);
        let running = taken(track(&turns, Urgency::Interactive).await).await;
        let gone = track(&turns, Urgency::Interactive).await;
        assert!(turns.is_full());
        assert_eq!(turns.enter(Urgency::Interactive).await.unwrap_err().reason, Reason::Overloaded);
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        let next = track(&turns, Urgency::Interactive).await;
        drop(running);
        drop(taken(next).await);
        // A core that was granted, and is not received any more.
        let running = taken(track(&turns, Urgency::Interactive).await).await;
        let granted = turns.join(turns.new_place(Urgency::Interactive, Instant::now()), None).unwrap();
        drop(running);
        drop(granted);
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test]
    async fn after_long_waits_fewer_may_wait() {
        let turns = turns(1, 3);
        let _running = turns.enter(Urgency::Interactive).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(track(&turns, Urgency::Interactive).await);
        }
        for seconds in 2..4 {
            turns.entered(Urgency::Interactive, Instant::now(), Instant::now() + seconds * SECOND);
        }
        waiting.pop().unwrap().abort();
        yield_now().await;
        assert_eq!(turns.enter(Urgency::Interactive).await.unwrap_err().reason, Reason::Overloaded);
    }

    #[tokio::test]
    async fn who_rests_lends_its_core_and_goes_on_before_who_came_later() {
        let turns = turns(1, 10);
        let mut early = turns.enter(Urgency::Interactive).await.unwrap();
        let (woken, wake) = mpsc::channel::<()>();
        let (ended, end) = oneshot::channel();
        thread::spawn(move || {
            let _ = early.rest(|| wake.recv());
            let _ = ended.send(early);
        });
        let second = taken(track(&turns, Urgency::Interactive).await).await;
        let third = track(&turns, Urgency::Interactive).await;
        drop(woken);
        while turns.lock().queue.len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(second);
        drop(end.await.unwrap());
        drop(taken(third).await);
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test]
    async fn who_has_ended_waits_for_no_core() {
        let turns = turns(1, 10);
        let mut ended = turns.enter(Urgency::Interactive).await.unwrap();
        ended.end();
        let _running = turns.enter(Urgency::Interactive).await.unwrap();
        ended.rest(|| ());
    }

    #[tokio::test]
    async fn a_long_track_lets_others_go_first_now_and_then() {
        let turns = turns(1, 10);
        let mut long = turns.enter(Urgency::Interactive).await.unwrap();
        // Nobody waits.
        long.count_audio(QUANTUM_SECONDS);
        let short = track(&turns, Urgency::Interactive).await;
        let (ended, end) = oneshot::channel();
        thread::spawn(move || {
            for _ in 0..2 {
                long.count_audio(QUANTUM_SECONDS / 2.0);
            }
            let _ = ended.send(());
        });
        drop(taken(short).await);
        end.await.unwrap();
    }
}
