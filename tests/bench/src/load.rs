//! A server under load: how fast it answers an only caller, how many tracks it takes at most, and how long callers wait
//! below that.
//!
//! Arrivals are random (Poisson) and do not wait for answers, and a call's time begins when it should have: a server that
//! falls behind is charged for all who wait (no coordinated omission).

use std::{path::Path, sync::Arc, time::Duration};

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
    time::{Instant, sleep_until},
};
use tonic::{Status, transport::Endpoint};

/// Connections that callers share.
const CONNECTIONS: usize = 8;
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
    /// Loads to try, in percent of the most that the server took
    #[arg(long, value_delimiter = ',', default_values_t = [10, 30, 50, 70, 85], value_name = "PERCENT")]
    shares: Vec<u32>,
}

/// What came out.
#[derive(Serialize)]
struct LoadResult {
    /// Of one call after the other.
    idle: Latency,
    /// Tracks a second, with many calls in flight.
    most_per_second: f64,
    loads: Vec<Load>,
}

#[derive(Serialize)]
struct Load {
    share_percent: u32,
    offered_per_second: f64,
    answered: u64,
    refused: u64,
    latency: Latency,
}

/// Milliseconds.
#[derive(Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    most: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |share| histogram.value_at_quantile(share) as f64 / 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), most: histogram.max() as f64 / 1e3 }
    }
}

/// Loads a server and prints what happens.
pub(crate) fn run(arguments: &LoadArguments, audio: &Path, json: Option<&Path>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(load(arguments, audio))?;
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&result)?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

async fn load(arguments: &LoadArguments, audio: &Path) -> anyhow::Result<LoadResult> {
    let audio = Bytes::from(tokio::fs::read(audio).await.with_context(|| audio.display().to_string())?);
    let started = match arguments.endpoint {
        Some(_) => None,
        None => Some(Server::start("up", &[]).await),
    };
    let endpoint = match (&arguments.endpoint, &started) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(server)) => server.endpoint().to_owned(),
        (None, None) => String::new(),
    };
    let connect = || async { anyhow::Ok(Client::new(Endpoint::from_shared(endpoint.clone())?.connect().await?)) };
    let clients = join_all((0..CONNECTIONS).map(|_| connect())).await.into_iter().collect::<anyhow::Result<Vec<_>>>();
    let callers = Arc::new(Callers { clients: clients.with_context(|| endpoint.clone())?, audio });

    let mut idle = histogram()?;
    for _ in 0..IDLE_CALLS {
        let began = Instant::now();
        callers.call(0).await?;
        record(&mut idle, began);
    }
    let idle = Latency::of(&idle);
    anstream::println!("one call at a time: {}", line(&idle));

    let most_per_second = saturate(&callers, arguments.streams, Duration::from_secs(arguments.seconds)).await?;
    anstream::println!("{} calls at a time: {most_per_second:.1} tracks a second", arguments.streams);

    let mut loads = Vec::new();
    for share_percent in &arguments.shares {
        let offered = most_per_second * f64::from(*share_percent) / 100.0;
        let load = arrive(&callers, *share_percent, offered, Duration::from_secs(arguments.seconds)).await?;
        let refused = if load.refused > 0 { format!(", {} refused", load.refused) } else { String::new() };
        anstream::println!(
            "{share_percent:>3} % of that, {offered:.1} a second: {} = {:.1} times the idle median at p99{refused}",
            line(&load.latency),
            load.latency.p99 / idle.p50,
        );
        loads.push(load);
    }
    Ok(LoadResult { idle, most_per_second, loads })
}

struct Callers {
    clients: Vec<Client>,
    audio: Bytes,
}

impl Callers {
    /// Classifies the track; nothing is known from the cache.
    async fn call(&self, number: usize) -> Result<(), Status> {
        let options = ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() };
        let client = &self.clients[number % self.clients.len()];
        client.classify_with(self.audio.clone(), options).await.map(drop)
    }
}

/// Tracks a second with `streams` callers who begin the next call when the last one ends.
async fn saturate(callers: &Arc<Callers>, streams: usize, duration: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let caller = |number: usize| {
        let callers = Arc::clone(callers);
        async move {
            let mut answered = 0_u64;
            while began.elapsed() < duration {
                callers.call(number).await?;
                answered += 1;
            }
            Ok::<_, Status>(answered)
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
async fn arrive(
    callers: &Arc<Callers>,
    share_percent: u32,
    per_second: f64,
    duration: Duration,
) -> anyhow::Result<Load> {
    let began = Instant::now();
    let mut at = Duration::ZERO;
    let mut calls = JoinSet::new();
    for number in 0.. {
        let chance: f64 = rand::rng().random();
        at += Duration::from_secs_f64(-(1.0 - chance).ln() / per_second);
        if at > duration {
            break;
        }
        let callers = Arc::clone(callers);
        let due = began + at;
        sleep_until(due).await;
        calls.spawn(async move { (due, callers.call(number).await, Instant::now()) });
    }
    let (mut latencies, mut answered, mut refused) = (histogram()?, 0, 0);
    while let Some(call) = calls.join_next().await {
        let (due, answer, ended) = call?;
        match answer {
            Ok(()) => {
                answered += 1;
                latencies.saturating_record(microseconds(ended - due));
            }
            Err(status) if status.code() == tonic::Code::ResourceExhausted => refused += 1,
            Err(status) => return Err(status.into()),
        }
    }
    Ok(Load { share_percent, offered_per_second: per_second, answered, refused, latency: Latency::of(&latencies) })
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 3_600_000_000, 3)?)
}

fn record(histogram: &mut Histogram<u64>, began: Instant) {
    histogram.saturating_record(microseconds(began.elapsed()));
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn line(latency: &Latency) -> String {
    let Latency { p50, p90, p99, most } = latency;
    format!("median {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms, most {most:.1} ms")
}
