//! The memory that roles hold for open streams, and for a track of hours.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use chorale_proto::v1::ClassifyOptions;
use chorale_tests::{Client, Cluster, MIB, Server, Upload};
use clap::Args;
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    Files,
    report::{self, goal},
};

/// What a role may hold, and what it may hold more for each open stream.
const GOAL_BASE: u64 = 64 * MIB;
const GOAL_A_STREAM: u64 = MIB;
/// How much more a role may hold late in a long track than early in it.
const GOAL_GROWTH: u64 = 4 * MIB;
const MESSAGE_BYTES: usize = 64 << 10;
/// Open streams have so much of their tracks left to send.
const HELD_BACK: usize = 16 << 10;
/// How long after the last message memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);

/// How to measure memory.
#[derive(Args)]
pub(crate) struct HeldArguments {
    /// Streams that are open together, in the middle of their uploads
    #[arg(long, default_value_t = 256)]
    streams: usize,
    /// The length of the long track, in hours
    #[arg(long, default_value_t = 3.0, value_name = "H")]
    hours: f64,
}

/// What came out; bytes.
#[derive(Serialize)]
struct HeldResult {
    role: &'static str,
    idle: u64,
    streams: usize,
    /// The most that was held with the streams open.
    with_streams: u64,
    /// The most that was held in the first tenth of the long track.
    early: u64,
    /// The same until its end.
    late: u64,
}

/// Measures, and prints.
pub(crate) fn run(arguments: &HeldArguments, files: &Files) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let results = runtime.block_on(measure(arguments, &files.audio))?;
    report::write(&results, files.json.as_deref())
}

async fn measure(arguments: &HeldArguments, audio: &Path) -> anyhow::Result<Vec<HeldResult>> {
    let audio = Bytes::from(tokio::fs::read(audio).await.with_context(|| audio.display().to_string())?);
    let start =
        || async { Cluster::start().await.context("redis-server is not installed: apt-get install redis-server") };
    let cluster = start().await?;
    let roles = |cluster: &Cluster| [&cluster.gateway, &cluster.feature].map(Server::memory);
    let idle = roles(&cluster);

    let client = cluster.gateway.client().await;
    let mut open = Vec::new();
    for _ in 0..arguments.streams {
        open.push(open_stream(&client, &audio).await?);
    }
    sleep(SETTLE).await;
    let with_streams = roles(&cluster);
    for mut upload in open {
        upload.send(audio.slice(audio.len() - HELD_BACK..)).await;
        upload.verdict().await?;
    }

    // Processes of their own: what the streams left behind is not to hide what the track takes.
    let cluster = start().await?;
    let client = cluster.gateway.client().await;
    let seconds = client.classify(audio.clone()).await?.duration_seconds;
    let repeats = (arguments.hours * 3_600.0 / seconds).ceil() as usize;
    let began = Instant::now();
    let mut upload = client.upload(options()).await?;
    let mut early = roles(&cluster);
    for repeat in 0..repeats {
        send(&mut upload, &audio).await;
        if repeat == repeats / 10 {
            early = roles(&cluster);
        }
    }
    let verdict = upload.verdict().await?;
    let late = roles(&cluster);
    anstream::println!(
        "a track of {:.1} h, {} MB, took {:.1} s: {:.0} times as fast as it plays",
        verdict.duration_seconds / 3_600.0,
        repeats * audio.len() / 1_000_000,
        began.elapsed().as_secs_f64(),
        verdict.duration_seconds / began.elapsed().as_secs_f64(),
    );

    let mut results = Vec::new();
    for (index, role) in ["gateway", "feature"].into_iter().enumerate() {
        let result = HeldResult {
            role,
            idle: idle[index].resident,
            streams: arguments.streams,
            with_streams: with_streams[index].peak,
            early: early[index].peak,
            late: late[index].peak,
        };
        result.print();
        results.push(result);
    }
    Ok(results)
}

impl HeldResult {
    fn print(&self) {
        let Self { role, idle, streams, with_streams, early, late } = self;
        let allowed = GOAL_BASE + GOAL_A_STREAM * *streams as u64;
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        anstream::println!(
            "{role}: {:.1} MiB idle, {:.1} with {streams} streams open, {:.2} for each, {}",
            mib(*idle),
            mib(*with_streams),
            mib(with_streams.saturating_sub(*idle)) / *streams as f64,
            goal(*with_streams <= allowed, &format!("{} MiB", allowed / MIB)),
        );
        anstream::println!(
            "{role}, the long track: {:.1} MiB after a tenth, {:.1} at the end, {}",
            mib(*early),
            mib(*late),
            goal(late.saturating_sub(*early) <= GOAL_GROWTH && *late <= GOAL_BASE + GOAL_A_STREAM, "the same"),
        );
    }
}

fn options() -> ClassifyOptions {
    ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() }
}

/// A stream that has sent all but the end of its track, and waits.
async fn open_stream(client: &Client, audio: &Bytes) -> anyhow::Result<Upload> {
    let mut upload = client.upload(options()).await?;
    anyhow::ensure!(upload.accepted().await?.audio_wanted, "a new track is in the cache");
    send(&mut upload, &audio.slice(..audio.len() - HELD_BACK)).await;
    Ok(upload)
}

async fn send(upload: &mut Upload, audio: &Bytes) {
    for start in (0..audio.len()).step_by(MESSAGE_BYTES) {
        upload.send(audio.slice(start..audio.len().min(start + MESSAGE_BYTES))).await;
    }
}
