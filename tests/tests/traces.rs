//! One trace follows a track through all three services, and says the same as the logs and the answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{collections::HashMap, time::Duration};

use chorale_proto::{
    service_names::{CLASSIFIER, FEATURE, INFERENCE},
    v1::{ClassifyOptions, ClassifyRequest},
};
use chorale_tests::{CollectedSpan, Collector, Server, sound, until};
use tonic::Request;

const PATIENCE: Duration = Duration::from_secs(30);
/// What a caller says that it is in the middle of.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn request(flags: &str) -> Request<ClassifyRequest> {
    request_in(TRACE, 1, flags)
}

fn request_in(trace: &str, seed: u64, flags: &str) -> Request<ClassifyRequest> {
    let options = ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() };
    let mut request =
        Request::new(ClassifyRequest { options: Some(options), audio: sound::wav(&sound::chord(20.0, seed)) });
    request.metadata_mut().insert("traceparent", format!("00-{trace}-{CALLER}-{flags}").parse().unwrap());
    request
}

/// The three roles, which trace only what their callers do, inference with these flags.
async fn cluster(collector: &Collector, inference: &[&str]) -> [Server; 3] {
    let endpoint = collector.endpoint();
    let environment = [("CHORALE_TELEMETRY__OTLP_ENDPOINT", &*endpoint), ("CHORALE_TELEMETRY__SAMPLE_RATIO", "0")];
    let inference = Server::start_with("inference", inference, &environment).await;
    inference.serving(INFERENCE).await;
    let feature = Server::start_with("feature", &["--inference", inference.endpoint()], &environment).await;
    feature.serving(FEATURE).await;
    let gateway = Server::start_with("gateway", &["--feature", feature.endpoint()], &environment).await;
    gateway.serving(CLASSIFIER).await;
    [gateway, feature, inference]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_the_upload_to_the_verdict() {
    let Some(collector) = Collector::start().await else { return };
    let [gateway, feature, inference] = cluster(&collector, &[]).await;
    let mut client = gateway.client().await.rpc;
    let answer = client.classify(request("01")).await.unwrap();
    let request_id = answer.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
    let chunks = answer.into_inner().verdict.unwrap().chunk_count as usize;
    assert!(chunks > 1);

    let expected = [
        ("chorale-gateway", "chorale.v1.ClassifierService/Classify"),
        ("chorale-gateway", "chorale.v1.FeatureService/Analyze"),
        ("chorale-gateway", "vote"),
        ("chorale-feature", "chorale.v1.FeatureService/Analyze"),
        ("chorale-feature", "turn"),
        ("chorale-feature", "decode"),
        ("chorale-feature", "mel"),
        ("chorale-feature", "chorale.v1.InferenceService/Infer"),
        ("chorale-inference", "queue"),
        ("chorale-inference", "batch"),
        ("chorale-inference", "forward"),
    ];
    let found = |spans: &[CollectedSpan], (service, name): (&str, &str)| {
        spans.iter().filter(|span| span.service == service && span.name == name).count()
    };
    let spans = until("every span has come", PATIENCE, async || {
        let spans = collector.spans();
        let all = expected.iter().all(|&part| found(&spans, part) > 0);
        (all && found(&spans, ("chorale-inference", "queue")) == chunks).then_some(spans)
    })
    .await;

    assert!(spans.iter().all(|span| span.trace_id == TRACE), "{spans:#?}");
    assert_eq!(found(&spans, ("chorale-feature", "chorale.v1.InferenceService/Infer")), chunks);
    // Every span hangs from another one, and the first from the caller's.
    let by_id: HashMap<&str, &CollectedSpan> = spans.iter().map(|span| (&*span.id, span)).collect();
    for span in &spans {
        let parent = by_id.get(&*span.parent_id).map(|parent| (&*parent.service, &*parent.name));
        match &*span.name {
            "chorale.v1.ClassifierService/Classify" => assert_eq!(span.parent_id, CALLER),
            "queue" | "batch" => assert_eq!(parent, Some(("chorale-feature", "chorale.v1.InferenceService/Infer"))),
            "forward" => assert_eq!(parent, Some(("chorale-inference", "batch"))),
            "decode" | "mel" | "turn" => {
                assert_eq!(parent, Some(("chorale-feature", "chorale.v1.FeatureService/Analyze")));
            }
            _ => assert!(parent.is_some(), "{span:?}"),
        }
    }
    // A batch is linked to all of its chunks.
    let batches = spans.iter().filter(|span| span.name == "batch");
    assert_eq!(batches.map(|batch| batch.links.len()).sum::<usize>(), chunks);

    // Audio that cannot be decoded is told where it failed, in a trace of its own.
    let unreadable = "1af7651916cd43dd8448eb211c80319c";
    let mut broken = request_in(unreadable, 1, "01");
    broken.get_mut().audio = vec![7; 4_096].into();
    client.classify(broken).await.unwrap_err();
    until("the failure has come", PATIENCE, async || {
        collector.spans().iter().any(|span| span.trace_id == unreadable && span.name == "decode").then_some(())
    })
    .await;

    // The logs of who was asked name the trace, and the request as the answer does.
    for server in [&gateway, &feature] {
        let line = until("the call is logged", PATIENCE, async || {
            server.log().lines().find(|line| line.contains(TRACE)).map(str::to_owned)
        })
        .await;
        assert!(line.contains(&request_id), "{line}");
    }
    let exemplar = format!("# {{trace_id=\"{TRACE}\"}}");
    for server in [&gateway, &feature, &inference] {
        let metrics = server.metrics();
        assert!(metrics.contains(&exemplar), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tracks_that_share_batches_have_them_in_all_their_traces() {
    const TRACKS: usize = 8;
    let Some(collector) = Collector::start().await else { return };
    // A device that waits for its batches to fill gets chunks of several tracks at a time.
    let flags = ["--set", "inference.max_queue_delay=500ms"];
    let [gateway, _feature, _inference] = cluster(&collector, &flags).await;
    let client = gateway.client().await.rpc;
    let traces: Vec<String> = (1..=TRACKS).map(|track| format!("{track:032x}")).collect();
    let calls = (1..).zip(&traces).map(|(seed, trace)| {
        let mut client = client.clone();
        async move { client.classify(request_in(trace, seed, "01")).await.unwrap() }
    });
    futures::future::join_all(calls).await;
    let named = |spans: &[CollectedSpan], trace: &str, name: &str| {
        spans.iter().filter(|span| span.trace_id == trace && span.name == name).count()
    };
    until("every track has its batches", PATIENCE, async || {
        let spans = collector.spans();
        let complete = |trace: &String| named(&spans, trace, "batch") > 0 && named(&spans, trace, "forward") > 0;
        traces.iter().all(complete).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_follows_is_not_traced_and_a_collector_that_is_away_does_no_harm() {
    let Some(collector) = Collector::start().await else { return };
    let [gateway, _feature, _inference] = cluster(&collector, &[]).await;
    let mut client = gateway.client().await.rpc;
    for _ in 0..3 {
        client.classify(request("00")).await.unwrap();
    }
    // This one comes after those, by the same way.
    client.classify(request("01")).await.unwrap();
    let whole = |span: &CollectedSpan| span.name == "chorale.v1.ClassifierService/Classify";
    until("a span has come", PATIENCE, async || collector.spans().iter().any(whole).then_some(())).await;
    assert_eq!(collector.spans().iter().filter(|span| whole(span)).count(), 1);

    drop(collector);
    for _ in 0..3 {
        client.classify(request("01")).await.unwrap();
    }
    assert_eq!(gateway.readyz().unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_nobody_traces_are_as_often_as_configured_and_the_cache_has_its_span() {
    let Some(collector) = Collector::start().await else { return };
    let endpoint = collector.endpoint();
    let client = async |ratio: &'static str| {
        let environment =
            [("CHORALE_TELEMETRY__OTLP_ENDPOINT", &*endpoint), ("CHORALE_TELEMETRY__SAMPLE_RATIO", ratio)];
        let server = Server::start_with("up", &[], &environment).await;
        (server.client().await.rpc, server)
    };
    let audio = sound::wav(&sound::chord(20.0, 1));
    let request = || ClassifyRequest { audio: audio.clone(), ..ClassifyRequest::default() };
    let (mut untraced, _server) = client("0").await;
    untraced.classify(request()).await.unwrap();

    let (mut traced, _server) = client("1").await;
    for cached in [false, true] {
        assert_eq!(traced.classify(request()).await.unwrap().into_inner().verdict.unwrap().cached, cached);
    }
    let (roots, spans) = until("both traces have come", PATIENCE, async || {
        let spans = collector.spans();
        let roots: Vec<CollectedSpan> = spans.iter().filter(|span| span.parent_id.is_empty()).cloned().collect();
        let heard = spans.iter().any(|span| span.name == "forward");
        (heard && roots.len() > 1).then_some((roots, spans))
    })
    .await;
    let names = |root: &CollectedSpan| -> Vec<&str> {
        spans.iter().filter(|span| span.trace_id == root.trace_id).map(|span| &*span.name).collect()
    };
    let mut traces: Vec<_> = roots.iter().map(names).collect();
    traces.sort_by_key(Vec::len);
    let [known, heard] = &traces[..] else { panic!("{spans:#?}") };
    assert!(known.len() == 2 && known.contains(&"cache"), "{known:?}");
    assert!(heard.contains(&"cache") && heard.contains(&"forward"), "{heard:?}");
}
