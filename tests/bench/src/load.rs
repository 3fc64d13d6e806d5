//! A server under load: how fast it answers an only caller, how many tracks it takes at most, and how long callers wait
//! below that.
//!
//! Arrivals are random (Poisson) and do not wait for answers, and a call's time begins when it should have: a server that
//! falls behind is charged for all who wait (no coordinated omission).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use chorale_proto::v1::ClassifyOptions;
use chorale_tests::{Client, Server};
use clap::Args;
use futures::future::join_all;
use hdrhistogram::Histogram;
use rand::RngExt;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tonic::{Code, transport::Endpoint};

use crate::{
    Files, plot, report,
    served_rivals::{Beside, ServedRival},
};

/// Connections that callers share.
pub(crate) const CONNECTIONS: usize = 8;
/// How long new calls begin before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// Calls for the latency without load.
const IDLE_CALLS: usize = 30;

/// How to load what.
#[derive(Args)]
pub(crate) struct LoadArguments {
    /// A gateway [default: `chorale up`, started for this]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Calls in flight where the most is asked for
    #[arg(long, default_value_t = 64)]
    streams: usize,
    /// How long each load lasts, in seconds
    #[arg(long, default_value_t = 10, value_name = "S")]
    seconds: u64,
    /// Load rivals as well, and compare
    #[arg(long, value_enum, value_delimiter = ',', value_name = "RIVAL")]
    beside: Vec<Beside>,
    /// The folder in which `tests/bench/run` installs rivals
    #[arg(long, value_name = "DIR", default_value = "target/tools")]
    tools: PathBuf,
    /// The model folder that rivals serve
    #[arg(long, value_name = "DIR", default_value = "deploy/models/default")]
    model: PathBuf,
    /// Loads to try, in percent of the most that the server took
    #[arg(long, value_delimiter = ',', default_values_t = [10, 30, 50, 70, 85], value_name = "PERCENT")]
    shares: Vec<u32>,
    /// Draw latency against load, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What came out.
#[derive(Serialize)]
pub(crate) struct LoadResult {
    pub(crate) name: &'static str,
    /// Of one call after the other.
    idle: Latency,
    /// Tracks a second, with many calls in flight.
    most_per_second: f64,
    pub(crate) loads: Vec<Load>,
}

#[derive(Serialize)]
pub(crate) struct Load {
    share_percent: u32,
    pub(crate) offered_per_second: f64,
    answered: u64,
    refused: u64,
    pub(crate) latency: Latency,
    /// Of calls that were refused.
    refusal: Latency,
}

/// Milliseconds.
#[derive(Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    p90: f64,
    pub(crate) p99: f64,
    most: f64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |share| histogram.value_at_quantile(share) as f64 / 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), most: histogram.max() as f64 / 1e3 }
    }
}

/// Loads a server, and perhaps a rival, and prints what happens.
pub(crate) fn run(arguments: &LoadArguments, files: &Files) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let results = runtime.block_on(load_all(arguments, &files.audio))?;
    if let Some(path) = &arguments.plot {
        plot::write(&results, path).with_context(|| path.display().to_string())?;
    }
    report::write(&results, files.json.as_deref())
}

async fn load_all(arguments: &LoadArguments, audio: &Path) -> anyhow::Result<Vec<LoadResult>> {
    let audio = Bytes::from(tokio::fs::read(audio).await.with_context(|| audio.display().to_string())?);
    let started = match arguments.endpoint {
        Some(_) => None,
        None => Some(Server::start("up", &[]).await),
    };
    let endpoint = arguments.endpoint.as_deref().or(started.as_ref().map(Server::endpoint)).unwrap_or_default();
    let ours = Arc::new(Callee::chorale(endpoint, audio.clone()).await.with_context(|| endpoint.to_owned())?);
    let mut results = vec![load(arguments, "chorale", &ours).await?];
    for beside in &arguments.beside {
        let rival = ServedRival::start(*beside, &arguments.tools, &arguments.model, &audio).await?;
        let theirs = load(arguments, beside.name(), &Arc::new(Callee::Rival(Box::new(rival)))).await?;
        compare(arguments, &ours, &results[0], &theirs).await?;
        results.push(theirs);
    }
    Ok(results)
}

async fn load(arguments: &LoadArguments, name: &'static str, callee: &Arc<Callee>) -> anyhow::Result<LoadResult> {
    let duration = Duration::from_secs(arguments.seconds);
    // Some compile what they need when they are first called, in every process of theirs.
    saturate(callee, arguments.streams, WARM_UP).await?;
    let mut idle = histogram()?;
    for _ in 0..IDLE_CALLS {
        let began = Instant::now();
        callee.call(0).await?;
        idle.saturating_record(microseconds(began.elapsed()));
    }
    let idle = Latency::of(&idle);
    anstream::println!("{name}, one call at a time: {}", line(&idle));

    let most_per_second = saturate(callee, arguments.streams, duration).await?;
    anstream::println!("{name}, {} calls at a time: {most_per_second:.1} tracks a second", arguments.streams);

    let mut loads = Vec::new();
    for share_percent in &arguments.shares {
        let offered = most_per_second * f64::from(*share_percent) / 100.0;
        let load = arrive(callee, *share_percent, offered, duration).await?;
        let refused = if load.refused > 0 {
            let Load { refused, refusal, .. } = &load;
            let goodput = load.answered as f64 / duration.as_secs_f64();
            let (half, most) = (refusal.p50, refusal.p99);
            format!(
                "; {refused} refused, half of them in {half:.1} ms, p99 {most:.1} ms; {goodput:.1} a second answered"
            )
        } else {
            String::new()
        };
        anstream::println!(
            "{share_percent:>3} % of that, {offered:.1} a second: {} = {:.1} times the idle median at p99{refused}",
            line(&load.latency),
            load.latency.p99 / idle.p50,
        );
        loads.push(load);
    }
    Ok(LoadResult { name, idle, most_per_second, loads })
}

