//! The course of a call that goes well.

use std::time::Duration;

use bytes::Bytes;
use chorale_model::contract::feature_id;
use chorale_proto::v1::{
    ClassifyOptions, DeadlinePolicy, EventKind, GetModelRequest, Verdict, WarningKind,
    classify_stream_request::Payload, classify_stream_response::Event,
};
use chorale_runtime::{failure::Reason, shutdown::ShutdownConfig};

use crate::{
    cluster::Cluster,
    feature::{FakeFeature, LABELS, SILENT, Script, audio},
};

#[tokio::test]
async fn votes_come_while_the_upload_runs_and_the_verdict_comes_last() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let events = vec![EventKind::ChunkVote.into(), EventKind::Progress.into()];
    let mut call = cluster.open(ClassifyOptions { events, top_k: 2, ..ClassifyOptions::default() }).await;
    let accepted = call.accepted().await;
    assert!(accepted.audio_wanted && accepted.request_id.len() == 32);
    assert_eq!(accepted.model_version, "v1");

    call.send_audio(&audio(&[2])).await;
    let vote = loop {
        match call.next().await.unwrap().unwrap() {
            Event::ChunkVote(vote) => break vote,
            Event::Progress(_) => {}
            other => panic!("expected a vote before the end of the upload, found {other:?}"),
        }
    };
    assert_eq!((vote.index, vote.genre.as_str(), vote.silent), (0, "rock", false));
    assert_eq!(vote.probabilities, [0.1, 0.1, 0.8]);

    let rest = audio(&[SILENT, 2, 0]);
    call.send_audio(&rest).await;
    let mut events = call.events().await.unwrap();
    let Some(Event::Verdict(verdict)) = events.pop() else { panic!("expected a verdict last") };
    let votes = events.iter().filter(|event| matches!(event, Event::ChunkVote(_))).count();
    assert_eq!(votes, 3);
    assert_eq!((verdict.genre.as_str(), verdict.chunk_count, verdict.silent_chunk_count), ("rock", 4, 1));
    assert_eq!(verdict.scores.len(), 2, "top_k");
    assert_eq!(verdict.segments.len(), 4);
    assert_eq!(verdict.duration_seconds, 10.0);
    assert_eq!(verdict.feature_id, feature_id());
    assert_eq!(verdict.blake3_digest.as_ref(), blake3::hash(&[audio(&[2]), rest].concat()).as_bytes());
    assert!(!verdict.cached && verdict.timing.unwrap().total.is_some());
    assert_eq!(verdict.audio_format.unwrap().container, "fake");
}

#[tokio::test]
async fn progress_comes_at_most_four_times_a_second() {
    let feature = FakeFeature::start_with(Script { pause: Duration::from_millis(10), ..Script::default() });
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let events = vec![EventKind::Progress.into()];
    let mut call = cluster.open(ClassifyOptions { events, ..ClassifyOptions::default() }).await;
    call.send_audio(&audio(&[1; 60])).await;
    let events = call.events().await.unwrap();
    let progress: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Progress(progress) => Some(progress),
            _ => None,
        })
        .collect();
    assert!((2..=5).contains(&progress.len()), "{progress:?}");
    assert!(progress.is_sorted_by(|left, right| left.chunks <= right.chunks));
    let last = progress.last().unwrap();
    assert_eq!((last.scores[0].genre.as_str(), last.bytes_received), ("pop", 60_000));
}

#[tokio::test]
async fn the_unary_call_gives_the_verdict_of_the_stream() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let options = ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() };
    let audio = audio(&[0, 1, 1, SILENT]);
    let streamed = cluster.stream(options.clone(), &audio).await.unwrap();
    let unary = cluster.classify(options, &audio).await.unwrap();
    assert_eq!(Verdict { timing: None, ..unary }, Verdict { timing: None, ..streamed });
    assert_eq!(cluster.metric("chorale_gateway_calls_total{rpc=\"Classify\",code=\"OK\"}"), 1);
    assert_eq!(cluster.metric("chorale_gateway_audio_bytes_total"), 8_000);
    assert_eq!(cluster.metric("chorale_gateway_open_streams"), 0);
}

#[tokio::test]
async fn nothing_but_silence_is_unknown() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let verdict = cluster.classify(ClassifyOptions::default(), &audio(&[SILENT; 3])).await.unwrap();
    assert_eq!((verdict.genre.as_str(), verdict.confidence), ("unknown", 0.0));
    assert_eq!((verdict.scores.len(), verdict.segments.len(), verdict.silent_chunk_count), (0, 1, 3));
    let again = cluster.classify(ClassifyOptions::default(), &audio(&[SILENT; 3])).await.unwrap();
    assert!(again.cached);
}

#[tokio::test]
async fn get_model_tells_the_model_and_the_limits() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |config| config.limits.max_concurrent_streams = 7).await;
    let response = cluster.client.clone().get_model(GetModelRequest {}).await.unwrap().into_inner();
    assert_eq!(response.model.unwrap().labels, LABELS);
    let limits = response.limits.unwrap();
    assert_eq!((limits.max_concurrent_streams, limits.max_audio_bytes), (7, 1 << 30));
}

