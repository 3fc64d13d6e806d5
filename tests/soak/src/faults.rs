//! Faults, dealt like cards from the seed, so that each kind has its turn, and carried out.
//!
//! ```text
//!   calm ──▶ one fault, or two at places of their own ──▶ until all is served again ──▶ calm …
//! ```

use std::{ops::Range, time::Duration};

use futures::future::join_all;
use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep};

use crate::{
    fleet::{Fleet, REPLICAS, Role},
    load::{Burst, Pressure},
    weather::{FaultKind, Weather},
};

/// The replica of every role that no fault ends after the first third of a run: what it holds then is watched.
pub(crate) const VETERAN: usize = 0;

/// How long it is calm between faults, in seconds.
const CALM: Range<f64> = 4.0..10.0;
/// How often two faults come together.
const TWO_AT_A_TIME: f64 = 0.4;
/// How long a burst lasts, in seconds, how many times as many callers arrive, and how many there may be at a time.
const BURST: Range<f64> = 3.0..8.0;
const BURST_TIMES: Range<f64> = 4.0..12.0;
const BURST_CALLERS: usize = 400;

/// A fault, and how long it lasts.
#[derive(Debug, Clone, Copy)]
struct Fault {
    kind: FaultKind,
    replica: usize,
    seconds: f64,
    /// How long after its companion it begins, in seconds.
    offset: f64,
    burst: Burst,
}

impl Fault {
    fn ends_a_process(&self) -> bool {
        matches!(self.kind, FaultKind::Kill(_) | FaultKind::Restart(_))
    }

    /// Two faults at the same place would be another one.
    fn place(&self) -> (Option<Role>, bool) {
        match self.kind {
            FaultKind::Kill(role) | FaultKind::Restart(role) | FaultKind::Hang(role) | FaultKind::Outage(role) => {
                (Some(role), false)
            }
            FaultKind::Burst => (None, true),
            _ => (None, false),
        }
    }
}

fn deck() -> Vec<FaultKind> {
    use FaultKind::{Burst, Hang, Kill, Outage, RedisFlushed, RedisHangs, RedisKilled, RedisRestarted, Restart};
    use Role::{Feature, Gateway, Inference};
    vec![
        Kill(Inference),
        Kill(Inference),
        Kill(Feature),
        Kill(Feature),
        Restart(Inference),
        Restart(Feature),
        Restart(Gateway),
        Restart(Gateway),
        Hang(Inference),
        Hang(Feature),
        Outage(Inference),
        Outage(Feature),
        RedisKilled,
        RedisRestarted,
        RedisHangs,
        RedisFlushed,
        Burst,
        Burst,
    ]
}

/// The dealer.
pub(crate) struct Faults {
    random: ChaCha8Rng,
    hand: Vec<FaultKind>,
    /// Whether the first third is over.
    veterans_live: bool,
}

impl Faults {
    pub(crate) fn new(random: ChaCha8Rng) -> Self {
        Self { random, hand: Vec::new(), veterans_live: false }
    }

    fn deal(&mut self) -> Fault {
        if self.hand.is_empty() {
            self.hand = deck();
            self.hand.shuffle(&mut self.random);
        }
        let kind = self.hand.pop().expect("the deck is not empty");
        let seconds = match kind {
            FaultKind::Kill(_) => 0.0..3.0,
            // Some of them for longer than the keep-alive of a connection.
            FaultKind::Hang(_) if self.random.random_bool(0.3) => 14.0..20.0,
            FaultKind::Outage(_) => 2.0..9.0,
            FaultKind::Burst => BURST,
            _ => 1.0..6.0,
        };
        Fault {
            kind,
            replica: self.random.random_range(0..REPLICAS),
            seconds: self.random.random_range(seconds),
            offset: 0.0,
            burst: Burst { times: self.random.random_range(BURST_TIMES), callers: BURST_CALLERS },
        }
    }

    /// Deals and carries out, for so long.
    pub(crate) async fn run(mut self, fleet: &Fleet, weather: &Weather, pressure: &Pressure, length: Duration) {
        let began = Instant::now();
        while let Some(faults) = self.next(began, length).await {
            join_all(faults.into_iter().map(|fault| carry_out(fault, fleet, weather, pressure))).await;
        }
    }

    /// Waits while it is calm: what comes then; `None` once it is too late.
    async fn next(&mut self, began: Instant, length: Duration) -> Option<Vec<Fault>> {
        sleep(Duration::from_secs_f64(self.random.random_range(CALM))).await;
        if began.elapsed() >= length {
            return None;
        }
        if !self.veterans_live && began.elapsed() >= length / 3 {
            self.veterans_live = true;
            // So that a later one takes no more memory than was taken before.
            return Some(vec![Fault {
                kind: FaultKind::Burst,
                replica: 0,
                seconds: BURST.end,
                offset: 0.0,
                burst: Burst { times: BURST_TIMES.end, callers: 2 * BURST_CALLERS },
            }]);
        }
        let mut faults = vec![self.deal()];
        if self.random.random_bool(TWO_AT_A_TIME) {
            let second = Fault { offset: self.random.random_range(0.0..2.0), ..self.deal() };
            if second.place() != faults[0].place() {
                faults.push(second);
            }
        }
        if self.veterans_live {
            for fault in faults.iter_mut().filter(|fault| fault.ends_a_process()) {
                fault.replica = 1 - VETERAN;
            }
        }
        Some(faults)
    }
}

async fn carry_out(fault: Fault, fleet: &Fleet, weather: &Weather, pressure: &Pressure) {
    sleep(Duration::from_secs_f64(fault.offset)).await;
    let Fault { kind, replica, seconds, burst, .. } = fault;
    let how_long = Duration::from_secs_f64(seconds);
    let _storm = weather.begin(kind);
    match kind {
        FaultKind::Kill(role) => fleet.kill(role, replica, how_long).await,
        FaultKind::Restart(role) => fleet.restart(role, replica).await,
        FaultKind::Hang(role) => fleet.hang(role, replica, how_long).await,
        FaultKind::Outage(role) => {
            tokio::join!(fleet.kill(role, 1 - VETERAN, how_long), fleet.hang(role, VETERAN, how_long));
        }
        FaultKind::RedisKilled => {
            let mut redis = fleet.redis.lock().await;
            redis.kill();
            sleep(how_long).await;
            redis.restart().await;
        }
        FaultKind::RedisRestarted => fleet.redis.lock().await.restart().await,
        FaultKind::RedisHangs => {
            let redis = fleet.redis.lock().await;
            redis.pause();
            sleep(how_long).await;
            redis.go_on();
        }
        FaultKind::RedisFlushed => fleet.redis.lock().await.flush().expect("redis answers"),
        FaultKind::Burst => pressure.burst(burst, how_long).await,
    }
}
