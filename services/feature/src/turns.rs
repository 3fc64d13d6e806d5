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
    time::{Duration, Instant},
};

use chorale_runtime::{
    failure::{Failure, Reason},
    overload::{Urgency, WaitLimit, WaitPolicy},
    shares::PLACES_PER_FREE_PLACE,
};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::metrics::FeatureMetrics;

/// A track lets others go first after so much audio, in seconds.
const QUANTUM_SECONDS: f64 = 60.0;

/// How much later a track stands for each track of its caller that waits: longer than the turn of most tracks takes, so that
/// nobody who sends many gains time on others.
const SHARE_SLOT: Duration = Duration::from_millis(100);

/// The cores, and who waits for one.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    metrics: FeatureMetrics,
}

#[derive(Debug)]
struct State {
    free: usize,
    queue: BTreeMap<Place, Waiting>,
    places: u64,
    limit: WaitLimit,
}

/// A track that waits.
#[derive(Debug)]
struct Waiting {
    party: Party,
    granted: oneshot::Sender<Core>,
}

/// Whose track it is, and whether somebody waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Party {
    /// Any text that tells callers apart.
    pub(crate) caller: Arc<str>,
    pub(crate) urgency: Urgency,
}

/// What the view `feature.turns` shows.
#[derive(Debug, Serialize)]
pub(crate) struct TurnsState {
    free_cores: usize,
    /// Tracks that may wait now.
    limit: usize,
    waiting: Vec<WaitingState>,
}

/// A track that waits.
#[derive(Debug, Serialize)]
struct WaitingState {
    /// The gateway's pseudonym.
    caller: String,
    priority: &'static str,
    /// How long until it has waited for as long as its place says.
    behind_seconds: f64,
    /// How long it has waited since then.
    waited_seconds: f64,
}

impl State {
    /// Tracks that wait.
    fn waiting(&mut self) -> usize {
        // Who went away does not.
        self.queue.retain(|_, waiting| !waiting.granted.is_closed());
        self.queue.len()
    }

    /// Tracks of `caller` that wait.
    fn waiting_of(&self, caller: &str) -> usize {
        self.queue.values().filter(|waiting| &*waiting.party.caller == caller).count()
    }

