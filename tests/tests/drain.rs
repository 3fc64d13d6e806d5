//! SIGTERM finishes what was accepted, and takes nothing new.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use chorale_proto::{
    service_names::CLASSIFIER,
    v1::{ClassifyOptions, EventKind, classify_stream_response::Event},
};
use chorale_tests::{
    Server, Upload, fixtures, health, sound, until,
    verdict::{assert_coherent, assert_same},
};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

const PATIENCE: Duration = Duration::from_secs(20);

fn track() -> bytes::Bytes {
    sound::wav(&sound::chord(12.0, 7))
}

/// An upload of half of [`track`], in the middle of being classified.
async fn half_an_upload(server: &Server) -> Upload {
    let options =
        ClassifyOptions { events: vec![EventKind::ChunkVote.into()], bypass_cache: true, ..ClassifyOptions::default() };
    let track = track();
    let mut upload = server.client().await.upload(options).await.unwrap();
    upload.send(track.slice(..track.len() / 2)).await;
    while !matches!(upload.event().await.unwrap(), Some(Event::ChunkVote(_))) {}
    upload
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_flight_ends_with_its_verdict_and_new_calls_are_refused() {
    let mut server = Server::start_with("up", &[], &[("CHORALE_SHUTDOWN__DELAY", "1s")]).await;
    let before = server.client().await.classify(track()).await.unwrap();
    let mut upload = half_an_upload(&server).await;
    let other_caller = server.client().await;
    let probe = server.connect().await.unwrap();
    assert_eq!(server.readyz().unwrap(), 200);

    server.terminate();
    until("health says NOT_SERVING", PATIENCE, async || {
        (health(probe.clone(), CLASSIFIER).await == Ok(ServingStatus::NotServing)).then_some(())
    })
    .await;
    assert_eq!(server.readyz().unwrap(), 503);
    until("new connections are refused", PATIENCE, async || server.connect().await.err()).await;
    let mut refusal = other_caller.classify(fixtures::clip()).await.unwrap_err();
    // tonic's client has other codes for a call that meets its connection in the moment of being closed: the next one
    // cannot.
    if std::error::Error::source(&refusal).is_some_and(<dyn std::error::Error>::is::<tonic::transport::Error>) {
        refusal = other_caller.classify(fixtures::clip()).await.unwrap_err();
    }
    assert_eq!(refusal.code(), Code::Unavailable, "{refusal}");

    let track = track();
    upload.send(track.slice(track.len() / 2..)).await;
    let verdict = upload.verdict().await.unwrap();
    assert_coherent(&verdict);
    assert_same(&verdict, &before);
    assert!(server.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_ends_at_once() {
    let mut server = Server::start("up", &[]).await;
    let _idle_caller = server.client().await;
    server.terminate();
    let ended = tokio::time::timeout(Duration::from_secs(5), server.ended()).await;
    assert!(ended.expect("nothing is in flight").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_end_is_cut_off_after_the_grace_period() {
    let mut server = Server::start_with("up", &[], &[("CHORALE_SHUTDOWN__GRACE", "200ms")]).await;
    let upload = half_an_upload(&server).await;
    server.terminate();
    assert!(server.ended().await.success());
    let status = upload.verdict().await.unwrap_err();
    assert!([Code::Unavailable, Code::Cancelled, Code::Unknown].contains(&status.code()), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feature_service_finishes_the_streams_that_it_has() {
    let inference = Server::start("inference", &[]).await;
    let mut feature = Server::start("feature", &["--inference", inference.endpoint()]).await;
    let gateway = Server::start("gateway", &["--feature", feature.endpoint()]).await;
    gateway.serving(CLASSIFIER).await;
    let before = gateway.client().await.classify(track()).await.unwrap();

    let mut upload = half_an_upload(&gateway).await;
    feature.terminate();
    until("new connections are refused", PATIENCE, async || feature.connect().await.err()).await;
    let track = track();
    upload.send(track.slice(track.len() / 2..)).await;
    assert_same(&upload.verdict().await.unwrap(), &before);
    assert!(feature.ended().await.success());
}
