//! The RPCs of all roles.

use std::time::Duration;

use bytes::Bytes;
use chorale_proto::{
    inference::{ModelInferResponse, ModelMetadataResponse, ModelStreamInferResponse},
    v1::{
        AnalyzeResponse, ClassifyResponse, ClassifyStreamResponse, DescribeFeatureResponse, DescribeInferenceResponse,
        GetModelResponse, InferResponse,
    },
};
use futures::stream;
use prost::Message;
use tokio::time::timeout;
use tonic::{
    Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, metadata::AsciiMetadataValue,
    transport::Channel,
};

use crate::{
    cluster::{CLUSTER, Cluster},
    panics::any_unguarded,
    raw_codec::RawCodec,
};

/// A call that takes longer hangs. The longest takes a second, on a loaded machine with a sanitizer several.
const PATIENCE: Duration = Duration::from_secs(60);

/// Decodes a message, or says what is wrong with it.
type Check = fn(Bytes) -> Result<(), prost::DecodeError>;

fn is<M: Message + Default>(message: Bytes) -> Result<(), prost::DecodeError> {
    M::decode(message).map(drop)
}

/// One call: which RPC, how it ends, and the messages, each after its length (2 bytes, little-endian). They are sent as they
/// are, whether or not they are messages of the protocol.
pub fn protocol(input: &[u8]) {
    let Some((&[rpc, ending], messages)) = input.split_first_chunk() else { return };
    let call = Call::of(rpc, ending, messages);
    CLUSTER.runtime.block_on(call.make(&CLUSTER));
    assert!(!any_unguarded(), "a task panicked");
}

struct Call {
    rpc: u8,
    messages: Vec<Bytes>,
    deadline: Option<AsciiMetadataValue>,
    /// Go away after the first response.
    leave: bool,
}

impl Call {
    fn of(rpc: u8, ending: u8, mut rest: &[u8]) -> Self {
        let mut messages = Vec::new();
        while let Some((&length, behind)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_le_bytes(length)).min(behind.len());
            let (message, behind) = behind.split_at(length);
            messages.push(Bytes::copy_from_slice(message));
            rest = behind;
        }
        // The last message is the deadline instead.
        let deadline = if ending & 2 == 0 { None } else { messages.pop() };
        let deadline = deadline.and_then(|text| AsciiMetadataValue::try_from(text.as_ref()).ok());
        Self { rpc, messages, deadline, leave: ending & 1 == 1 }
    }

    async fn make(self, cluster: &Cluster) {
        let Cluster { gateway, feature, inference, .. } = cluster;
        let (channel, path, check): (&Channel, _, Check) = match self.rpc % 12 {
            0 => (gateway, "/chorale.v1.ClassifierService/ClassifyStream", is::<ClassifyStreamResponse>),
            1 => (feature, "/chorale.v1.FeatureService/Analyze", is::<AnalyzeResponse>),
            2 => (inference, "/chorale.v1.InferenceService/Infer", is::<InferResponse>),
            3 => (gateway, "/chorale.v1.ClassifierService/Classify", is::<ClassifyResponse>),
            4 => (gateway, "/chorale.v1.ClassifierService/GetModel", is::<GetModelResponse>),
            5 => (feature, "/chorale.v1.FeatureService/DescribeFeature", is::<DescribeFeatureResponse>),
            6 => (inference, "/chorale.v1.InferenceService/DescribeInference", is::<DescribeInferenceResponse>),
            7 => (gateway, "/inference.GRPCInferenceService/ModelInfer", is::<ModelInferResponse>),
            8 => (inference, "/inference.GRPCInferenceService/ModelInfer", is::<ModelInferResponse>),
            9 => (gateway, "/inference.GRPCInferenceService/ModelStreamInfer", is::<ModelStreamInferResponse>),
            10 => (inference, "/inference.GRPCInferenceService/ModelStreamInfer", is::<ModelStreamInferResponse>),
            _ => (gateway, "/inference.GRPCInferenceService/ModelMetadata", is::<ModelMetadataResponse>),
        };
        let outcome = timeout(PATIENCE, self.run(channel.clone(), PathAndQuery::from_static(path), check)).await;
        if let Err(status) = outcome.unwrap_or_else(|_| panic!("{path} hangs")) {
            check_status(&status);
        }
    }

    async fn run(self, channel: Channel, path: PathAndQuery, check: Check) -> Result<(), Status> {
        let mut client = Grpc::new(channel);
        client.ready().await.expect("the role serves");
        let mut request = Request::new(stream::iter(self.messages));
        if let Some(deadline) = self.deadline {
            request.metadata_mut().insert("grpc-timeout", deadline);
        }
        let mut responses = client.streaming(request, path, RawCodec).await?.into_inner();
        while let Some(response) = responses.message().await? {
            check(response).expect("a message of the protocol");
            if self.leave {
                break;
            }
        }
        Ok(())
    }
}

/// No caller can bring about a bug of ours.
fn check_status(status: &Status) {
    // tonic itself answers so to a message that is none.
    let by_tonic = status.message().starts_with("failed to decode Protobuf message")
        || status.message().contains("Missing request message");
    let ours = matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss | Code::Aborted);
    assert!(by_tonic || !ours, "{status:?}");
}