    /// Whether a further track of `party` may wait; if not, why.
    fn admits(&mut self, party: &Party) -> Result<(), String> {
        let waiting = self.waiting();
        if !self.limit.allows(waiting, party.urgency) {
            return Err(format!("{waiting} tracks wait for a core of this replica already"));
        }
        let of_caller = self.waiting_of(&party.caller);
        let free = self.limit.limit().saturating_sub(waiting);
        if of_caller >= PLACES_PER_FREE_PLACE * free {
            return Err(format!("{of_caller} tracks of this caller wait for a core of this replica already"));
        }
        Ok(())
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
    /// One turn for every one of `cores`. At most `max_waiting` tracks wait for one, and fewer after waits longer than
    /// `target`.
    pub(crate) fn new(cores: usize, target: Duration, max_waiting: usize, metrics: FeatureMetrics) -> Arc<Self> {
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
    pub(crate) async fn enter(self: &Arc<Self>, party: Party) -> Result<Turn, Failure> {
        let came = Instant::now();
        let place = self.new_place(&party, came);
        let core = self.join(place, &party, true)?.await.map_err(|_| lost())?;
        self.entered(party.urgency, came, Instant::now());
        Ok(Turn { turns: Arc::clone(self), party, place, core: Some(core), seconds: 0.0, ended: false })
    }

    /// Who waits, in the order of their turns, for people.
    pub(crate) fn describe(&self) -> TurnsState {
        let mut state = self.lock();
        state.waiting();
        let now = Instant::now();
        let describe = |((turn, _), waiting): (&Place, &Waiting)| WaitingState {
            caller: waiting.party.caller.to_string(),
            priority: waiting.party.urgency.name(),
            // Places of who came with others, or without haste, are later than now.
            behind_seconds: turn.saturating_duration_since(now).as_secs_f64(),
            waited_seconds: now.saturating_duration_since(*turn).as_secs_f64(),
        };
        TurnsState {
            free_cores: state.free,
            limit: state.limit.limit(),
            waiting: state.queue.iter().map(describe).collect(),
        }
    }

    /// Why a further track of `party` would be refused now; `None` if it would not.
    pub(crate) fn refusal(&self, party: &Party) -> Option<Failure> {
        let mut state = self.lock();
        if state.free > 0 {
            return None;
        }
        state.admits(party).err().map(overloaded)
    }

    fn entered(&self, urgency: Urgency, came: Instant, now: Instant) {
        let wait = now.saturating_duration_since(came);
        self.metrics.turn_wait_seconds.get_or_create(&[("priority", urgency.name())]).observe(wait.as_secs_f64());
        let mut state = self.lock();
        state.limit.waited(wait, urgency, now);
        self.metrics.turn_limit.set(i64::try_from(state.limit.limit()).unwrap_or(i64::MAX));
    }

    /// A place for a track that came at `now`: behind everybody of the same urgency who has no more tracks waiting.
    fn new_place(&self, party: &Party, now: Instant) -> Place {
        let mut state = self.lock();
        state.places += 1;
        let waiting = u32::try_from(state.waiting_of(&party.caller)).unwrap_or(u32::MAX);
        (now + party.urgency.handicap() + SHARE_SLOT.saturating_mul(waiting), state.places)
    }

    /// Takes a free core, or queues for one. Who is `new` is refused if too many wait already.
    fn join(self: &Arc<Self>, place: Place, party: &Party, new: bool) -> Result<oneshot::Receiver<Core>, Failure> {
        let (sender, granted) = oneshot::channel();
        let mut state = self.lock();
        if state.free > 0 {
            state.free -= 1;
            drop(state);
            // Cannot fail: the receiver is here.
            let _ = sender.send(Core { turns: Arc::clone(self) });
            return Ok(granted);
        }
        if new {
            state.admits(party).map_err(overloaded)?;
        }
        state.queue.insert(place, Waiting { party: party.clone(), granted: sender });
        Ok(granted)
    }

    /// Gives a core to who is next.
    fn pass_on(self: &Arc<Self>) {
        let mut state = self.lock();
        let next = std::iter::from_fn(|| state.queue.pop_first()).find(|(_, waiting)| !waiting.granted.is_closed());
        if next.is_none() {
            state.free += 1;
        }
        drop(state);
        if let Some((_, waiting)) = next {
            // If it went away just now, the core is dropped, and goes on from there.
            drop(waiting.granted.send(Core { turns: Arc::clone(self) }));
        }
    }
}

/// A track's right to a core, and its place in the queue.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    party: Party,
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
        self.place = self.turns.new_place(&self.party, Instant::now());
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
        self.core =
            self.turns.join(self.place, &self.party, false).ok().and_then(|granted| granted.blocking_recv().ok());
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

fn overloaded(why: String) -> Failure {
    Failure::new(Reason::Overloaded, why)
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
        Turns::new(cores, SECOND, max_waiting, FeatureMetrics::register(&Metrics::new()))
    }

    fn of(caller: &str, urgency: Urgency) -> Party {
        Party { caller: caller.into(), urgency }
    }

    fn someone() -> Party {
        of("one", Urgency::Interactive)
    }

    /// A track that waits for its turn: it is in the queue when this returns.
    async fn track(turns: &Arc<Turns>, party: Party) -> JoinHandle<Result<Turn, Failure>> {
        let turns = Arc::clone(turns);
        let track = tokio::spawn(async move { turns.enter(party).await });
        yield_now().await;
        track
    }

    async fn taken(track: JoinHandle<Result<Turn, Failure>>) -> Turn {
        timeout(10 * SECOND, track).await.expect("its turn comes").unwrap().unwrap()
    }

    #[tokio::test]
    async fn as_many_run_as_there_are_cores_and_the_first_to_come_is_next() {
        let turns = turns(2, 10);
        let (one, _two) = (taken(track(&turns, someone()).await).await, track(&turns, someone()).await);
        let third = track(&turns, someone()).await;
        let fourth = track(&turns, someone()).await;
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
        let running = turns.enter(someone()).await.unwrap();
        let (came, soon) = (Instant::now(), BULK_HANDICAP / 2);
        let join = |caller, urgency, came| {
            let party = of(caller, urgency);
            turns.join(turns.new_place(&party, came), &party, false).unwrap()
        };
        let bulk = join("one", Urgency::Bulk, came);
        let late = join("two", Urgency::Interactive, came + 2 * BULK_HANDICAP);
        let soon = join("three", Urgency::Interactive, came + soon);
        drop(running);
        for next in [soon, bulk, late] {
            drop(timeout(SECOND, next).await.expect("it is the next one").unwrap());
        }
    }

    #[tokio::test]
    async fn who_sends_one_track_does_not_wait_for_all_of_who_sends_many() {
        let turns = turns(1, 20);
        let running = turns.enter(someone()).await.unwrap();
        let mut many = Vec::new();
        for _ in 0..10 {
            many.push(track(&turns, someone()).await);
        }
        let other = track(&turns, of("other", Urgency::Interactive)).await;
        drop(running);
        drop(taken(many.remove(0)).await);
        drop(taken(other).await);
        assert_eq!(many.iter().filter(|track| track.is_finished()).count(), 0);
        for track in many {
            drop(taken(track).await);
        }
    }

    #[tokio::test]
    async fn whoever_sends_much_leaves_room_for_others() {
        let turns = turns(1, 20);
        let _running = turns.enter(someone()).await.unwrap();
        let mut many = Vec::new();
        while turns.refusal(&someone()).is_none() {
            many.push(track(&turns, someone()).await);
        }
        assert_eq!(many.len(), 16, "four fifths of the places");
        let refused = turns.enter(someone()).await.unwrap_err();
        assert!(refused.reason == Reason::Overloaded && refused.message.contains("of this caller"), "{refused}");
        assert!(turns.refusal(&of("other", Urgency::Interactive)).is_none());
    }

    #[tokio::test]
    async fn who_goes_away_waits_for_nothing_and_keeps_no_core() {
        let turns = turns(1, 1);
        let running = taken(track(&turns, someone()).await).await;
        let gone = track(&turns, someone()).await;
        assert!(turns.refusal(&someone()).is_some());
        assert_eq!(turns.enter(someone()).await.unwrap_err().reason, Reason::Overloaded);
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        let next = track(&turns, someone()).await;
        drop(running);
        drop(taken(next).await);
        // A core that was granted, and is not received any more.
        let running = taken(track(&turns, someone()).await).await;
        let granted = turns.join(turns.new_place(&someone(), Instant::now()), &someone(), false).unwrap();
        drop(running);
        drop(granted);
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test]
    async fn after_long_waits_fewer_may_wait() {
        let turns = turns(1, 3);
        let _running = turns.enter(someone()).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(track(&turns, someone()).await);
        }
        for seconds in 2..4 {
            turns.entered(Urgency::Interactive, Instant::now(), Instant::now() + seconds * SECOND);
        }
        waiting.pop().unwrap().abort();
        yield_now().await;
        assert_eq!(turns.enter(someone()).await.unwrap_err().reason, Reason::Overloaded);
    }

    #[tokio::test]
    async fn who_rests_lends_its_core_and_goes_on_before_who_came_later() {
        let turns = turns(1, 10);
        let mut early = turns.enter(someone()).await.unwrap();
        let (woken, wake) = mpsc::channel::<()>();
        let (ended, end) = oneshot::channel();
        thread::spawn(move || {
            let _ = early.rest(|| wake.recv());
            let _ = ended.send(early);
        });
        let second = taken(track(&turns, someone()).await).await;
        let third = track(&turns, someone()).await;
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
        let mut ended = turns.enter(someone()).await.unwrap();
        ended.end();
        let _running = turns.enter(someone()).await.unwrap();
        ended.rest(|| ());
    }

    #[tokio::test]
    async fn a_long_track_lets_others_go_first_now_and_then() {
        let turns = turns(1, 10);
        let mut long = turns.enter(someone()).await.unwrap();
        // Nobody waits.
        long.count_audio(QUANTUM_SECONDS);
        let short = track(&turns, someone()).await;
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
