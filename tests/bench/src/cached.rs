//! A verdict that is known already, beside the same bytes from Redis alone.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use chorale_proto::v1::ClassifyOptions;
use chorale_tests::{Client, Cluster};
use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::{
    Files,
    load::{CONNECTIONS, Latency, histogram, microseconds},
    report::{self, goal},
};

/// How much longer than Redis alone half of the callers may wait, in milliseconds.
const GOAL_MILLISECONDS: f64 = 1.0;
/// Verdicts for each second of a gateway's core.
const GOAL_PER_CORE_SECOND: f64 = 5_000.0;

/// How to measure known verdicts.
#[derive(Args)]
pub(crate) struct CachedArguments {
    /// How often the gateway and Redis take their turns
    #[arg(long, default_value_t = 7)]
    turns: usize,
    /// Lookups of a turn, one after the other
    #[arg(long, default_value_t = 2_000)]
    lookups: u64,
    /// Callers at a time where the most is asked for
    #[arg(long, default_value_t = 64)]
    streams: usize,
    /// How long they ask, in seconds
    #[arg(long, default_value_t = 5, value_name = "S")]
    seconds: u64,
}

/// What came out; milliseconds.
#[derive(Serialize)]
struct CachedResult {
    /// Half of the lookups by digest took no longer, in the median turn.
    lookup_p50: f64,
    /// Half of the GETs took no longer, in the median turn.
    redis_p50: f64,
    /// The same with the whole audio uploaded, and digested by the gateway.
    upload_p50: f64,
    value_bytes: usize,
    per_second: f64,
    /// Verdicts for each second of processor time that the gateway took.
    per_core_second: f64,
}

/// Measures, and prints.
pub(crate) fn run(arguments: &CachedArguments, files: &Files) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(measure(arguments, &files.audio))?;
    report::write(&result, files.json.as_deref())
}

async fn measure(arguments: &CachedArguments, audio: &Path) -> anyhow::Result<CachedResult> {
    let audio = Bytes::from(tokio::fs::read(audio).await.with_context(|| audio.display().to_string())?);
    let cluster = Cluster::start().await.context("redis-server is not installed: apt-get install redis-server")?;
    let client = cluster.gateway.client().await;
    let first = client.classify(audio.clone()).await?;
    let known = ClassifyOptions { blake3_digest: first.blake3_digest.clone(), ..ClassifyOptions::default() };
    let port = cluster.redis.port().to_string();
    let key = only_key(&port)?;
    let value_bytes = redis(&["redis-cli", "-p", &port, "strlen", &key])?.trim().parse()?;

    let (mut lookups, mut gets, mut uploads) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.turns {
        lookups.push(p50(arguments.lookups, async || look_up(&client, &known).await).await?);
        gets.push(redis_p50(&port, &key, arguments.lookups)?);
        let upload = async || {
            let verdict = client.classify(audio.clone()).await?;
            anyhow::ensure!(verdict.cached, "the verdict was not in the cache");
            Ok(())
        };
        uploads.push(p50(arguments.lookups.div_ceil(10), upload).await?);
    }
    let [lookup_p50, redis_p50, upload_p50] = [lookups, gets, uploads].map(median);
    anstream::println!(
        "a known verdict by its digest: median {lookup_p50:.3} ms; GET of its {value_bytes} bytes: {redis_p50:.3} ms; {:.3} ms more, {}",
        lookup_p50 - redis_p50,
        goal(lookup_p50 - redis_p50 <= GOAL_MILLISECONDS, &format!("{GOAL_MILLISECONDS} ms")),
    );
    anstream::println!("the same with an upload of {} KB: median {upload_p50:.3} ms", audio.len() / 1_000);

    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(cluster.gateway.client().await);
    }
    let processor_before = cluster.gateway.processor_time();
    let per_second = most(clients, &known, arguments).await?;
    let processor = (cluster.gateway.processor_time() - processor_before).as_secs_f64();
    let per_core_second = per_second * arguments.seconds as f64 / processor;
    anstream::println!(
        "{} lookups at a time: {per_second:.0} a second, {per_core_second:.0} for each second of the gateway's core, {}",
        arguments.streams,
        goal(per_core_second >= GOAL_PER_CORE_SECOND, &format!("{GOAL_PER_CORE_SECOND}")),
    );
    Ok(CachedResult { lookup_p50, redis_p50, upload_p50, value_bytes, per_second, per_core_second })
}

/// Asks for the verdict without an upload.
async fn look_up(client: &Client, known: &ClassifyOptions) -> anyhow::Result<()> {
    let mut call = client.upload(known.clone()).await?;
    anyhow::ensure!(!call.accepted().await?.audio_wanted, "the verdict was not in the cache");
    anyhow::ensure!(call.verdict().await?.cached, "the verdict was not in the cache");
    Ok(())
}

/// What half of `calls` calls take at most, one after the other, in milliseconds.
async fn p50(calls: u64, call: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut histogram = histogram()?;
    for _ in 0..calls {
        let began = Instant::now();
        call().await?;
        histogram.saturating_record(microseconds(began.elapsed()));
    }
    Ok(Latency::of(&histogram).p50)
}

/// Verdicts a second, with many callers at a time.
async fn most(clients: Vec<Client>, known: &ClassifyOptions, arguments: &CachedArguments) -> anyhow::Result<f64> {
    let (began, duration) = (Instant::now(), Duration::from_secs(arguments.seconds));
    let known = Arc::new(known.clone());
    let caller = |client: Client| {
        let known = Arc::clone(&known);
        async move {
            let mut answered = 0_u64;
            while began.elapsed() < duration {
                look_up(&client, &known).await?;
                answered += 1;
            }
            anyhow::Ok(answered)
        }
    };
    let mut callers: JoinSet<_> = clients.iter().cycle().take(arguments.streams).cloned().map(caller).collect();
    let mut answered = 0;
    while let Some(caller) = callers.join_next().await {
        answered += caller??;
    }
    Ok(answered as f64 / duration.as_secs_f64())
}

fn only_key(port: &str) -> anyhow::Result<String> {
    let keys = redis(&["redis-cli", "-p", port, "--scan"])?;
    let mut keys = keys.lines();
    let key = keys.next().context("redis holds no verdict")?;
    anyhow::ensure!(keys.next().is_none(), "redis holds more than one verdict");
    Ok(key.to_owned())
}

/// What `redis-benchmark` says of as many GETs, one after the other, in milliseconds.
fn redis_p50(port: &str, key: &str, gets: u64) -> anyhow::Result<f64> {
    let gets = gets.to_string();
    let table = redis(&["redis-benchmark", "-p", port, "-c", "1", "-n", &gets, "--csv", "GET", key])?;
    let mut lines = table.lines().map(|line| line.split(',').map(|cell| cell.trim_matches('"')));
    let column = lines.next().and_then(|mut head| head.position(|cell| cell == "p50_latency_ms"));
    let cell = column.and_then(|column| lines.next()?.nth(column)).context("redis-benchmark names no p50")?;
    Ok(cell.parse()?)
}

fn redis(command: &[&str]) -> anyhow::Result<String> {
    let [program, arguments @ ..] = command else { anyhow::bail!("no program") };
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program} is not installed: apt-get install redis-tools"))?;
    anyhow::ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
