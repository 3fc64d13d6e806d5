//! The Open Inference Protocol: whole files, each of which is a call like any other.

use std::time::Duration;

use bytes::Bytes;
use chorale_proto::{
    inference::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
        ServerReadyRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    },
    v1::ClassifyOptions,
};
use chorale_runtime::failure::{Failure, Reason};
use futures::stream;
use tonic::{Code, Response, Status, transport::Channel};

use crate::{
    cluster::Cluster,
    feature::{FakeFeature, LABELS, Script, audio},
};

type Client = GrpcInferenceServiceClient<Channel>;

async fn client(cluster: &Cluster) -> Client {
    Client::connect(format!("http://{}", cluster.gateway.address())).await.unwrap()
}

/// A request whose files are won by these labels each.
fn request(files: &[&[u8]]) -> ModelInferRequest {
    let bytes_contents = files.iter().map(|winners| Bytes::from(audio(winners))).collect();
    let input = InferInputTensor {
        name: "audio".to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![i64::try_from(files.len()).unwrap()],
        contents: Some(InferTensorContents { bytes_contents, ..InferTensorContents::default() }),
        ..InferInputTensor::default()
    };
    ModelInferRequest { model_name: "chorale".to_owned(), inputs: vec![input], ..ModelInferRequest::default() }
}

async fn infer(client: &Client, request: ModelInferRequest) -> Result<Response<ModelInferResponse>, Status> {
    client.clone().model_infer(request).await
}

async fn refused(client: &Client, request: ModelInferRequest) -> (Code, Failure) {
    let status = infer(client, request).await.unwrap_err();
    (status.code(), Failure::from_status(&status))
}

fn contents<'a>(response: &'a ModelInferResponse, name: &str) -> &'a InferTensorContents {
    let output = response.outputs.iter().find(|output| output.name == name).unwrap();
    output.contents.as_ref().unwrap()
}

fn genres(response: &ModelInferResponse) -> Vec<&[u8]> {
    contents(response, "genre").bytes_contents.iter().map(AsRef::as_ref).collect()
}

#[tokio::test]
async fn a_file_gets_the_verdict_of_classify_and_the_cache_knows_it() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let client = client(&cluster).await;
    let verdict = cluster.classify(ClassifyOptions::default(), &audio(&[2, 2, 0])).await.unwrap();
    let completed = feature.completed();

    let response = infer(&client, request(&[&[2, 2, 0]])).await.unwrap();
    assert_eq!(response.metadata().get("x-request-id").unwrap().len(), 32);
    let response = response.into_inner();
    assert_eq!(feature.completed(), completed, "what classify was told is known");
    assert_eq!((response.model_name.as_str(), response.model_version), ("chorale", verdict.model_version));
    let response = infer(&client, request(&[&[2, 2, 0]])).await.unwrap().into_inner();
    assert_eq!(genres(&response), [verdict.genre.as_bytes()]);
    assert_eq!(contents(&response, "confidence").fp32_contents, [verdict.confidence as f32]);
    assert_eq!(contents(&response, "labels").bytes_contents, LABELS);
    for (label, found) in LABELS.iter().zip(&contents(&response, "probabilities").fp32_contents) {
        let score = verdict.scores.iter().find(|score| score.genre == *label).unwrap();
        assert_eq!(*found, score.probability as f32);
    }
}

#[tokio::test]
async fn the_files_of_a_request_are_calls_of_their_own_and_answered_in_order() {
    let feature = FakeFeature::start_with(Script {
        served: vec![("v1".to_owned(), 1), ("v2".to_owned(), 1)],
        ..Script::default()
    });
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let client = client(&cluster).await;
    let winners: Vec<Vec<u8>> = (0..9_u8).map(|file| vec![file % 3; 1 + usize::from(file)]).collect();
    let files: Vec<&[u8]> = winners.iter().map(Vec::as_slice).collect();
    let response = infer(&client, request(&files)).await.unwrap();
    assert_eq!(response.metadata().get_all("x-request-id").iter().count(), 9);
    let response = response.into_inner();
    let expected: Vec<&[u8]> = winners.iter().map(|file| LABELS[usize::from(file[0])].as_bytes()).collect();
    assert_eq!(genres(&response), expected);
    assert_eq!(cluster.metric("chorale_gateway_calls_total{rpc=\"Classify\",code=\"OK\"}"), 9);
    let version = format!("chorale_gateway_model_verdicts_total{{version=\"{}\"}}", response.model_version);
    assert_eq!(cluster.metric(&version), 9, "one version answers for all");

    let pinned = ModelInferRequest { model_version: "v1".to_owned(), ..request(&files) };
    assert_eq!(infer(&client, pinned).await.unwrap().into_inner().model_version, "v1");
}

