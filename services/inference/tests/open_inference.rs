//! The Open Inference Protocol over loopback, with the network that is part of the binary.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::time::Duration;

use bytes::Bytes;
use chorale_inference::{InferenceConfig, start};
use chorale_model::{
    Classifier, DeviceSpec, ModelFolder,
    contract::{CHUNK_CELLS, feature_id},
};
use chorale_proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelReadyRequest, ServerMetadataRequest, ServerReadyRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use chorale_runtime::{
    failure::{Failure, Reason},
    process::Process,
    server::RunningRole,
    shutdown::ShutdownConfig,
};
use futures::{future::join_all, stream};
use tonic::{Code, Request, Status, transport::Channel};

type Client = GrpcInferenceServiceClient<Channel>;

const MODEL: &str = "chorale-gtzan";

fn config() -> InferenceConfig {
    InferenceConfig { listen: ([127, 0, 0, 1], 0).into(), ..InferenceConfig::default() }
}

async fn started(config: InferenceConfig) -> (RunningRole, Client, Process) {
    let process = Process::default();
    let role = start(config, &process).await.unwrap();
    let client = Client::connect(format!("http://{}", role.address())).await.unwrap();
    (role, client, process)
}

/// Chunks of noise over slopes, no two of which are alike.
fn mel(chunks: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let cells = (0..chunks * CHUNK_CELLS).map(|cell| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (chunk, band) = (cell / CHUNK_CELLS, cell % CHUNK_CELLS / 96);
        let level = 60 + 7 * (chunk % 9) + (state >> 57) as usize;
        level.saturating_sub(band * (chunk % 4) / 3).min(255) as u8
    });
    cells.collect()
}

fn raw(mel: Bytes) -> ModelInferRequest {
    let chunks = i64::try_from(mel.len() / CHUNK_CELLS).unwrap();
    let input = InferInputTensor {
        name: "mel".to_owned(),
        datatype: "UINT8".to_owned(),
        shape: vec![chunks, 128, 96],
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: MODEL.to_owned(),
        id: "seven".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![mel],
        ..ModelInferRequest::default()
    }
}

fn with(request: ModelInferRequest, name: &str, value: ParameterChoice) -> ModelInferRequest {
    let mut request = request;
    request.parameters.insert(name.to_owned(), InferParameter { parameter_choice: Some(value) });
    request
}

fn text(text: &str) -> ParameterChoice {
    ParameterChoice::StringParam(text.to_owned())
}

async fn infer(client: &Client, request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
    client.clone().model_infer(request).await.map(tonic::Response::into_inner)
}

async fn refused(client: &Client, request: ModelInferRequest) -> (Code, Failure) {
    let status = infer(client, request).await.unwrap_err();
    (status.code(), Failure::from_status(&status))
}

/// The rows of the output `probabilities`.
fn probabilities(response: &ModelInferResponse) -> Vec<Vec<f32>> {
    let index = response.outputs.iter().position(|output| output.name == "probabilities").unwrap();
    let columns = usize::try_from(response.outputs[index].shape[1]).unwrap();
    let numbers: Vec<f32> = match response.outputs[index].contents.as_ref() {
        Some(contents) => contents.fp32_contents.clone(),
        None => response.raw_output_contents[index]
            .chunks(4)
            .map(|number| f32::from_le_bytes(number.try_into().unwrap()))
            .collect(),
    };
    numbers.chunks(columns).map(<[f32]>::to_vec).collect()
}

fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = found.iter().zip(expected).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-5 && found.len() == expected.len(), "chunk {index}: {found:?}, not {expected:?}");
    }
}

