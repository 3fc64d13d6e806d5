//! What an engineer asks at night: the admin port's views, the log level, and `chorale doctor`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use bytes::Bytes;
use chorale_proto::v1::{ClassifyOptions, ClassifyRequest, GetModelRequest};
use chorale_tests::{Redis, Server, command, fixtures, sound, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn view(server: &Server, name: &str) -> Value {
    let (status, text) = server.admin(&format!("/debug/{name}")).unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_shows_what_goes_on_and_no_secret() {
    let url = "redis://listener:a-secret@127.0.0.1:1/2";
    let server = Server::start("up", &["--cache-url", url, "--set", "gateway.limits.idle_timeout=50s"]).await;
    let config = view(&server, "config");
    assert_eq!(config["gateway"]["cache"]["url"], "redis://***@127.0.0.1:1/2");
    assert_eq!(config["gateway"]["limits"]["idle_timeout"], "50s");
    assert!(!server.log().contains("a-secret"), "{}", server.log());

    let client = server.client().await;
    let mut upload = client.upload(ClassifyOptions::default()).await.unwrap();
    let request_id = upload.accepted().await.unwrap().request_id;
    let half = sound::wav(&sound::chord(10.0, 1));
    upload.send(half.slice(..half.len() / 2)).await;
    let call = until("the call has brought audio", PATIENCE, async || {
        let calls = view(&server, "gateway.calls");
        calls.as_array().unwrap().iter().find(|call| call["bytes_received"].as_u64() > Some(0)).cloned()
    })
    .await;
    assert_eq!((call["request_id"].as_str(), call["caller"].as_str()), (Some(&*request_id), Some("address:127.0.0.1")));
    let analysis = until("feature has the track", PATIENCE, async || {
        view(&server, "feature.calls").as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!(analysis["request_id"], call["request_id"]);
    for replicas in ["gateway.replicas", "feature.replicas"] {
        let replica = view(&server, replicas)[0].take();
        assert_eq!((&replica["cooling_down"], &replica["share"]), (&false.into(), &1.0.into()), "{replica}");
        assert!(replica["load"].as_f64() >= Some(0.0) && replica["address"].is_string(), "{replica}");
    }
    assert_eq!(view(&server, "inference.queue")["serving_devices"], 1);
    assert!(view(&server, "feature.turns")["limit"].as_u64() > Some(0));
    drop(upload);
    until("nothing is open", PATIENCE, async || {
        ["gateway.calls", "feature.calls"]
            .iter()
            .all(|calls| view(&server, calls) == Value::Array(Vec::new()))
            .then_some(())
    })
    .await;

    let version = client.rpc.clone().get_model(GetModelRequest {}).await.unwrap().into_inner().model.unwrap().version;
    assert!(view(&server, "inference.models").as_str().unwrap().contains(&version));
    let process = view(&server, "process");
    assert_eq!(process["version"], env!("CARGO_PKG_VERSION"));
    assert!(process["revision"].is_string() && process["pid"].is_u64(), "{process}");
    let names = [
        "config",
        "feature.calls",
        "feature.replicas",
        "feature.turns",
        "gateway.calls",
        "gateway.replicas",
        "inference.models",
        "inference.queue",
        "process",
    ];
    assert_eq!(server.admin("/debug").unwrap().1, serde_json::to_string(&names).unwrap());

    let (status, names) = server.admin("/debug/nothing").unwrap();
    assert!(status == 404 && names.contains("gateway.calls"), "{names}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_changes_while_it_serves() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let logged = |server: &Server| server.log().lines().filter(|line| line.contains("\"call\"")).count();
    client.classify(fixtures::clip()).await.unwrap();
    until("the call is logged", PATIENCE, async || (logged(&server) == 1).then_some(())).await;
    assert_eq!(server.put("/debug/log-level", "error").unwrap().0, 200);
    client.classify(fixtures::clip()).await.unwrap();
    assert_eq!(server.put("/debug/log-level", "info,chorale_feature=warn\n").unwrap().0, 200);
    assert_eq!(server.admin("/debug/log-level").unwrap(), (200, "info,chorale_feature=warn\n".to_owned()));
    client.classify(fixtures::clip()).await.unwrap();
    until("the next but one is logged", PATIENCE, async || (logged(&server) == 2).then_some(())).await;
    // A word that is no level would be a crate, and silence all others.
    let (status, why) = server.put("/debug/log-level", "degub").unwrap();
    assert!(status == 400 && why.contains("degub") && why.contains("debug"), "{why}");
    let (status, why) = server.put("/debug/log-level", "loud=[").unwrap();
    assert!(status == 400 && why.contains("loud=["), "{why}");
    assert_eq!(server.put("/debug/log-level", &"x".repeat(1 << 20)).map(|(status, _)| status).unwrap_or(413), 413);
    assert_eq!(server.admin("/debug/log-level").unwrap().1, "info,chorale_feature=warn\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_of_every_role_is_counted_by_its_code() {
    let server = Server::start("up", &[]).await;
    // What alerts watch for is 0 before it happens: the first step of a counter that is born at 1 is no increase.
    let metrics = server.metrics();
    for zero in [
        "chorale_gateway_limits_hit_total{limit=\"max_streams_per_caller\"} 0",
        "chorale_gateway_cache_lookups_total{backend=\"memory\",result=\"corrupt\"} 0",
        "chorale_gateway_chunk_votes_total{genre=\"metal\"} 0",
        "chorale_gateway_chunk_votes_total{genre=\"unknown\"} 0",
        "chorale_feature_decode_errors_total{codec=\"unknown\",kind=\"INTERNAL\"} 0",
    ] {
        assert!(metrics.lines().any(|line| line == zero), "{zero} is not in\n{metrics}");
    }
    let mut rpc = server.client().await.rpc;
    let request = |audio: &[u8]| ClassifyRequest { audio: Bytes::copy_from_slice(audio), ..ClassifyRequest::default() };
    rpc.classify(request(&fixtures::clip())).await.unwrap();
    rpc.classify(request(b"no audio at all, but as long as a header")).await.unwrap_err();
    rpc.get_model(GetModelRequest {}).await.unwrap();
    let count = |role: &str, rpc: &str, code: &str| {
        let start = format!("chorale_{role}_rpcs_total{{rpc=\"{rpc}\",code=\"{code}\"}} ");
        let metrics = server.metrics();
        metrics.lines().find_map(|line| line.strip_prefix(&start)).map(|count| count.parse::<u64>().unwrap())
    };
    for (role, rpc, code) in [
        ("gateway", "chorale.v1.ClassifierService/Classify", "OK"),
        ("gateway", "chorale.v1.ClassifierService/Classify", "INVALID_ARGUMENT"),
        ("gateway", "chorale.v1.ClassifierService/GetModel", "OK"),
        ("feature", "chorale.v1.FeatureService/Analyze", "OK"),
        ("feature", "chorale.v1.FeatureService/Analyze", "INVALID_ARGUMENT"),
    ] {
        until(&format!("{role} counts {rpc}"), PATIENCE, async || (count(role, rpc, code) == Some(1)).then_some(()))
            .await;
    }
    for (role, rpc) in [
        ("feature", "chorale.v1.FeatureService/DescribeFeature"),
        ("inference", "chorale.v1.InferenceService/DescribeInference"),
    ] {
        assert!(count(role, rpc, "OK") > Some(0), "{role} {rpc}");
    }
    for (role, rpc) in [
        ("gateway", "grpc.health.v1.Health/Check"),
        ("feature", "grpc.health.v1.Health/Watch"),
        ("inference", "chorale.v1.InferenceService/Infer"),
        ("inference", "inference.GRPCInferenceService/ModelInfer"),
    ] {
        assert!(count(role, rpc, "UNAVAILABLE").is_some(), "{role} {rpc} is not there before it fails");
    }
}

fn doctor(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let ended = command::run([&["doctor", "--json"], arguments].concat());
    (ended.code, serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr)))
}

fn findings<'a>(steps: &'a [Value], finding: &str) -> Vec<&'a str> {
    steps.iter().filter(|step| step["finding"] == finding).filter_map(|step| step["step"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_wrong() {
    let Some(mut redis) = Redis::start().await else { return };
    let mut server = Server::start("up", &["--cache-url", &redis.url()]).await;
    let admin = server.admin_endpoint();
    let arguments = ["--endpoint", server.endpoint(), "--admin", &admin].map(str::to_owned);
    let arguments = arguments.each_ref().map(String::as_str);
    let (code, steps) = doctor(&arguments);
    assert_eq!(code, Some(0), "{steps:#?}");
    assert_eq!(findings(&steps, "well"), ["connection", "health", "model", "verdict", "cache", &*admin]);

    redis.kill();
    let (code, steps) = doctor(&arguments);
    assert_eq!(code, Some(0), "nothing fails without a cache: {steps:#?}");
    assert!(findings(&steps, "odd").contains(&"cache"), "{steps:#?}");

    server.kill();
    let (code, steps) = doctor(&arguments);
    assert_eq!(code, Some(1));
    assert_eq!(findings(&steps, "ill"), ["connection", &*admin]);
    assert!(steps.iter().all(|step| step["advice"].as_str().is_some_and(|advice| !advice.is_empty())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_healthy_while_its_process_is_ready() {
    let mut server = Server::start("inference", &[]).await;
    server.serving(chorale_proto::service_names::INFERENCE).await;
    let admin = server.admin_endpoint();
    assert_eq!(command::run(["healthcheck", "--endpoint", &admin]).code, Some(0));
    server.kill();
    assert_eq!(command::run(["healthcheck", "--endpoint", &admin]).code, Some(1));
}
