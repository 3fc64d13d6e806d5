//! Callers that go away in the middle leave nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use chorale_proto::v1::{ClassifyOptions, EventKind, classify_stream_response::Event};
use chorale_tests::{Cluster, Server, Upload, fixtures, note, sound, until, verdict::assert_coherent};

const CALLERS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(20);
const OPEN_STREAMS: [&str; 2] = ["chorale_gateway_open_streams", "chorale_feature_open_streams"];

async fn open_streams_are(server: &Server, count: usize) {
    for metric in OPEN_STREAMS {
        until(&format!("{metric} is {count}"), PATIENCE, async || {
            (server.metric(metric) == Some(count as f64)).then_some(())
        })
        .await;
    }
}

/// An upload of which half has arrived: one of its chunks has been classified.
async fn half_an_upload(server: &Server, seed: u64) -> Upload {
    let client = server.client().await;
    let track = sound::wav(&sound::chord(10.0, seed));
    let options = ClassifyOptions { events: vec![EventKind::ChunkVote.into()], ..ClassifyOptions::default() };
    let mut upload = client.upload(options).await.unwrap();
    upload.send(track.slice(..track.len() * 2 / 3)).await;
    while !matches!(upload.event().await.unwrap(), Some(Event::ChunkVote(_))) {}
    upload
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_in_the_middle_of_its_upload_is_forgotten() {
    let server = Server::start("up", &[]).await;
    let mut uploads = Vec::new();
    for seed in 0..CALLERS {
        uploads.push(half_an_upload(&server, seed as u64).await);
    }
    open_streams_are(&server, CALLERS).await;

    drop(uploads);
    open_streams_are(&server, 0).await;
    assert_coherent(&server.client().await.classify(fixtures::clip()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_away_free_every_role_of_their_work() {
    let Some(cluster) = Cluster::start().await else { return };
    let client = cluster.gateway.client().await;
    let track = sound::wav(&sound::chord(600.0, 1));
    let busy = || {
        let queued = cluster.inference.metric("chorale_inference_queue_depth_chunks");
        let streams = [
            cluster.gateway.metric("chorale_gateway_open_streams"),
            cluster.feature.metric("chorale_feature_open_streams"),
        ];
        streams.into_iter().chain([queued]).map(|gauge| gauge.expect("it is measured")).collect::<Vec<_>>()
    };
    let calls: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (client, track) = (client.clone(), track.clone());
            tokio::spawn(async move { client.classify(track).await })
        })
        .collect();
    until("all are at work", PATIENCE, async || (busy()[..2] == [CALLERS as f64; 2]).then_some(())).await;

    let left = Instant::now();
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    until("nobody works for them any more", PATIENCE, async || (busy() == [0.0; 3]).then_some(())).await;
    note(format_args!("{CALLERS} callers left, all was free after {:.0} ms", left.elapsed().as_secs_f64() * 1e3));
    // A batch that was on the device ends; no further one follows.
    let classified = until("no chunk follows", PATIENCE, async || {
        let before = cluster.inference.metric("chorale_inference_chunks_total");
        tokio::time::sleep(Duration::from_millis(200)).await;
        before.filter(|_| cluster.inference.metric("chorale_inference_chunks_total") == before)
    })
    .await;
    assert!(classified < (CALLERS * 299) as f64 / 2.0, "{classified} chunks were classified for nobody");
    assert_coherent(&client.classify(fixtures::clip()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_call_in_every_role() {
    let Some(cluster) = Cluster::start().await else { return };
    let client = cluster.gateway.client().await;
    let mut upload = client.upload_within(ClassifyOptions::default(), Some(Duration::from_secs(1))).await.unwrap();
    upload.accepted().await.unwrap();
    let track = sound::wav(&sound::chord(10.0, 1));
    upload.send(track.slice(..track.len() / 2)).await;
    // The caller keeps its stream open, and asks for nothing.
    let ended = "chorale_gateway_calls_total{rpc=\"ClassifyStream\",code=\"DEADLINE_EXCEEDED\"} 1";
    until(ended, PATIENCE, async || cluster.gateway.metrics().contains(ended).then_some(())).await;
    until("feature works no more", PATIENCE, async || {
        (cluster.feature.metric("chorale_feature_open_streams") == Some(0.0)).then_some(())
    })
    .await;
    drop(upload);
}
