//! The role over loopback, with the network that is part of the binary.
//!
//! Where answers are compared the model has a head of these tests, so that different chunks surely get different ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use chorale_inference::{InferenceConfig, InferenceError, start};
use chorale_model::{
    Array, Classifier, DeviceSpec, EMBEDDING_FEATURES, ModelFolder,
    contract::{CHUNK_CELLS, feature_id},
};
use chorale_proto::{
    service_names::INFERENCE,
    v1::{
        DescribeInferenceRequest, InferRequest, InferResponse, ServedModel, infer_response::Result as Outcome,
        inference_service_client::InferenceServiceClient,
    },
};
use chorale_runtime::{process::Process, server::RunningRole, shutdown::ShutdownConfig};
use futures::future::join_all;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Streaming, transport::Channel};

type Client = InferenceServiceClient<Channel>;

fn config() -> InferenceConfig {
    InferenceConfig { listen: ([127, 0, 0, 1], 0).into(), ..InferenceConfig::default() }
}

async fn started(config: InferenceConfig) -> (RunningRole, Client, Process) {
    let process = Process::default();
    let role = start(config, &process).await.unwrap();
    let client = Client::connect(format!("http://{}", role.address())).await.unwrap();
    (role, client, process)
}

/// A chunk that is like no other, the same every time: noise over a slope that depends on `seed`.
fn chunk(seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let cells = (0..CHUNK_CELLS).map(|cell| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let slope = (cell as u64 / 96) * (seed % 3);
        (((state >> 57) + 60 + seed % 60).saturating_sub(slope / 2)).min(255) as u8
    });
    cells.collect()
}

/// The model of the binary with a head of pseudo-random weights, which tells any two chunks apart.
fn telling_model() -> ModelFolder {
    let embedded = ModelFolder::embedded().unwrap();
    let labels = embedded.manifest().labels.len();
    // Small weights: a sure answer would be the same for many chunks.
    let cells = (0..).flat_map(chunk).map(|cell| (f32::from(cell) / 255.0 - 0.5) / 10.0);
    let head = Array::new(&[labels, EMBEDDING_FEATURES], cells.take(labels * EMBEDDING_FEATURES).collect()).unwrap();
    let mut weights = embedded.weights().clone();
    weights.insert("member.0.genres.weight", head);
    ModelFolder::new(embedded.manifest().clone(), weights, String::new()).unwrap()
}

/// A model in a folder of its own, which is removed at the end.
fn saved(model: &ModelFolder) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path()).unwrap();
    folder
}

/// What the network says of the chunks of `seeds`, each in a batch of its own; no two say the same.
fn expected(model: &ModelFolder, seeds: u64) -> Vec<Vec<f32>> {
    let direct = Classifier::load(model, DeviceSpec::Cpu).unwrap();
    let expected: Vec<_> = (0..seeds).map(|seed| direct.classify(&[&chunk(seed)]).unwrap().remove(0)).collect();
    for (seed, one) in expected.iter().enumerate() {
        for other in &expected[..seed] {
            let difference = one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
            assert!(difference > 1e-4, "chunk {seed} gets the answer of another one");
        }
    }
    expected
}

fn request(tag: u64, seed: u64) -> InferRequest {
    InferRequest { tag, mel: chunk(seed), feature_id: feature_id().to_owned(), ..InferRequest::default() }
}

async fn stream(client: &Client) -> (UnboundedSender<InferRequest>, Streaming<InferResponse>) {
    let (sender, requests) = unbounded_channel();
    let responses = client.clone().infer(UnboundedReceiverStream::new(requests)).await.unwrap().into_inner();
    (sender, responses)
}

/// Sends everything over one stream, and returns the answers by tag.
async fn classify(client: &Client, requests: Vec<InferRequest>) -> HashMap<u64, Outcome> {
    let count = requests.len();
    let (sender, mut responses) = stream(client).await;
    for request in requests {
        sender.send(request).unwrap();
    }
    drop(sender);
    let mut answers = HashMap::new();
    while let Some(response) = responses.message().await.unwrap() {
        assert!(answers.insert(response.tag, response.result.unwrap()).is_none(), "tag {} twice", response.tag);
    }
    assert_eq!(answers.len(), count);
    answers
}

fn probabilities(outcome: &Outcome) -> &[f32] {
    match outcome {
        Outcome::Prediction(prediction) => &prediction.probabilities,
        Outcome::Error(error) => panic!("expected a prediction, found {error:?}"),
    }
}

fn reasons<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for outcome in outcomes {
        let reason = match outcome {
            Outcome::Prediction(_) => "OK",
            Outcome::Error(error) => error.reason.as_str(),
        };
        *counts.entry(reason).or_default() += 1;
    }
    counts
}

