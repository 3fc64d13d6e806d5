//! What a call may cost.

use std::{convert::Infallible, future::poll_fn, time::Duration};

use bytesize::ByteSize;
use chorale_proto::{
    inference::grpc_inference_service_client::GrpcInferenceServiceClient,
    v1::{ClassifyOptions, PcmFormat, classify_stream_request::Payload},
};
use chorale_runtime::failure::{Failure, Reason};
use futures::{
    Stream, StreamExt,
    future::{join, join_all},
    stream,
};
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
    transport::Channel,
};

use crate::{
    cluster::Cluster,
    feature::{FakeFeature, Script, audio},
};

#[tokio::test]
async fn too_much_audio_is_refused_by_name() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |config| {
        config.limits.max_audio_bytes = ByteSize::b(2_500);
        config.limits.max_message_bytes = ByteSize::kib(8);
        config.limits.max_duration = Duration::from_secs(3);
    })
    .await;
    let limit = |failure: chorale_runtime::failure::Failure| {
        assert_eq!(failure.reason, Reason::LimitExceeded, "{failure}");
        failure.metadata["limit"].clone()
    };
    let options = ClassifyOptions::default;
    assert_eq!(limit(cluster.stream(options(), &audio(&[1; 3])).await.unwrap_err()), "max_audio_bytes");
    assert_eq!(limit(cluster.classify(options(), &audio(&[1; 3])).await.unwrap_err()), "max_audio_bytes");
    assert_eq!(limit(cluster.stream(options(), &audio(&[1; 2])).await.unwrap_err()), "max_duration_seconds");
    assert_eq!(limit(cluster.classify(options(), &audio(&[1; 20])).await.unwrap_err()), "max_message_bytes");
    let mut call = cluster.open(options()).await;
    call.accepted().await;
    call.send(Payload::Audio(audio(&[1; 20]).into())).await;
    assert_eq!(limit(call.verdict().await.unwrap_err()), "max_message_bytes");
    feature.wait_open(0).await;
}

#[tokio::test]
async fn an_upload_may_pause_only_so_long() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |config| {
        config.limits.idle_timeout = Duration::from_millis(200);
    })
    .await;
    let mut silent_from_the_start = cluster.open_bare(None).await.unwrap();
    let failure = silent_from_the_start.next().await.unwrap_err();
    assert_eq!((failure.reason, failure.metadata["limit"].as_str()), (Reason::LimitExceeded, "idle_timeout"));

    let mut call = cluster.open(ClassifyOptions::default()).await;
    call.accepted().await;
    call.send_audio(&audio(&[1])).await;
    let sender = call.requests.clone().unwrap();
    let empty_messages = tokio::spawn(async move {
        let audio = chorale_proto::v1::ClassifyStreamRequest { payload: Some(Payload::Audio(Vec::new().into())) };
        while sender.send(audio.clone()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let failure = call.next().await.unwrap_err();
    assert_eq!((failure.reason, failure.metadata["limit"].as_str()), (Reason::LimitExceeded, "idle_timeout"));
    feature.wait_open(0).await;
    drop(call);
    empty_messages.await.unwrap();
}

#[tokio::test]
async fn more_streams_than_allowed_are_shed() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |config| config.limits.max_concurrent_streams = 1).await;
    let mut first = cluster.open(ClassifyOptions::default()).await;
    first.accepted().await;
    let refused = cluster.open_bare(None).await.err().unwrap();
    assert_eq!(refused.reason, Reason::Overloaded);
    assert!(refused.retry_after.is_some());
    assert_eq!(cluster.classify(ClassifyOptions::default(), b"x").await.unwrap_err().reason, Reason::Overloaded);
    assert_eq!(feature.opened(), 1);
    first.send_audio(&audio(&[0])).await;
    first.verdict().await.unwrap();
    cluster.wait_metric("chorale_gateway_open_streams", 0).await;
    cluster.classify(ClassifyOptions::default(), &audio(&[0])).await.unwrap();
}

/// Sends a body by and by to a method, and says how the call failed.
async fn trickle(
    cluster: &Cluster,
    method: &str,
    pieces: impl Stream<Item = &'static [u8]> + Send + 'static,
) -> Failure {
    let mut channel =
        Channel::from_shared(format!("http://{}", cluster.gateway.address())).unwrap().connect().await.unwrap();
    let body = axum::body::Body::from_stream(pieces.map(Ok::<_, Infallible>));
    let request = http::Request::post(method).header("content-type", "application/grpc");
    let request = request.body(Body::new(body)).unwrap();
    poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = tokio::time::timeout(Duration::from_secs(10), channel.call(request)).await.expect("no answer");
    Failure::from_status(&Status::from_header_map(response.unwrap().headers()).unwrap())
}

/// A message is announced, and never comes.
fn silence() -> impl Stream<Item = &'static [u8]> + Send + 'static {
    stream::iter([b"\0\0\x10\0\0".as_slice()]).chain(stream::pending())
}

/// A message that comes byte by byte.
fn drip() -> impl Stream<Item = &'static [u8]> + Send + 'static {
    let bytes = stream::repeat(b"\0".as_slice()).then(async |byte| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        byte
    });
    stream::iter([b"\0\0\x10\0\0".as_slice()]).chain(bytes.boxed())
}

