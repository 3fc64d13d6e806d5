//! Clients of other servers: the public client of Triton, and grpcurl, against real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use chorale_model::Votes;
use chorale_proto::service_names::{INFERENCE, OPEN_INFERENCE};
use chorale_tests::{
    Server, command, fixtures,
    grpcurl::{Grpcurl, base64},
    health,
    triton::Triton,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic_health::pb::health_check_response::ServingStatus;

const MODEL: &str = "chorale-gtzan";

fn genre(name: &str) -> PathBuf {
    fixtures::genres().into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == name)).unwrap()
}

/// The chunks of a track, as `chorale features` writes them.
fn features(track: &Path, folder: &TempDir) -> PathBuf {
    let out = folder.path().join("mel.npy");
    command::run([Path::new("features"), track, Path::new("--out"), &out]).expect_code(0);
    out
}

fn status(answer: &Value) -> &str {
    answer["error"]["status"].as_str().unwrap_or_else(|| panic!("expected an error, found {answer}"))
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap_or_else(|| panic!("expected an error, found {answer}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-4, "{what}: expected {expected}, found {found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn triton_asks_inference_about_chunks() {
    let Some(triton) = Triton::find() else { return };
    let server = Server::start("inference", &[]).await;
    server.serving(INFERENCE).await;
    let channel = server.connect().await.unwrap();
    assert_eq!(health(channel, OPEN_INFERENCE).await, Ok(ServingStatus::Serving));

    let (track, folder) = (genre("reggae"), tempfile::tempdir().unwrap());
    let mel = json!({"name": "mel", "npy": features(&track, &folder)});
    let infer = |more: Value| {
        let mut step = json!({"do": "infer", "model": MODEL, "input": mel, "id": "7"});
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        step
    };
    let wrong_shape = json!({"name": "mel", "npy": mel["npy"], "rows": 1, "shape": [1, 96, 128]});
    let wrong_type = json!({"name": "mel", "npy": mel["npy"], "datatype": "FP32"});
    let wrong_name = json!({"name": "chunks", "npy": mel["npy"]});
    let answers = triton.run(
        server.address(),
        None,
        &[
            json!({"do": "live"}),
            json!({"do": "ready"}),
            json!({"do": "model_ready", "model": MODEL}),
            json!({"do": "model_ready", "model": "densenet"}),
            json!({"do": "server_metadata"}),
            json!({"do": "model_metadata", "model": MODEL}),
            infer(json!({})),
            infer(json!({"outputs": ["probabilities"], "classes": 2, "priority": 2, "timeout": 60_000_000})),
            infer(json!({"model": "densenet"})),
            infer(json!({"version": "7"})),
            infer(json!({"input": wrong_shape})),
            infer(json!({"input": wrong_type})),
            infer(json!({"input": wrong_name})),
            infer(json!({"parameters": {"feature_id": "another"}})),
            infer(json!({"parameters": {"temperature": 0.5}})),
            infer(json!({"outputs": ["logits"]})),
        ],
    );
    let [live, ready, model_ready, other_ready, server_metadata, metadata, whole, ranked, refused @ ..] = &answers[..]
    else {
        panic!("{answers:?}")
    };
    assert_eq!([live, ready, model_ready, other_ready], [&json!(true), &json!(true), &json!(true), &json!(false)]);
    assert_eq!(server_metadata["name"], "chorale");
    assert_eq!(metadata["inputs"][0]["shape"], json!(["-1", "128", "96"]));

    // What the chunks get is what the whole track's verdict is made of.
    let local = &command::run([Path::new("classify"), Path::new("--json"), &track]).expect_code(0).answers()[0];
    let labels: Vec<&str> =
        whole["outputs"]["labels"].as_array().unwrap().iter().map(|label| label.as_str().unwrap()).collect();
    let chunks: Vec<Vec<f64>> = whole["outputs"]["probabilities"].as_array().unwrap().iter().map(numbers).collect();
    assert_eq!((chunks.len(), labels.len()), (local.chunks as usize, 10));
    let mut votes = Votes::new(labels.len());
    for chunk in &chunks {
        votes.add(&chunk.iter().map(|&probability| probability as f32).collect::<Vec<_>>());
    }
    for (label, probability) in labels.iter().zip(votes.probabilities()) {
        assert_close(probability, local.probabilities[*label], label);
    }
    let genres: Vec<&str> =
        whole["outputs"]["genre"].as_array().unwrap().iter().map(|genre| genre.as_str().unwrap()).collect();
    for (genre, votes) in &local.votes {
        assert_eq!(genres.iter().filter(|winner| *winner == genre).count(), *votes as usize, "{genre}");
    }
    assert_eq!((&whole["version"], &whole["id"]), (&json!(local.model), &json!("7")));
    let first = ranked["outputs"]["probabilities"][0].as_str().unwrap();
    assert!(first.ends_with(&format!(":{}", genres[0])), "{first}");
    assert_eq!(ranked["outputs"].as_object().unwrap().len(), 1);

    let expected = [
        ("NOT_FOUND", MODEL),
        ("NOT_FOUND", &*local.model),
        ("INVALID_ARGUMENT", "[-1, 128, 96]"),
        ("INVALID_ARGUMENT", "UINT8"),
        ("INVALID_ARGUMENT", "`mel`"),
        ("FAILED_PRECONDITION", "another"),
        ("INVALID_ARGUMENT", "temperature"),
        ("INVALID_ARGUMENT", "`probabilities`"),
    ];
    assert_eq!(refused.len(), expected.len());
    for (refusal, (code, part)) in refused.iter().zip(expected) {
        assert_eq!(status(refusal), format!("StatusCode.{code}"));
        assert!(message(refusal).contains(part), "{part} is not in {}", message(refusal));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn triton_asks_a_gateway_about_files() {
    let Some(triton) = Triton::find() else { return };
    let server = Server::start("up", &[]).await;
    server.ready().await;
    let files = [genre("jazz"), genre("metal")];
    let broken = fixtures::broken("text.mp3");
    let step = |id: &str, files: &[&PathBuf]| {
        let input = json!({"name": "audio", "files": files});
        json!({"do": "infer", "model": "chorale", "id": id, "input": input})
    };
    let both = step("both", &[&files[0], &files[1]]);
    let stream = [step("a", &[&files[0]]), step("b", &[&broken]), step("c", &[&files[1]])];
    let [mut anew, mut short] = [step("anew", &[&files[0]]), step("short", &[&files[0]])];
    anew["parameters"] = json!({"bypass_cache": true, "content_type": "audio/mpeg"});
    short["outputs"] = json!(["genre"]);
    let answers = triton.run(
        server.address(),
        None,
        &[
            json!({"do": "ready"}),
            json!({"do": "model_metadata", "model": "chorale"}),
            both,
            json!({"do": "stream", "requests": stream}),
            anew,
            short,
            step("broken", &[&broken]),
        ],
    );
    let [ready, metadata, both, stream, anew, short, refused] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((ready, &metadata["platform"]), (&json!(true), &json!("chorale")));

    let client = server.client().await;
    for (row, file) in files.iter().enumerate() {
        let verdict = client.classify(fixtures::read(file)).await.unwrap();
        assert_eq!(both["outputs"]["genre"][row], verdict.genre);
        assert_close(both["outputs"]["confidence"][row].as_f64().unwrap(), verdict.confidence, "confidence");
        assert_eq!(both["version"], verdict.model_version);
        let labels = both["outputs"]["labels"].as_array().unwrap();
        for (label, found) in labels.iter().zip(numbers(&both["outputs"]["probabilities"][row])) {
            let score = verdict.scores.iter().find(|score| *label == score.genre).unwrap();
            assert_close(found, score.probability, &score.genre);
        }
        assert!(verdict.cached, "it was kept for all");
    }
    let genres = both["outputs"]["genre"].as_array().unwrap();
    let of_stream: Vec<&Value> =
        stream.as_array().unwrap().iter().map(|answer| &answer["outputs"]["genre"][0]).collect();
    assert_eq!(of_stream, [&genres[0], &Value::Null, &genres[1]]);
    // By these a caller tells the answers of a stream apart.
    assert_eq!([&both["id"], &stream[0]["id"], &stream[2]["id"]], [&json!("both"), &json!("a"), &json!("c")]);
    assert_eq!(message(&stream[1]), message(refused));
    assert_eq!((&anew["outputs"]["genre"][0], &short["outputs"]), (&genres[0], &json!({"genre": [genres[0]]})));
    assert_eq!(status(refused), "StatusCode.INVALID_ARGUMENT");
    assert!(server.metrics().contains("chorale_gateway_calls_total{rpc=\"Classify\",code=\"AUDIO_UNSUPPORTED\"} 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_learns_that_the_server_lives_and_no_more() {
    let Some(triton) = Triton::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let callers = folder.path().join("callers.toml");
    std::fs::write(&callers, format!("[studio]\ntoken_blake3 = '{}'\n", blake3::hash(b"sesame"))).unwrap();
    let callers = callers.to_str().unwrap();
    let server = Server::start_with("up", &[], &[("CHORALE_GATEWAY__AUTH__CALLERS_FILE", callers)]).await;
    server.ready().await;
    let infer = json!({"do": "infer", "model": "chorale", "input": {"name": "audio", "files": [genre("pop")]}});
    let steps = [
        json!({"do": "live"}),
        json!({"do": "model_metadata", "model": "chorale"}),
        infer.clone(),
        json!({"do": "stream", "requests": [infer]}),
    ];
    let strange = triton.run(server.address(), None, &steps);
    assert_eq!(strange[0], json!(true));
    for refused in [&strange[1], &strange[2], &strange[3][0]] {
        assert_eq!(status(refused), "StatusCode.UNAUTHENTICATED");
    }
    let known = triton.run(server.address(), Some("sesame"), &steps);
    assert_eq!(known[2]["outputs"]["genre"], known[3][0]["outputs"]["genre"]);
    assert!(known[2]["outputs"]["genre"][0].is_string(), "{known:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_finds_and_speaks_the_protocol() {
    let Some(grpcurl) = Grpcurl::find() else { return };
    let server = Server::start("up", &[]).await;
    server.ready().await;
    let listed = grpcurl.run(&[server.address(), "list"], "").expect_code(0).stdout;
    assert!(listed.lines().any(|line| line == OPEN_INFERENCE), "{listed}");
    let request = json!({
        "modelName": "chorale",
        "inputs": [{"name": "audio", "datatype": "BYTES", "shape": [1],
                    "contents": {"bytesContents": [base64(&fixtures::clip())]}}],
        "outputs": [{"name": "genre"}, {"name": "confidence"}],
    });
    let infer = format!("{OPEN_INFERENCE}/ModelInfer");
    let answer = grpcurl.run(&["-d", "@", server.address(), &infer], &request.to_string()).expect_code(0);
    let answer: Value = serde_json::from_str(&answer.stdout).unwrap();
    let verdict = server.client().await.classify(fixtures::clip()).await.unwrap();
    let genre = &answer["outputs"][0]["contents"]["bytesContents"][0];
    assert_eq!(*genre, base64(verdict.genre.as_bytes()), "typed, as the request was");
    assert_eq!(answer["outputs"].as_array().unwrap().len(), 2);

    let unknown = grpcurl.run(&["-d", r#"{"modelName": "x"}"#, server.address(), &infer], "");
    assert_ne!(unknown.code, Some(0));
    for part in ["NotFound", "google.rpc.ErrorInfo", "MODEL_UNKNOWN"] {
        assert!(unknown.stderr.contains(part), "{part} is not in {}", unknown.stderr);
    }
}
