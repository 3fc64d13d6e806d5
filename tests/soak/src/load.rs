//! Callers that arrive at random.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    callers::{World, act},
    findings::Findings,
    plan::{Manner, Plan},
};

/// Callers at a time, so that a machine that others use as well is not overloaded where no fault wants it.
pub(crate) const CALLERS: usize = 64;
/// How late callers may arrive.
const MOST_LATE: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How hard callers press.
#[derive(Default)]
pub(crate) struct Pressure {
    burst: Mutex<Option<Burst>>,
    callers: AtomicUsize,
}

/// More callers than usual.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    /// How many times as many arrive.
    pub(crate) times: f64,
    /// How many there may be at a time.
    pub(crate) callers: usize,
}

const NO_BURST: Burst = Burst { times: 1.0, callers: CALLERS };

impl Pressure {
    /// Lets more callers arrive for so long, and waits until they are served.
    pub(crate) async fn burst(&self, burst: Burst, how_long: Duration) {
        self.set(Some(burst));
        sleep(how_long).await;
        self.set(None);
        while self.callers() > CALLERS {
            sleep(POLL_INTERVAL).await;
        }
    }

    fn set(&self, burst: Option<Burst>) {
        *self.burst.lock().unwrap_or_else(PoisonError::into_inner) = burst;
    }

    fn now(&self) -> Burst {
        self.burst.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(NO_BURST)
    }

    /// Callers now.
    pub(crate) fn callers(&self) -> usize {
        self.callers.load(Ordering::Relaxed)
    }
}

/// Calls a second that are answered when so many callers call one after the other.
pub(crate) async fn most(world: &Arc<World>, random: &mut ChaCha8Rng, callers: usize, length: Duration) -> f64 {
    let began = Instant::now();
    let mut calls = JoinSet::new();
    let mut done = 0_u32;
    while began.elapsed() < length {
        let mut plan = Plan::draw(random, &world.corpus);
        (plan.manner, plan.slow) = (Manner::Honest, None);
        calls.spawn(act(Arc::clone(world), plan));
        if calls.len() >= callers {
            calls.join_next().await.expect("a call is open").expect("a call without faults is answered");
            done += 1;
        }
    }
    let rate = f64::from(done) / began.elapsed().as_secs_f64();
    while let Some(call) = calls.join_next().await {
        call.expect("a call without faults is answered");
    }
    rate
}

/// Lets callers arrive for so long, at `rate` a second, and waits until all have ended.
pub(crate) async fn run(
    world: &Arc<World>,
    mut random: ChaCha8Rng,
    rate: f64,
    length: Duration,
    pressure: &Pressure,
    findings: &Findings,
) {
    let began = Instant::now();
    let mut due = began;
    let mut callers = JoinSet::new();
    while due < began + length {
        let chance: f64 = random.random();
        let plan = Plan::draw(&mut random, &world.corpus);
        due += Duration::from_secs_f64(-(1.0 - chance).ln() / (rate * pressure.now().times));
        // Of those who could not arrive in time, not all are to arrive at once.
        due = due.max(Instant::now() - MOST_LATE);
        sleep_until(due).await;
        while let Some(caller) = callers.try_join_next() {
            note(findings, caller);
        }
        while callers.len() >= pressure.now().callers {
            note(findings, callers.join_next().await.expect("callers are there"));
            pressure.callers.store(callers.len(), Ordering::Relaxed);
        }
        callers.spawn(act(Arc::clone(world), plan));
        pressure.callers.store(callers.len(), Ordering::Relaxed);
    }
    while let Some(caller) = callers.join_next().await {
        note(findings, caller);
        pressure.callers.store(callers.len(), Ordering::Relaxed);
    }
}

fn note(findings: &Findings, caller: Result<(), JoinError>) {
    if let Err(error) = caller {
        findings.add_panic(error);
    }
}