#[tokio::test]
async fn a_deadline_bounds_the_whole_call() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let deadline = Some(Duration::from_millis(300));
    let mut call = cluster.open_within(ClassifyOptions::default(), deadline).await;
    call.send_audio(&audio(&[1, 1])).await;
    call.accepted().await;
    let failure = call.next().await.unwrap_err();
    assert_eq!(failure.reason, Reason::DeadlineExceeded);
    feature.wait_open(0).await;
}

#[tokio::test]
async fn a_partial_verdict_comes_before_the_deadline() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let partial = |audio: Vec<u8>| {
        let options = ClassifyOptions { deadline_policy: DeadlinePolicy::Partial.into(), ..ClassifyOptions::default() };
        let cluster = &cluster;
        async move {
            let mut call = cluster.open_within(options, Some(Duration::from_millis(500))).await;
            call.accepted().await;
            call.send_audio(&audio).await;
            call.next().await
        }
    };
    let Some(Event::Verdict(verdict)) = partial(audio(&[2, 2, 0])).await.unwrap() else { panic!("expected a verdict") };
    assert_eq!((verdict.genre.as_str(), verdict.chunk_count), ("rock", 3));
    assert_eq!(verdict.warnings[0].kind(), WarningKind::Partial);
    assert_eq!(verdict.blake3_digest, Bytes::new());
    assert_eq!(partial(Vec::new()).await.unwrap_err().reason, Reason::DeadlineExceeded);
    feature.wait_open(0).await;

    let whole = cluster.stream(ClassifyOptions::default(), &audio(&[2, 2, 0])).await.unwrap();
    assert!(!whole.cached, "a partial verdict is never kept");
}

#[tokio::test]
async fn an_early_verdict_ends_the_upload_and_is_not_kept() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let early = ClassifyOptions { early_error_rate: 0.05, ..ClassifyOptions::default() };
    // The caller's side stays open: the verdict does not wait for its end.
    let mut call = cluster.open(early.clone()).await;
    call.accepted().await;
    let rock = audio(&[2; 60]);
    call.send_audio(&rock).await;
    let Some(Event::Verdict(verdict)) = call.next().await.unwrap() else { panic!("expected a verdict") };
    assert!(verdict.early && (5..60).contains(&verdict.chunk_count), "{} chunks", verdict.chunk_count);
    assert_eq!(verdict.genre, "rock");
    assert_eq!((verdict.blake3_digest, verdict.audio_format), (Bytes::new(), None));
    assert_eq!(verdict.segments.last().unwrap().end_seconds, verdict.duration_seconds);
    feature.wait_open(0).await;
    cluster.wait_metric("chorale_gateway_early_verdicts_total", 1).await;

    let doubtful = cluster.stream(early.clone(), &audio(&[2, 0].repeat(30))).await.unwrap();
    assert!(!doubtful.early && doubtful.chunk_count == 60);
    let unary = cluster.classify(early.clone(), &rock).await.unwrap();
    assert!(unary.early && !unary.cached);
    let whole = cluster.classify(ClassifyOptions::default(), &rock).await.unwrap();
    assert!(!whole.cached && !whole.early, "an early verdict is never kept");
    let known = cluster.classify(early, &rock).await.unwrap();
    assert!(known.cached && !known.early && known.chunk_count == 60, "the whole is better than a part");

    for wrong in [-0.1, 0.5, f64::NAN] {
        let options = ClassifyOptions { early_error_rate: wrong, ..ClassifyOptions::default() };
        let failure = cluster.classify(options, &rock).await.unwrap_err();
        assert_eq!(failure.reason, Reason::RequestInvalid);
        assert!(failure.message.contains("less than 0.5"), "{failure}");
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_feature_call() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let mut call = cluster.open(ClassifyOptions::default()).await;
    call.accepted().await;
    call.send_audio(&audio(&[1])).await;
    feature.wait_open(1).await;
    drop(call);
    feature.wait_open(0).await;
    cluster.wait_metric("chorale_gateway_calls_total{rpc=\"ClassifyStream\",code=\"CANCELLED\"}", 1).await;

    feature.hold(true);
    let audio = audio(&[1]);
    let unary = cluster.classify(ClassifyOptions::default(), &audio);
    assert!(tokio::time::timeout(Duration::from_millis(200), unary).await.is_err());
    feature.wait_open(0).await;
    cluster.wait_metric("chorale_gateway_calls_total{rpc=\"Classify\",code=\"CANCELLED\"}", 1).await;
    cluster.wait_metric("chorale_gateway_open_streams", 0).await;
}

#[tokio::test]
async fn draining_finishes_what_was_accepted() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let mut call = cluster.open(ClassifyOptions::default()).await;
    call.accepted().await;
    let Cluster { gateway, client, .. } = cluster;
    let draining = tokio::spawn(async move {
        gateway.drain(&ShutdownConfig::default()).await;
        client
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    call.send(Payload::Audio(audio(&[1, 1]).into())).await;
    assert_eq!(call.verdict().await.unwrap().genre, "pop");
    tokio::time::timeout(Duration::from_secs(5), draining).await.unwrap().unwrap();
}