#[tokio::test]
async fn what_cannot_be_answered_has_the_code_of_the_protocol_and_our_details() {
    let feature = FakeFeature::start();
    let cluster =
        Cluster::start(&[&feature], |config| config.limits.max_message_bytes = bytesize::ByteSize::kib(64)).await;
    let mut client = client(&cluster).await;
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    for wrong in [
        ModelInferRequest { model_name: "gtzan".to_owned(), ..request(&[&[0]]) },
        ModelInferRequest { model_version: "v9".to_owned(), ..request(&[&[0]]) },
    ] {
        let (code, failure) = refused(&client, wrong).await;
        assert_eq!((code, failure.reason), (Code::NotFound, Reason::ModelUnknown));
        assert!(failure.message.contains("v1"), "{failure}");
    }
    let unknown = ModelMetadataRequest { name: "gtzan".to_owned(), version: String::new() };
    assert_eq!(client.model_metadata(unknown).await.unwrap_err().code(), Code::NotFound);

    let (code, failure) = refused(&client, request(&[&[0], &[]])).await;
    assert_eq!((code, failure.reason), (Code::InvalidArgument, Reason::AudioEmpty));
    let many = vec![&[0][..]; 17];
    let (code, failure) = refused(&client, request(&many)).await;
    assert_eq!((code, &*failure.metadata["limit"]), (Code::ResourceExhausted, "max_files_per_request"));
    assert_eq!(cluster.metric("chorale_gateway_limits_hit_total{limit=\"max_files_per_request\"}"), 1);
    let (code, failure) = refused(&client, request(&[&[0; 70]])).await;
    assert_eq!((code, &*failure.metadata["limit"]), (Code::ResourceExhausted, "max_message_bytes"));
    let mut parameter = request(&[&[0]]);
    let value = InferParameter { parameter_choice: Some(ParameterChoice::DoubleParam(0.7)) };
    parameter.parameters.insert("early_error_rate".to_owned(), value);
    let (code, failure) = refused(&client, parameter).await;
    assert_eq!((code, failure.reason), (Code::InvalidArgument, Reason::RequestInvalid));
}

#[tokio::test]
async fn a_stream_answers_in_order_and_goes_on_after_a_failure() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let named = |id: &str, request: ModelInferRequest| ModelInferRequest { id: id.to_owned(), ..request };
    let requests = [named("a", request(&[&[0; 20]])), named("b", request(&[&[]])), named("c", request(&[&[1]]))];
    let answers = client(&cluster).await.model_stream_infer(stream::iter(requests)).await.unwrap();
    let mut answers = answers.into_inner();
    for (id, genre) in [("a", Some("jazz")), ("b", None), ("c", Some("pop"))] {
        let answer = answers.message().await.unwrap().unwrap();
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, id);
        match genre {
            Some(genre) => assert_eq!(genres(&response), [genre.as_bytes()]),
            None => assert!(answer.error_message.contains("no bytes"), "{}", answer.error_message),
        }
    }
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn admission_and_deadlines_are_those_of_every_call() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |config| config.limits.max_concurrent_streams = 1).await;
    let client = client(&cluster).await;
    let call = cluster.open(ClassifyOptions::default()).await;
    cluster.wait_metric("chorale_gateway_open_streams", 1).await;
    let (code, failure) = refused(&client, request(&[&[0]])).await;
    assert_eq!((code, failure.reason), (Code::ResourceExhausted, Reason::Overloaded));
    assert!(failure.retry_after.is_some());
    drop(call);
    cluster.wait_metric("chorale_gateway_open_streams", 0).await;

    feature.hold(true);
    let mut late = request(&[&[0]]);
    let micros = i64::try_from(Duration::from_millis(300).as_micros()).unwrap();
    let value = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(micros)) };
    late.parameters.insert("timeout".to_owned(), value);
    let (code, _) = refused(&client, late).await;
    assert_eq!(code, Code::DeadlineExceeded);

    // A caller that goes away takes its call along.
    let waiting = tokio::spawn(async move { infer(&client, request(&[&[1]])).await });
    feature.wait_open(1).await;
    waiting.abort();
    feature.wait_open(0).await;
    cluster.wait_metric("chorale_gateway_open_streams", 0).await;
}

#[tokio::test]
async fn without_a_token_nobody_learns_anything() {
    let folder = tempfile::tempdir().unwrap();
    let callers = folder.path().join("callers.toml");
    std::fs::write(&callers, format!("[studio]\ntoken_blake3 = '{}'\n", blake3::hash(b"sesame"))).unwrap();
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |config| config.auth.callers_file = Some(callers)).await;
    let mut client = client(&cluster).await;
    assert!(client.server_ready(ServerReadyRequest {}).await.is_ok(), "as health does");
    let asked = ModelMetadataRequest { name: "chorale".to_owned(), version: String::new() };
    assert_eq!(client.model_metadata(asked).await.unwrap_err().code(), Code::Unauthenticated);
    let (code, failure) = refused(&client, ModelInferRequest::default()).await;
    assert_eq!((code, failure.reason), (Code::Unauthenticated, Reason::Unauthenticated));
    assert_eq!(cluster.metric("chorale_gateway_calls_total{rpc=\"Classify\",code=\"UNAUTHENTICATED\"}"), 1);
    let status = client.model_stream_infer(stream::iter([request(&[&[0]])])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut known = tonic::Request::new(request(&[&[0]]));
    known.metadata_mut().insert("authorization", "Bearer sesame".parse().unwrap());
    assert_eq!(genres(&client.model_infer(known).await.unwrap().into_inner()), [b"jazz"]);
}