fn metric(process: &Process, series: &str) -> f64 {
    let text = process.metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5, "{what}: expected {expected}, found {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_gets_the_same_probabilities_whatever_batch_it_lands_in() {
    const CHUNKS: u64 = 21;
    let model = telling_model();
    let (folder, expected) = (saved(&model), expected(&model, CHUNKS));
    for max_batch in [1, 4, 32] {
        let (_role, client, process) = started(InferenceConfig {
            model: Some(folder.path().to_owned()),
            max_batch,
            max_queue_delay: Some(Duration::from_millis(200)),
            ..config()
        })
        .await;
        let answers = classify(&client, (0..CHUNKS).map(|seed| request(1_000 + seed, seed)).collect()).await;
        for seed in 0..CHUNKS {
            let found = probabilities(&answers[&(1_000 + seed)]);
            assert_close(found, &expected[seed as usize], &format!("chunk {seed} in batches of up to {max_batch}"));
        }
        let batches = metric(&process, "chorale_inference_batch_size_chunks_count");
        assert!(batches >= (CHUNKS as f64 / max_batch as f64).ceil() && batches <= CHUNKS as f64, "{batches} batches");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_gets_its_embedding_if_it_asks_whatever_batch_it_lands_in() {
    const CHUNKS: u64 = 9;
    let direct = Classifier::load(&ModelFolder::embedded().unwrap(), DeviceSpec::Cpu).unwrap();
    for max_batch in [1, 4] {
        let (_role, client, _process) =
            started(InferenceConfig { max_batch, max_queue_delay: Some(Duration::from_millis(200)), ..config() }).await;
        let wanted = |tag| tag % 3 == 0;
        let request = |tag| InferRequest { want_embedding: wanted(tag), ..request(tag, tag) };
        let answers = classify(&client, (0..CHUNKS).map(request).collect()).await;
        for tag in 0..CHUNKS {
            let expected = direct.answers(&[&chunk(tag)], true).unwrap().remove(0);
            let Outcome::Prediction(prediction) = &answers[&tag] else { panic!("{:?}", answers[&tag]) };
            let what = format!("chunk {tag} in batches of up to {max_batch}");
            assert_close(&prediction.probabilities, &expected.probabilities, &what);
            assert_close(&prediction.embedding, if wanted(tag) { &expected.embedding } else { &[] }, &what);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_chunks_on_many_streams_come_back_each_to_its_own() {
    const STREAMS: u64 = 25;
    const CHUNKS_EACH: u64 = 40;
    const DIFFERENT: u64 = 16;
    let model = telling_model();
    let (folder, expected) = (saved(&model), expected(&model, DIFFERENT));
    let (role, client, process) = started(InferenceConfig { model: Some(folder.path().to_owned()), ..config() }).await;

    let answers = join_all((0..STREAMS).map(|stream| {
        let requests = (0..CHUNKS_EACH).map(|tag| request(tag, (stream + tag) % DIFFERENT)).collect();
        classify(&client, requests)
    }))
    .await;
    for (stream, answers) in (0..).zip(&answers) {
        for (tag, outcome) in answers {
            let seed = (stream + tag) % DIFFERENT;
            let what = format!("chunk {tag} of stream {stream}");
            assert_close(probabilities(outcome), &expected[seed as usize], &what);
        }
    }

    assert_eq!(metric(&process, "chorale_inference_chunks_total{result=\"OK\"}"), 1_000.0);
    assert!(metric(&process, "chorale_inference_batches_total{release=\"full\"}") > 0.0);
    assert_eq!(metric(&process, "chorale_inference_queue_depth_chunks"), 0.0);
    role.drain(&ShutdownConfig::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_what_was_accepted_ends_the_stream_and_closes_the_port() {
    let (role, client, process) = started(InferenceConfig { max_batch: 4, ..config() }).await;
    let address = role.address();
    let (sender, mut responses) = stream(&client).await;
    for tag in 0..40 {
        sender.send(request(tag, tag)).unwrap();
    }
    let first = responses.message().await.unwrap().unwrap();
    assert!(process.readiness.snapshot()[INFERENCE]);

    let drained = tokio::spawn(async move { role.drain(&ShutdownConfig::default()).await });
    let mut answered = vec![first];
    while let Some(response) = responses.message().await.unwrap() {
        answered.push(response);
    }
    drained.await.unwrap();
    assert!(answered.len() > 4, "chunks beyond the first batch were accepted");
    assert!(!process.readiness.snapshot()[INFERENCE]);
    for response in &answered {
        probabilities(response.result.as_ref().unwrap());
    }
    assert_eq!(metric(&process, "chorale_inference_chunks_total{result=\"OK\"}"), answered.len() as f64);
    assert_eq!(metric(&process, "chorale_inference_chunks_total{result=\"CANCELLED\"}"), 0.0);
    assert!(Client::connect(format!("http://{address}")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_whose_time_is_up_is_not_computed() {
    // However fast the device is, the chunk after a full batch waits for others.
    let max_queue_delay = Some(Duration::from_millis(500));
    let (_role, client, process) = started(InferenceConfig { max_batch: 16, max_queue_delay, ..config() }).await;
    let mut requests: Vec<InferRequest> = (0..16).map(|tag| request(tag, tag)).collect();
    requests.push(InferRequest { timeout_millis: 1, ..request(16, 16) });
    let answers = classify(&client, requests).await;
    assert_eq!(reasons(answers.values()), BTreeMap::from([("DEADLINE_EXCEEDED", 1), ("OK", 16)]));
    assert_eq!(reasons([&answers[&16]]).into_keys().next(), Some("DEADLINE_EXCEEDED"));
    assert_eq!(metric(&process, "chorale_inference_batch_size_chunks_sum"), 16.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_chunks_at_once_and_answers_the_others() {
    let (_role, client, _process) = started(InferenceConfig { max_batch: 4, queue_capacity: 4, ..config() }).await;
    let streams = join_all((0..8).map(|_| classify(&client, (0..8).map(|tag| request(tag, tag)).collect()))).await;
    let counts = reasons(streams.iter().flat_map(HashMap::values));
    assert!(counts["OVERLOADED"] > 0 && counts["OK"] > 0 && counts.len() == 2, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chunks_of_a_client_that_went_away_are_not_computed() {
    let (_role, client, process) = started(InferenceConfig { max_batch: 2, ..config() }).await;
    let (sender, mut responses) = stream(&client).await;
    for tag in 0..400 {
        sender.send(request(tag, tag % 4)).unwrap();
    }
    responses.message().await.unwrap().unwrap();
    drop((sender, responses));

    probabilities(&classify(&client, vec![request(7, 7)]).await[&7]);
    let computed = metric(&process, "chorale_inference_batch_size_chunks_sum");
    assert!(computed < 300.0, "{computed} chunks were computed");
    assert!(metric(&process, "chorale_inference_chunks_total{result=\"CANCELLED\"}") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_describes_its_model_and_its_devices() {
    let (role, mut client, process) = started(config()).await;
    role.ready().await;
    let description = client.describe_inference(DescribeInferenceRequest {}).await.unwrap().into_inner();
    let model = description.model.unwrap();
    let served = ServedModel { model: Some(model.clone()), weight: 1 };
    assert_eq!(description.models, [served]);
    let series = format!("chorale_inference_model_info{{name=\"{}\",version=\"{}\"}}", model.name, model.version);
    assert_eq!(metric(&process, &series), 1.0);
    let embedded = ModelFolder::embedded().unwrap();
    assert_eq!(model.version, embedded.manifest().version);
    assert_eq!(model.labels, embedded.manifest().labels);
    assert_eq!(model.feature_id, feature_id());
    assert_eq!(description.devices, ["cpu"]);
    assert_eq!(description.max_batch, 32);
    assert_eq!(metric(&process, "chorale_inference_serving_devices"), 1.0);
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let process = Process::default();
    let wrong = start(InferenceConfig { max_batch: 0, ..config() }, &process).await.unwrap_err();
    assert!(matches!(wrong, InferenceError::Config { key: "max_batch", .. }), "{wrong}");

    let folder = PathBuf::from("no/such/model");
    let missing = start(InferenceConfig { model: Some(folder), ..config() }, &process).await.unwrap_err();
    assert!(missing.to_string().contains("no/such/model"), "{missing}");

    let folder = tempfile::tempdir().unwrap();
    let config_of_folder = || InferenceConfig { models: Some(folder.path().to_owned()), ..config() };
    let nothing = start(config_of_folder(), &process).await.unwrap_err().to_string();
    assert!(nothing.contains("serving.toml") && nothing.contains("for example"), "{nothing}");
    std::fs::write(folder.path().join("serving.toml"), "serve = [{ model = \"v1\" }]").unwrap();
    let missing = start(config_of_folder(), &process).await.unwrap_err().to_string();
    assert!(missing.contains("model `v1`"), "{missing}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let error = start(InferenceConfig { listen, ..config() }, &process).await.unwrap_err();
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
    assert!(!process.readiness.snapshot()[INFERENCE]);
}
