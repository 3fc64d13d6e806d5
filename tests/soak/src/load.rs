//! Callers that arrive at random.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
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
const CALLERS: usize = 64;
/// The same in a burst.
const CALLERS_IN_BURST: usize = 800;
/// How late callers may arrive.
const MOST_LATE: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How hard callers press.
#[derive(Default)]
pub(crate) struct Pressure {
    in_burst: AtomicBool,
    /// Thousandths.
    times: AtomicU64,
    callers: AtomicUsize,
}

impl Pressure {
    /// Lets so many times as many callers arrive for so long, and waits until they are served.
    pub(crate) async fn burst(&self, times: f64, how_long: Duration) {
        self.times.store((times * 1e3) as u64, Ordering::Relaxed);
        self.in_burst.store(true, Ordering::Relaxed);
        sleep(how_long).await;
        self.in_burst.store(false, Ordering::Relaxed);
        while self.callers.load(Ordering::Relaxed) >= CALLERS {
            sleep(POLL_INTERVAL).await;
        }
    }

    fn factor(&self) -> f64 {
        if self.in_burst.load(Ordering::Relaxed) { self.times.load(Ordering::Relaxed) as f64 / 1e3 } else { 1.0 }
    }

    fn most(&self) -> usize {
        if self.in_burst.load(Ordering::Relaxed) { CALLERS_IN_BURST } else { CALLERS }
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
        due += Duration::from_secs_f64(-(1.0 - chance).ln() / (rate * pressure.factor()));
        // Of those who could not arrive in time, not all are to arrive at once.
        due = due.max(Instant::now() - MOST_LATE);
        sleep_until(due).await;
        while let Some(caller) = callers.try_join_next() {
            note(findings, caller);
        }
        while callers.len() >= pressure.most() {
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
