//! `ClassifierService`: the three RPCs, between their messages and what every call is.

use chorale_proto::v1::{
    ClassifyRequest, ClassifyResponse, ClassifyStreamRequest, ClassifyStreamResponse, GetModelRequest,
    GetModelResponse, classifier_service_server::ClassifierService,
};
use chorale_runtime::{REQUEST_ID, deadline::timeout_of, failure::Failure};
use futures::{StreamExt, stream::Map};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Extensions, Request, Response, Status, Streaming,
    metadata::{MetadataMap, MetadataValue},
};

use crate::{
    admission::Admitted,
    call::Call,
    classifier::{Classifier, Refusal},
    deadline::Deadline,
    metrics::Rpc,
    request::{Incoming, Upload},
    told::Told,
};

type Answered = Result<ClassifyStreamResponse, Status>;

#[tonic::async_trait]
impl ClassifierService for Classifier {
    type ClassifyStreamStream = Map<ReceiverStream<Result<Told, Failure>>, fn(Result<Told, Failure>) -> Answered>;

    async fn classify_stream(
        &self,
        request: Request<Streaming<ClassifyStreamRequest>>,
    ) -> Result<Response<Self::ClassifyStreamStream>, Status> {
        let call = self.admit_request(Rpc::ClassifyStream, request.metadata(), request.extensions())?;
        let request_id = call.request_id().to_owned();
        let deadline = timeout_of(request.metadata()).and_then(Deadline::after);
        let mut stream = request.into_inner();
        let incoming = async move {
            let options = Upload::options(&mut stream).await?;
            Ok(Incoming { options, deadline, upload: Upload::Stream(Box::new(stream)) })
        };
        let told = ReceiverStream::new(self.begin(call, incoming, deadline));
        Ok(named(&request_id, Response::new(told.map(answer as fn(_) -> _))))
    }

    async fn classify(&self, mut request: Request<ClassifyRequest>) -> Result<Response<ClassifyResponse>, Status> {
        let admitted = request.extensions_mut().remove::<Admitted>().and_then(|admitted| admitted.take());
        let (mut call, deadline) = match admitted {
            Some(admitted) => admitted,
            None => {
                let call = self.admit_request(Rpc::Classify, request.metadata(), request.extensions())?;
                (call, timeout_of(request.metadata()).and_then(Deadline::after))
            }
        };
        let ClassifyRequest { options, audio } = request.into_inner();
        match self.classify_whole(&mut call, options.unwrap_or_default(), audio, deadline).await {
            Ok(verdict) => Ok(named(call.request_id(), Response::new(ClassifyResponse { verdict: Some(verdict) }))),
            Err(failure) => Err(named(call.request_id(), Status::from(failure))),
        }
    }

    async fn get_model(&self, request: Request<GetModelRequest>) -> Result<Response<GetModelResponse>, Status> {
        Ok(Response::new(self.describe(request.metadata(), request.extensions())?))
    }
}

impl Classifier {
    /// Admits a call as [`Classifier::admit`] does, or says why not as gRPC does.
    pub(crate) fn admit_request(
        &self,
        rpc: Rpc,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Call, Status> {
        self.admit(rpc, metadata, extensions).map_err(|refusal| {
            let Refusal { failure, request_id } = *refusal;
            named(&request_id, Status::from(failure))
        })
    }
}

fn answer(told: Result<Told, Failure>) -> Answered {
    Ok(ClassifyStreamResponse { event: Some(told?.event) })
}

/// Tells the caller what the call is called in logs.
pub(crate) fn named<A: Answer>(request_id: &str, mut answer: A) -> A {
    if let Ok(request_id) = MetadataValue::try_from(request_id) {
        answer.metadata_mut().insert(REQUEST_ID, request_id);
    }
    answer
}

/// What carries metadata back to a caller.
pub(crate) trait Answer {
    fn metadata_mut(&mut self) -> &mut MetadataMap;
}

impl<T> Answer for Response<T> {
    fn metadata_mut(&mut self) -> &mut MetadataMap {
        Response::metadata_mut(self)
    }
}

impl Answer for Status {
    fn metadata_mut(&mut self) -> &mut MetadataMap {
        Status::metadata_mut(self)
    }
}
