//! A cluster under load, with faults at random, for as long as one likes: nothing leaks, sticks, is lost or comes twice, and
//! the counters add up. `tests/soak/run` builds what this needs and runs it.
//!
//! Everything random comes from the seed: the tracks, who calls when and how, and which faults there are. How fast the machine
//! is decides how often callers call, and so what coincides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a run that cannot go on fails")]

mod audit;
mod caller;
mod callers;
mod corpus;
mod faults;
mod findings;
mod fleet;
mod ledger;
mod load;
mod plan;
mod report;
mod usage;
mod weather;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use chorale_tests::until;
use clap::Parser;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{
    caller::Caller,
    callers::World,
    corpus::Corpus,
    faults::Faults,
    findings::Findings,
    fleet::{Fleet, Role},
    load::Pressure,
    report::Report,
    usage::Usage,
    weather::Weather,
};

/// Callers with which the most that the machine takes is measured, for how long, and the share of it that the load has.
const MEASURING_CALLERS: usize = 24;
const MEASURING: Duration = Duration::from_secs(6);
const SHARE: f64 = 0.55;
/// How soon after the last call nothing may be open anywhere.
const SETTLE: Duration = Duration::from_secs(30);

#[derive(Parser)]
#[command(about = "Loads a cluster and breaks its parts at random, and says what did not hold.")]
struct Arguments {
    /// How long callers call, in minutes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Where all chance comes from [default: any, and printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Calls a second [default: 55 % of what the machine takes, which is measured first]
    #[arg(long)]
    rate: Option<f64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    if runtime.block_on(soak(&arguments)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each use of chance has a stream of its own, so that more draws of one do not change the others.
fn chance(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

async fn soak(arguments: &Arguments) -> bool {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    anstream::println!("seed {seed}: the same again with --seed {seed}");
    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    let fleet = Arc::new(Fleet::start().await.expect("redis-server is installed"));
    let caller = Caller::new(&fleet).await;
    let corpus = Corpus::gather(&mut chance(seed, 0), &caller).await;
    let (valid, invalid) = (corpus.valid.len(), corpus.invalid.len());
    anstream::println!("{valid} tracks have their verdicts, {invalid} others were refused");
    let world = Arc::new(World { corpus, caller, weather: Weather::default() });
    let rate = match arguments.rate {
        Some(rate) => rate,
        None => {
            let most = load::most(&world, &mut chance(seed, 1), MEASURING_CALLERS, MEASURING).await;
            anstream::println!("{most:.1} calls a second are the most: {:.1} will come", most * SHARE);
            most * SHARE
        }
    };

    let (usage, findings, pressure) =
        (Arc::new(Usage::default()), Arc::new(Findings::default()), Arc::new(Pressure::default()));
    let watching = tokio::spawn(Arc::clone(&usage).watch(Arc::clone(&fleet), Arc::clone(&pressure)));
    let report = Arc::new(Report::begin(length, Arc::clone(&world), Arc::clone(&pressure), Arc::clone(&findings)));
    let reporting = tokio::spawn(Arc::clone(&report).go_on());
    let breaking = Faults::new(chance(seed, 2)).run(&fleet, &world.weather, &pressure, length);
    let calling = load::run(&world, chance(seed, 3), rate, length, &pressure, &findings);
    tokio::join!(findings.noting(breaking), findings.noting(calling));
    reporting.abort();
    findings.noting(settle(&fleet, &report)).await;
    watching.abort();
    if let Err(error) = watching.await {
        findings.add_panic(error);
    }
    let accounts = audit::audit(&fleet, &world.caller.ledger, &findings).await;
    for line in fleet.logged_errors().await {
        findings.add(format!("logged as an error: {line}"));
    }
    let held = usage::judge(&usage, &fleet, &findings).await;
    report.end(&accounts, &held)
}

/// Waits until no process has anything open, and says how long that took.
async fn settle(fleet: &Fleet, report: &Report) {
    let began = Instant::now();
    for slot in fleet.slots() {
        let gauge = match slot.role {
            Role::Gateway => "chorale_gateway_open_streams",
            Role::Feature => "chorale_feature_open_streams",
            Role::Inference => "chorale_inference_queue_depth_chunks",
        };
        let server = slot.server.lock().await;
        until(&format!("stuck: {gauge} of replica {} is 0", slot.replica), SETTLE, async || {
            (server.metric(gauge)? == 0.0).then_some(())
        })
        .await;
    }
    report.say(format_args!("nothing is open {:.1?} after the last call", began.elapsed()));
}