fn metric(process: &Process, series: &str) -> f64 {
    let text = process.metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_get_what_the_network_says_of_each_in_their_order() {
    const CHUNKS: usize = 70;
    let folder = ModelFolder::embedded().unwrap();
    let direct = Classifier::load(&folder, DeviceSpec::Cpu).unwrap();
    let mel = mel(CHUNKS);
    let expected: Vec<_> = mel.chunks(CHUNK_CELLS).map(|chunk| direct.classify(&[chunk]).unwrap().remove(0)).collect();

    let (_role, client, process) = started(config()).await;
    let answer = infer(&client, raw(mel.clone())).await.unwrap();
    assert_close(&probabilities(&answer), &expected);
    let manifest = folder.manifest();
    assert_eq!((&*answer.model_name, &answer.model_version, &*answer.id), (MODEL, &manifest.version, "seven"));
    assert_eq!(answer.raw_output_contents.len(), 3, "an answer is binary as its request was");
    assert_eq!(answer.outputs[0].shape, [70]);

    // The same in numbers, of some of the chunks, with the most probable genres.
    let few = mel.slice(..3 * CHUNK_CELLS);
    let mut typed = raw(few.clone());
    typed.raw_input_contents.clear();
    let uint_contents = few.iter().copied().map(u32::from).collect();
    typed.inputs[0].contents = Some(InferTensorContents { uint_contents, ..InferTensorContents::default() });
    let numbers = infer(&client, typed.clone()).await.unwrap();
    assert_close(&probabilities(&numbers), &expected[..3]);
    let texts = |response: &ModelInferResponse, index: usize| -> Vec<String> {
        let contents = response.outputs[index].contents.as_ref().unwrap();
        contents.bytes_contents.iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    };
    assert_eq!(texts(&numbers, 2), manifest.labels);
    let genres = texts(&numbers, 0);
    let parameters =
        [("classification".to_owned(), InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(1)) })];
    typed.outputs =
        vec![InferRequestedOutputTensor { name: "probabilities".to_owned(), parameters: parameters.into() }];
    let first = infer(&client, typed).await.unwrap();
    let ranked = texts(&first, 0);
    assert!(
        ranked.iter().zip(&genres).all(|(text, genre)| text.ends_with(&format!(":{genre}"))),
        "{ranked:?} {genres:?}"
    );
    assert_eq!(first.outputs.len(), 1, "what was not asked for is not sent");
    assert_eq!(metric(&process, "chorale_inference_chunks_total{result=\"OK\"}"), 76.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_it_serves() {
    let (_role, mut client, _process) = started(config()).await;
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let server = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert!(server.name == "chorale" && server.extensions.contains(&"binary_tensor_data".to_owned()), "{server:?}");
    let version = ModelFolder::embedded().unwrap().manifest().version.clone();
    for (name, version, ready) in [(MODEL, "", true), (MODEL, &*version, true), (MODEL, "7", false), ("x", "", false)] {
        let (name, version) = (name.to_owned(), version.to_owned());
        let asked = ModelReadyRequest { name: name.clone(), version: version.clone() };
        assert_eq!(client.model_ready(asked).await.unwrap().into_inner().ready, ready, "{name} {version}");
        let metadata = client.model_metadata(ModelMetadataRequest { name, version }).await;
        assert_eq!(metadata.is_ok(), ready);
        assert!(metadata.err().is_none_or(|status| status.code() == Code::NotFound));
    }
    let metadata = ModelMetadataRequest { name: MODEL.to_owned(), version: String::new() };
    let metadata = client.model_metadata(metadata).await.unwrap().into_inner();
    assert_eq!((metadata.versions, &metadata.inputs[0].shape), (vec![version], &vec![-1, 128, 96]));
    let outputs: Vec<_> = metadata.outputs.iter().map(|output| (&*output.name, &*output.datatype)).collect();
    assert_eq!(outputs, [("genre", "BYTES"), ("probabilities", "FP32"), ("labels", "BYTES")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_says_what_was_expected() {
    let (_role, client, _process) = started(config()).await;
    let good = || raw(mel(1));
    let (code, failure) = refused(&client, ModelInferRequest { model_name: "other".to_owned(), ..good() }).await;
    assert!(code == Code::NotFound && failure.reason == Reason::ModelUnknown, "{failure:?}");
    assert!(failure.message.contains(MODEL), "{failure}");
    let (code, _) = refused(&client, ModelInferRequest { model_version: "7".to_owned(), ..good() }).await;
    assert_eq!(code, Code::NotFound);

    assert!(infer(&client, with(good(), "feature_id", text(feature_id()))).await.is_ok());
    let (code, failure) = refused(&client, with(good(), "feature_id", text("another"))).await;
    assert_eq!((code, failure.reason), (Code::FailedPrecondition, Reason::FeatureMismatch));

    let mut flat = good();
    flat.inputs[0].shape = vec![1, 128 * 96];
    let (code, failure) = refused(&client, flat).await;
    assert_eq!((code, failure.field.as_deref()), (Code::InvalidArgument, Some("inputs.shape")));
    assert!(failure.message.contains("[-1, 128, 96]"), "{failure}");

    let (code, failure) = refused(&client, raw(mel(257))).await;
    assert_eq!((code, failure.reason), (Code::ResourceExhausted, Reason::LimitExceeded));
    assert_eq!(failure.metadata["limit"], "max_chunks_per_request");
    let (code, failure) = refused(&client, raw(mel(1_000))).await;
    assert_eq!((code, &*failure.metadata["limit"]), (Code::ResourceExhausted, "max_message_bytes"));
    let tensors = ModelInferRequest { inputs: vec![InferInputTensor::default(); 100_000], ..good() };
    let (code, failure) = refused(&client, tensors).await;
    assert!(code == Code::InvalidArgument && failure.message.contains("4096 fields"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_after_a_request_that_fails() {
    let (_role, mut client, _process) = started(config()).await;
    let request = |id: &str, chunks, model: &str| ModelInferRequest {
        id: id.to_owned(),
        model_name: model.to_owned(),
        ..raw(mel(chunks))
    };
    let requests = [request("a", 40, MODEL), request("b", 1, "other"), request("c", 1, MODEL)];
    let mut answers = client.model_stream_infer(stream::iter(requests)).await.unwrap().into_inner();
    for (id, chunks) in [("a", 40), ("b", 0), ("c", 1)] {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.error_message.is_empty(), chunks > 0, "{}", answer.error_message);
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, id);
        assert!(response.outputs.first().is_none_or(|output| output.shape == [chunks]));
    }
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_wait_as_those_of_a_stream_do() {
    // However fast the device is, a chunk that does not fill a batch waits for others.
    let max_queue_delay = Some(Duration::from_millis(500));
    let (_role, client, process) = started(InferenceConfig { max_batch: 16, max_queue_delay, ..config() }).await;
    let (code, _) = refused(&client, with(raw(mel(1)), "timeout", ParameterChoice::Int64Param(1))).await;
    assert_eq!(code, Code::DeadlineExceeded);
    let mut request = Request::new(raw(mel(1)));
    request.metadata_mut().insert("grpc-timeout", "60S".parse().unwrap());
    assert!(client.clone().model_infer(request).await.is_ok());
    infer(&client, with(raw(mel(48)), "priority", text("bulk"))).await.unwrap();
    assert_eq!(metric(&process, "chorale_inference_queue_wait_seconds_count{priority=\"bulk\"}"), 48.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_a_request_and_says_when_to_come_back() {
    let (_role, client, _process) = started(InferenceConfig { max_batch: 4, queue_capacity: 4, ..config() }).await;
    for priority in ["bulk", "interactive"] {
        let alone = infer(&client, with(raw(mel(20)), "priority", text(priority))).await;
        assert!(alone.is_ok(), "on its own, a request takes no more of the queue than it may: {alone:?}");
    }
    let answers = join_all((0..8).map(|_| infer(&client, raw(mel(20))))).await;
    let refused: Vec<Failure> =
        answers.iter().filter_map(|answer| answer.as_ref().err()).map(Failure::from_status).collect();
    assert!(!refused.is_empty() && refused.len() < 8, "{} of 8 were refused", refused.len());
    for failure in refused {
        assert!(failure.reason == Reason::Overloaded && failure.retry_after.is_some(), "{failure:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chunks_of_a_caller_that_went_away_are_not_computed() {
    let (_role, client, process) = started(InferenceConfig { max_batch: 2, ..config() }).await;
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { infer(&client, raw(mel(250))).await })
        })
        .collect();
    while metric(&process, "chorale_inference_batch_size_chunks_count") < 1.0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    infer(&client, raw(mel(1))).await.unwrap();
    let computed = metric(&process, "chorale_inference_batch_size_chunks_sum");
    assert!(computed < 900.0, "{computed} chunks were computed");
    assert!(metric(&process, "chorale_inference_chunks_total{result=\"CANCELLED\"}") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_the_requests_that_were_accepted() {
    let (role, client, process) = started(InferenceConfig { max_batch: 2, ..config() }).await;
    let call = tokio::spawn(async move { infer(&client, raw(mel(120))).await });
    while metric(&process, "chorale_inference_batch_size_chunks_count") < 1.0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    role.drain(&ShutdownConfig::default()).await;
    assert_eq!(probabilities(&call.await.unwrap().unwrap()).len(), 120);
}
