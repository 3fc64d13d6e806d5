//! Callers that go away in the middle leave nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use chorale_proto::v1::{ClassifyOptions, EventKind, classify_stream_response::Event};
use chorale_tests::{Server, Upload, fixtures, sound, until, verdict::assert_coherent};

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
