//! A worker that goes away costs nobody an answer while another one is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use chorale_proto::{
    service_names::{CLASSIFIER, INFERENCE},
    v1::{ClassifyOptions, EventKind, classify_stream_response::Event},
};
use chorale_tests::{
    Server,
    client::reason,
    fixtures, sound, until,
    verdict::{assert_coherent, assert_same},
};
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(30);
const UPLOADS: u64 = 4;

struct Replicated {
    workers: Vec<Server>,
    _feature: Server,
    gateway: Server,
}

impl Replicated {
    async fn start(worker_count: usize) -> Self {
        let mut workers = Vec::new();
        for _ in 0..worker_count {
            let worker = Server::start("inference", &[]).await;
            worker.serving(INFERENCE).await;
            workers.push(worker);
        }
        let endpoints = workers.iter().map(Server::endpoint).collect::<Vec<_>>().join(",");
        let feature = Server::start("feature", &["--inference", &endpoints]).await;
        let gateway = Server::start("gateway", &["--feature", feature.endpoint()]).await;
        gateway.serving(CLASSIFIER).await;
        Self { workers, _feature: feature, gateway }
    }
}

/// Uploads that are half done when one of two workers `stop`s.
async fn a_worker_leaves(stop: impl AsyncFn(&mut Server)) {
    let mut cluster = Replicated::start(2).await;
    let client = cluster.gateway.client().await;
    let options =
        ClassifyOptions { events: vec![EventKind::ChunkVote.into()], bypass_cache: true, ..ClassifyOptions::default() };
    let mut halves = Vec::new();
    for seed in 0..UPLOADS {
        let track = sound::wav(&sound::chord(16.0, seed));
        let before = client.classify(track.clone()).await.unwrap();
        let mut upload = client.upload(options.clone()).await.unwrap();
        upload.send(track.slice(..track.len() / 2)).await;
        while !matches!(upload.event().await.unwrap(), Some(Event::ChunkVote(_))) {}
        halves.push((track, before, upload));
    }
    stop(&mut cluster.workers[0]).await;
    for (track, before, mut upload) in halves {
        upload.send(track.slice(track.len() / 2..)).await;
        let verdict = upload.verdict().await.unwrap();
        assert_coherent(&verdict);
        assert_same(&verdict, &before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_a_worker_that_dies_go_to_another_one() {
    a_worker_leaves(async |worker| worker.kill()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_a_worker_that_drains_go_to_another_one() {
    a_worker_leaves(async |worker| {
        worker.terminate();
        assert!(worker.ended().await.success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_worker_a_call_fails_soon_and_may_be_tried_again() {
    let mut cluster = Replicated::start(1).await;
    let client = cluster.gateway.client().await;
    cluster.workers[0].kill();
    let answer = tokio::time::timeout(PATIENCE, client.classify(fixtures::clip())).await.expect("no call hangs");
    let refusal = answer.unwrap_err();
    assert_eq!(
        (refusal.code(), reason(&refusal)),
        (Code::Unavailable, "DEPENDENCY_UNAVAILABLE".to_owned()),
        "{refusal}"
    );
    until("readiness is withdrawn", PATIENCE, async || (cluster.gateway.readyz().unwrap() == 503).then_some(())).await;
}
