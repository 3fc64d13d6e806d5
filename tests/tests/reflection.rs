//! A client that knows nothing but the address finds its way: reflection, health, and errors that explain themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use chorale_tests::{
    Server, fixtures,
    grpcurl::{Grpcurl, base64},
};
use serde_json::{Value, json};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_lists_and_describes_the_services() {
    let Some(grpcurl) = Grpcurl::find() else { return };
    let server = Server::start("up", &[]).await;
    let listed = grpcurl.run(&[server.address(), "list"], "").expect_code(0).stdout;
    for service in ["chorale.v1.ClassifierService", "grpc.health.v1.Health"] {
        assert!(listed.lines().any(|line| line == service), "{service} is not in {listed}");
    }
    let described = grpcurl.run(&[server.address(), "describe", "chorale.v1.ClassifierService"], "").expect_code(0);
    for method in ["ClassifyStream", "Classify", "GetModel"] {
        assert!(described.stdout.contains(&format!("rpc {method} (")), "{}", described.stdout);
    }
    let message = grpcurl.run(&[server.address(), "describe", ".chorale.v1.Verdict"], "").expect_code(0).stdout;
    assert!(message.contains("repeated .chorale.v1.GenreScore scores = 3;"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_checks_health_with_and_without_a_service() {
    let Some(grpcurl) = Grpcurl::find() else { return };
    let server = Server::start("up", &[]).await;
    let check = |request: &str| grpcurl.run(&["-d", "@", server.address(), "grpc.health.v1.Health/Check"], request);
    for request in ["{}", r#"{"service": "chorale.v1.ClassifierService"}"#] {
        let answer = check(request).expect_code(0);
        assert_eq!(parse(&answer.stdout), json!({"status": "SERVING"}), "{request}");
    }
    let unknown = check(r#"{"service": "no.such.Service"}"#);
    assert_ne!(unknown.code, Some(0));
    assert!(unknown.stderr.contains("NotFound"), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_classifies_a_file() {
    let Some(grpcurl) = Grpcurl::find() else { return };
    let server = Server::start("up", &[]).await;
    let request = json!({"audio": base64(&fixtures::clip()), "options": {"topK": 3}}).to_string();
    let method = "chorale.v1.ClassifierService/Classify";
    let answer = grpcurl.run(&["-d", "@", server.address(), method], &request).expect_code(0);
    let verdict = parse(&answer.stdout)["verdict"].clone();
    let streamed = server.client().await.classify(fixtures::clip()).await.unwrap();
    assert_eq!(verdict["genre"], streamed.genre);
    assert_eq!(verdict["scores"].as_array().unwrap().len(), 3);
    assert_eq!(verdict["chunkCount"], streamed.chunk_count);
    assert_eq!(verdict["modelVersion"], streamed.model_version);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_shows_the_model_and_the_limits() {
    let Some(grpcurl) = Grpcurl::find() else { return };
    let server = Server::start("up", &[]).await;
    let answer = grpcurl.run(&[server.address(), "chorale.v1.ClassifierService/GetModel"], "").expect_code(0);
    let answer = parse(&answer.stdout);
    let labels = ["blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"];
    assert_eq!(answer["model"]["labels"], json!(labels));
    for key in ["name", "version", "featureId", "architecture"] {
        assert!(answer["model"][key].as_str().is_some_and(|value| !value.is_empty()), "{key} in {answer}");
    }
    for key in [
        "maxAudioBytes",
        "maxMessageBytes",
        "maxDurationSeconds",
        "maxConcurrentStreams",
        "idleTimeout",
        "maxStreamsPerCaller",
        "minUploadRate",
    ] {
        assert!(!answer["limits"][key].is_null(), "{key} in {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_shows_what_is_wrong_with_a_file() {
    let Some(grpcurl) = Grpcurl::find() else { return };
    let server = Server::start("up", &[]).await;
    let request = json!({"audio": base64(b"This is not music, whatever anybody says.")}).to_string();
    let answer = grpcurl.run(&["-d", "@", server.address(), "chorale.v1.ClassifierService/Classify"], &request);
    assert_ne!(answer.code, Some(0));
    for part in ["InvalidArgument", "google.rpc.ErrorInfo", "AUDIO_UNSUPPORTED", "chorale.v1"] {
        assert!(answer.stderr.contains(part), "{part} is not in {}", answer.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_lists_its_own_service() {
    let Some(grpcurl) = Grpcurl::find() else { return };
    let inference = Server::start("inference", &[]).await;
    let feature = Server::start("feature", &["--inference", inference.endpoint()]).await;
    for (server, service) in [(&inference, "chorale.v1.InferenceService"), (&feature, "chorale.v1.FeatureService")] {
        let listed = grpcurl.run(&[server.address(), "list"], "").expect_code(0).stdout;
        assert!(listed.lines().any(|line| line == service), "{service} is not in {listed}");
    }
}
