//! `chorale.v1.InferenceService`.

use std::sync::Arc;

use chorale_model::contract::CHUNK_CELLS;
use chorale_proto::v1::{
    DescribeInferenceRequest, DescribeInferenceResponse, InferRequest, InferResponse,
    inference_service_server::InferenceService as InferenceRpc,
};
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    batcher::Intake,
    metrics::InferenceMetrics,
    models::Models,
    stream::{ChunkStream, answers},
};

/// The longest message that is read: a chunk and generous room for the other fields.
pub(crate) const MAX_MESSAGE_BYTES: usize = 2 * CHUNK_CELLS;

/// Answers the calls of the service.
#[derive(Debug)]
pub(crate) struct InferenceService {
    /// Where chunks go.
    pub(crate) intake: Arc<Intake>,
    /// What is measured.
    pub(crate) metrics: Arc<InferenceMetrics>,
    /// What answers them.
    pub(crate) models: Arc<Models>,
    /// Chunks of one stream that wait for an answer at most.
    pub(crate) max_in_flight: usize,
    /// The names of the devices.
    pub(crate) devices: Vec<String>,
    /// Chunks in a batch at most.
    pub(crate) max_batch: usize,
    /// Cancelled when no further chunk is to be accepted.
    pub(crate) drain: CancellationToken,
}

#[tonic::async_trait]
impl InferenceRpc for InferenceService {
    type InferStream = BoxStream<'static, Result<InferResponse, Status>>;

    async fn infer(&self, request: Request<Streaming<InferRequest>>) -> Result<Response<Self::InferStream>, Status> {
        let stream = ChunkStream::new(request.into_inner(), self);
        Ok(Response::new(Box::pin(answers(stream))))
    }

    async fn describe_inference(
        &self,
        _: Request<DescribeInferenceRequest>,
    ) -> Result<Response<DescribeInferenceResponse>, Status> {
        let models = self.models.describe();
        Ok(Response::new(DescribeInferenceResponse {
            model: models.first().and_then(|heaviest| heaviest.model.clone()),
            devices: self.devices.clone(),
            max_batch: u32::try_from(self.max_batch).unwrap_or(u32::MAX),
            models,
        }))
    }
}