/// Offers us twice what a rival was offered, and says whose callers wait for longer.
async fn compare(
    arguments: &LoadArguments,
    ours: &Arc<Callee>,
    our_result: &LoadResult,
    theirs: &LoadResult,
) -> anyhow::Result<()> {
    let (name, ratio) = (theirs.name, our_result.most_per_second / theirs.most_per_second);
    anstream::println!("the most that is taken: {ratio:.2} times as much as {name}");
    for load in &theirs.loads {
        let twice = 2.0 * load.offered_per_second;
        let duration = Duration::from_secs(arguments.seconds);
        let here = arrive(ours, load.share_percent, twice, duration).await?.latency.p99;
        let there = load.latency.p99;
        let met = if here <= there { "met" } else { "missed" };
        anstream::println!("p99 at {twice:.1} a second: {here:.1} ms; {name}'s at half of that: {there:.1} ms: {met}");
    }
    Ok(())
}

/// A server, and how to call it.
enum Callee {
    Chorale { clients: Vec<Client>, audio: Bytes },
    Rival(Box<ServedRival>),
}

impl Callee {
    async fn chorale(endpoint: &str, audio: Bytes) -> anyhow::Result<Self> {
        let connect =
            || async { anyhow::Ok(Client::new(Endpoint::from_shared(endpoint.to_owned())?.connect().await?)) };
        let clients = join_all((0..CONNECTIONS).map(|_| connect())).await.into_iter().collect::<anyhow::Result<_>>()?;
        Ok(Self::Chorale { clients, audio })
    }

    /// Classifies the track; nothing is known from a cache.
    async fn call(&self, number: usize) -> anyhow::Result<Outcome> {
        match self {
            Self::Chorale { clients, audio } => {
                let options = ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() };
                match clients[number % clients.len()].classify_with(audio.clone(), options).await {
                    Ok(_) => Ok(Outcome::Answered),
                    Err(status) if status.code() == Code::ResourceExhausted => Ok(Outcome::Refused),
                    Err(status) => Err(status.into()),
                }
            }
            Self::Rival(rival) => rival.call().await,
        }
    }
}

/// How a call ended.
pub(crate) enum Outcome {
    Answered,
    Refused,
}

/// How long callers wait who were refused, as `RetryInfo` asks them to.
const PAUSE: Duration = Duration::from_millis(500);

/// Tracks a second with `streams` callers who begin the next call when the last one ends.
async fn saturate(callee: &Arc<Callee>, streams: usize, duration: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let caller = |number: usize| {
        let callee = Arc::clone(callee);
        async move {
            let mut answered = 0_u64;
            while began.elapsed() < duration {
                match callee.call(number).await? {
                    Outcome::Answered => answered += 1,
                    // Who does not wait when asked to measures refusals.
                    Outcome::Refused => sleep(PAUSE).await,
                }
            }
            anyhow::Ok(answered)
        }
    };
    let mut calls: JoinSet<_> = (0..streams).map(caller).collect();
    let mut answered = 0;
    while let Some(call) = calls.join_next().await {
        answered += call??;
    }
    Ok(answered as f64 / began.elapsed().as_secs_f64())
}

/// Offers `per_second` calls for `duration`, at random times.
async fn arrive(callee: &Arc<Callee>, share_percent: u32, per_second: f64, duration: Duration) -> anyhow::Result<Load> {
    let began = Instant::now();
    let mut at = Duration::ZERO;
    let mut calls = JoinSet::new();
    for number in 0.. {
        let chance: f64 = rand::rng().random();
        at += Duration::from_secs_f64(-(1.0 - chance).ln() / per_second);
        if at > duration {
            break;
        }
        let callee = Arc::clone(callee);
        let due = began + at;
        sleep_until(due).await;
        calls.spawn(async move { (due, callee.call(number).await, Instant::now()) });
    }
    let (mut latencies, mut refusals, mut answered, mut refused) = (histogram()?, histogram()?, 0, 0);
    while let Some(call) = calls.join_next().await {
        let (due, answer, ended) = call?;
        match answer? {
            Outcome::Answered => {
                answered += 1;
                latencies.saturating_record(microseconds(ended - due));
            }
            Outcome::Refused => {
                refused += 1;
                refusals.saturating_record(microseconds(ended - due));
            }
        }
    }
    Ok(Load {
        share_percent,
        offered_per_second: per_second,
        answered,
        refused,
        latency: Latency::of(&latencies),
        refusal: Latency::of(&refusals),
    })
}

pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 3_600_000_000, 3)?)
}

pub(crate) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn line(latency: &Latency) -> String {
    let Latency { p50, p90, p99, most } = latency;
    format!("median {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms, most {most:.1} ms")
}