const UNARY: [&str; 4] = [
    "/chorale.v1.ClassifierService/Classify",
    "/chorale.v1.ClassifierService/GetModel",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ServerLive",
];

#[tokio::test]
async fn a_message_must_come_at_the_pace_of_an_upload() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |config| {
        config.limits.idle_timeout = Duration::from_secs(1);
        config.limits.min_upload_rate = ByteSize::kib(1);
    })
    .await;
    let hits = UNARY.map(async |method| {
        let (paused, dripped) = join(trickle(&cluster, method, silence()), trickle(&cluster, method, drip())).await;
        for (failure, limit) in [(paused, "idle_timeout"), (dripped, "min_upload_rate")] {
            assert_eq!(failure.reason, Reason::LimitExceeded, "{method}: {failure}");
            assert_eq!(failure.metadata["limit"], limit, "{method}: {failure}");
        }
    });
    join_all(hits).await;
    for limit in ["idle_timeout", "min_upload_rate"] {
        let metric = format!("chorale_gateway_limits_hit_total{{limit=\"{limit}\"}}");
        assert_eq!(cluster.metric(&metric), UNARY.len() as u64);
    }
    assert_eq!(cluster.metric("chorale_gateway_calls_total{rpc=\"Classify\",code=\"LIMIT_EXCEEDED\"}"), 2);
    cluster.wait_metric("chorale_gateway_open_streams", 0).await;
}

#[tokio::test]
async fn messages_take_places_before_they_are_read() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |config| config.limits.max_concurrent_streams = 1).await;
    for method in ["/chorale.v1.ClassifierService/Classify", "/inference.GRPCInferenceService/ModelInfer"] {
        // Whichever comes first has the place, and gets no answer.
        let refusal = tokio::select! {
            refusal = trickle(&cluster, method, silence()) => refusal,
            refusal = trickle(&cluster, method, silence()) => refusal,
        };
        assert_eq!(
            (refusal.reason, refusal.metadata["limit"].as_str()),
            (Reason::Overloaded, "max_concurrent_streams")
        );
        cluster.wait_metric("chorale_gateway_open_streams", 0).await;
    }
    cluster.classify(ClassifyOptions::default(), &audio(&[0])).await.unwrap();
    // A stream of inferences may hold a message as well.
    let address = format!("http://{}", cluster.gateway.address());
    let client = GrpcInferenceServiceClient::connect(address).await.unwrap();
    let _open = client.clone().model_stream_infer(stream::pending()).await.unwrap();
    let refusal = client.clone().model_stream_infer(stream::pending()).await.unwrap_err();
    assert_eq!(Failure::from_status(&refusal).reason, Reason::Overloaded);
}

#[tokio::test]
async fn who_has_no_token_is_refused_before_a_message_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let callers = folder.path().join("callers.toml");
    std::fs::write(&callers, format!("[studio]\ntoken_blake3 = '{}'\n", blake3::hash(b"sesame"))).unwrap();
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |config| config.auth.callers_file = Some(callers)).await;
    let failure = trickle(&cluster, "/chorale.v1.ClassifierService/Classify", silence()).await;
    assert_eq!(failure.reason, Reason::Unauthenticated);
}

#[tokio::test]
async fn messages_out_of_order_are_refused() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let refused = async |payloads: Vec<Payload>| {
        let mut call = cluster.open_bare(None).await.unwrap();
        for payload in payloads {
            call.send(payload).await;
        }
        let failure = call.events().await.unwrap_err();
        (failure.reason, failure.field.unwrap_or_default())
    };
    let options = || Payload::Options(ClassifyOptions::default());
    let audio = || Payload::Audio(audio(&[1]).into());
    let invalid = |field: &str| (Reason::RequestInvalid, field.to_owned());
    assert_eq!(refused(vec![]).await, invalid("options"));
    assert_eq!(refused(vec![audio()]).await, invalid("options"));
    assert_eq!(refused(vec![options(), audio(), options()]).await, invalid("audio"));
    let pcm = ClassifyOptions { pcm: Some(PcmFormat::default()), ..ClassifyOptions::default() };
    assert_eq!(refused(vec![Payload::Options(pcm.clone())]).await, invalid("options.pcm.sample_format"));
    assert_eq!(cluster.classify(pcm, b"x").await.unwrap_err().reason, Reason::RequestInvalid);
    assert_eq!(refused(vec![options()]).await, (Reason::AudioEmpty, String::new()));
    assert_eq!(cluster.classify(ClassifyOptions::default(), b"").await.unwrap_err().reason, Reason::AudioEmpty);
    feature.wait_open(0).await;
}

#[tokio::test]
async fn a_slow_feature_service_slows_the_upload_down() {
    let feature = FakeFeature::start_with(Script { pause: Duration::from_secs(60), ..Script::default() });
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let call = cluster.open(ClassifyOptions::default()).await;
    let piece = bytes::Bytes::from(vec![1; 256 * 1024]);
    let upload = async {
        loop {
            call.send(Payload::Audio(piece.clone())).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), upload).await.is_err());
    let received = cluster.metric("chorale_gateway_audio_bytes_total");
    assert!(received < 8 * 1024 * 1024, "{received} bytes were taken in");
}
