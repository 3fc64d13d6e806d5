//! `inference.GRPCInferenceService`, the same for every role.

use std::{sync::Arc, time::Duration};

use chorale_proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ModelStreamInferResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    grpc_inference_service_server::GrpcInferenceService,
};
use futures::{StreamExt, stream::BoxStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Call, OpenModels, status_of, status_of_status,
    stream::{Requests, answers},
};
use crate::health::Readiness;

/// What Triton calls that which is understood here beside the protocol itself: binary tensors, parameters, `priority` and
/// `timeout`, and the most probable labels in place of numbers.
const EXTENSIONS: [&str; 4] = ["binary_tensor_data", "parameters", "schedule_policy", "classification"];

/// Serves the models of a role.
#[derive(Debug)]
pub struct OpenInference<M> {
    models: Arc<M>,
    readiness: Readiness,
    /// The role's own service: where that is ready, this one is.
    role: &'static str,
    drain: CancellationToken,
    idle_timeout: Option<Duration>,
}

impl<M: OpenModels> OpenInference<M> {
    /// Serves `models`, while the service `role` of this process is ready, until `drain`.
    pub fn new(models: M, readiness: Readiness, role: &'static str, drain: CancellationToken) -> Self {
        Self { models: Arc::new(models), readiness, role, drain, idle_timeout: None }
    }

    /// The same, which ends a stream that nobody uses for so long.
    #[must_use]
    pub fn with_idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout: Some(idle_timeout), ..self }
    }

    fn ready(&self) -> bool {
        self.readiness.is_ready(self.role)
    }

    /// Where a request comes from, if it may come.
    fn admit<T>(&self, request: Request<T>) -> Result<(Call, T), Status> {
        let (metadata, extensions, message) = request.into_parts();
        let call = Call::begin(metadata, extensions);
        self.models.allow(&call).map_err(status_of)?;
        Ok((call, message))
    }
}

#[tonic::async_trait]
impl<M: OpenModels> GrpcInferenceService for OpenInference<M> {
    type ModelStreamInferStream = BoxStream<'static, Result<ModelStreamInferResponse, Status>>;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let (_, ModelReadyRequest { name, version }) = self.admit(request)?;
        let ready = self.ready() && self.models.describe(&name, &version).is_ok();
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        self.admit(request)?;
        Ok(Response::new(ServerMetadataResponse {
            name: "chorale".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let (_, ModelMetadataRequest { name, version }) = self.admit(request)?;
        self.models.describe(&name, &version).map(Response::new).map_err(status_of)
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let call = Call::begin(metadata, extensions);
        self.models.infer(&call, message).await.map_err(status_of_status)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let (call, requests) = self.admit(request)?;
        let requests = Requests::new(requests, self.drain.clone(), self.idle_timeout);
        Ok(Response::new(answers(Arc::clone(&self.models), call, requests).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use chorale_proto::service_names;
    use tonic::Code;

    use super::*;
    use crate::open_inference::testing::Echo;

    #[tokio::test]
    async fn a_model_is_ready_if_it_is_served_and_the_role_is() {
        const ROLE: &str = service_names::INFERENCE;
        let readiness = Readiness::new();
        let service = OpenInference::new(Echo::new(1), readiness.clone(), ROLE, CancellationToken::new());
        let ready = async |name: &str| {
            let request = ModelReadyRequest { name: name.to_owned(), version: String::new() };
            service.model_ready(Request::new(request)).await.unwrap().into_inner().ready
        };
        assert!(!ready("echo").await);
        readiness.set(ROLE, true);
        assert!(ready("echo").await && !ready("other").await);
        let metadata = ModelMetadataRequest { name: "other".to_owned(), version: "1".to_owned() };
        let status = service.model_metadata(Request::new(metadata)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert!(service.server_ready(Request::new(ServerReadyRequest {})).await.unwrap().into_inner().ready);
        readiness.withdraw(ROLE);
        assert!(!service.server_ready(Request::new(ServerReadyRequest {})).await.unwrap().into_inner().ready);
        assert!(service.server_live(Request::new(ServerLiveRequest {})).await.unwrap().into_inner().live);
    }
}
