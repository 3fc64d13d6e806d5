//! What is decided of a gRPC call before any of its messages is read.
//!
//! ```text
//! ClassifyStream      the service admits it, and reads its messages one by one
//! Classify            admitted here, by its headers; then its message must come at the pace of an upload
//! ModelStreamInfer    a place to read for as long as it sends; the service watches its pauses
//! any other           a place to read until its message has come, at the pace of an upload
//! ```
//!
//! tonic reads the message of a unary call before the service sees the call. Without this, anybody could make a gateway keep as
//! many messages as it has streams, for as long as it likes.

use std::{
    convert::Infallible,
    future::ready,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::BodyDataStream;
use bytes::Bytes;
use chorale_proto::service_names;
use chorale_runtime::{deadline::timeout_of, failure::Failure, shares::Place};
use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    metadata::MetadataMap,
    server::NamedService,
};

use crate::{
    call::Call, classifier::Classifier, config::LimitsConfig, deadline::Deadline, metrics::Rpc, pace::Pace,
    service::named,
};

/// What a call may hit only while its message is read.
const LIMITS_OF_READING: [&str; 3] = ["idle_timeout", "min_upload_rate", "max_message_bytes"];

/// A service of a gateway, behind admission.
#[derive(Debug, Clone)]
pub(crate) struct AdmitFirst<S> {
    service: S,
    classifier: Classifier,
}

/// A call that was admitted before its message was read, for the handler to take.
#[derive(Clone)]
pub(crate) struct Admitted(Arc<Mutex<Option<Arrival>>>);

/// A call, and when it must be answered.
type Arrival = (Call, Option<Deadline>);

impl Admitted {
    fn new(call: Call, deadline: Option<Deadline>) -> Self {
        Self(Arc::new(Mutex::new(Some((call, deadline)))))
    }

    /// None if somebody took it before.
    pub(crate) fn take(&self) -> Option<Arrival> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<S> AdmitFirst<S> {
    /// Lets those calls get to `service` that `classifier` admits.
    pub(crate) fn new(service: S, classifier: Classifier) -> Self {
        Self { service, classifier }
    }
}

impl<S: NamedService> NamedService for AdmitFirst<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for AdmitFirst<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let rpc = Method::of(request.uri().path());
        if matches!(rpc, Method::ClassifyStream) {
            return Box::pin(self.service.call(request));
        }
        let (mut parts, body) = request.into_parts();
        let metadata = MetadataMap::from_headers(parts.headers.clone());
        let mut reading = Reading::of(body, self.classifier.limits());
        let mut admitted = None;
        if matches!(rpc, Method::Classify) {
            match self.classifier.admit_request(Rpc::Classify, &metadata, &parts.extensions) {
                Ok(call) => {
                    let call = Admitted::new(call, timeout_of(&metadata).and_then(Deadline::after));
                    parts.extensions.insert(call.clone());
                    admitted = Some(call);
                }
                Err(refusal) => return Box::pin(ready(Ok(refusal.into_http()))),
            }
        } else {
            match self.classifier.place_to_read(&metadata, &parts.extensions) {
                Ok(place) => reading.place = Some(place),
                Err(refusal) => return Box::pin(ready(Ok(Status::from(refusal).into_http()))),
            }
        }
        if matches!(rpc, Method::ModelStreamInfer) {
            reading.pace = None;
        }
        let answering = self.service.call(http::Request::from_parts(parts, reading.into_body()));
        let classifier = self.classifier.clone();
        Box::pin(async move { Ok(explained(answering.await?, admitted, &classifier)) })
    }
}

/// Counts the failure of a call whose message could not be read, which no handler does.
fn explained(
    response: http::Response<Body>,
    admitted: Option<Admitted>,
    classifier: &Classifier,
) -> http::Response<Body> {
    let status = Status::from_header_map(response.headers());
    let Some(admitted) = admitted else {
        let failure = status.as_ref().map(Failure::from_status);
        if let Some(failure) = failure.filter(is_of_reading) {
            classifier.count_limit(&failure);
        }
        return response;
    };
    match (admitted.take(), status) {
        (Some((mut call, _)), Some(status)) => {
            call.end(Err(&Failure::from_status(&status)));
            named(call.request_id(), status).into_http()
        }
        _ => response,
    }
}

fn is_of_reading(failure: &Failure) -> bool {
    failure.metadata.get("limit").is_some_and(|limit| LIMITS_OF_READING.contains(&limit.as_str()))
}

/// What the way of a call depends on.
#[derive(Debug, Clone, Copy)]
enum Method {
    ClassifyStream,
    Classify,
    ModelStreamInfer,
    Other,
}

impl Method {
    fn of(path: &str) -> Self {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            return Self::Other;
        };
        match (service, method) {
            (service_names::CLASSIFIER, "ClassifyStream") => Self::ClassifyStream,
            (service_names::CLASSIFIER, "Classify") => Self::Classify,
            (service_names::OPEN_INFERENCE, "ModelStreamInfer") => Self::ModelStreamInfer,
            _ => Self::Other,
        }
    }
}

/// The body of a call while it is read.
struct Reading {
    body: BodyDataStream,
    bytes: u64,
    /// None if the service watches it.
    pace: Option<Pace>,
    idle_timeout: Duration,
    /// Held meanwhile.
    place: Option<Place>,
}

impl Reading {
    fn of(body: Body, limits: &LimitsConfig) -> Self {
        let LimitsConfig { min_upload_rate, idle_timeout, .. } = *limits;
        let body = axum::body::Body::new(body).into_data_stream();
        let pace = Some(Pace::new(min_upload_rate.as_u64(), idle_timeout));
        Self { body, bytes: 0, pace, idle_timeout, place: None }
    }

    fn into_body(self) -> Body {
        let pieces = stream::try_unfold(self, |mut reading| async {
            Ok::<_, Status>(reading.next().await?.map(|piece| (piece, reading)))
        });
        Body::new(axum::body::Body::from_stream(pieces))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(pace) = &mut self.pace else { return read(self.body.next().await) };
        let (began, idle_timeout) = (Instant::now(), self.idle_timeout);
        let piece = timeout(idle_timeout, self.body.next()).await.map_err(|_elapsed| {
            let message = format!("expected a message, nothing came for {idle_timeout:?}");
            Failure::limit("idle_timeout", format_args!("{idle_timeout:?}"), message)
        })?;
        let piece = read(piece)?;
        self.bytes += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        pace.waited(began.elapsed(), self.bytes)?;
        Ok(piece)
    }
}

fn read(piece: Option<Result<Bytes, axum::Error>>) -> Result<Option<Bytes>, Status> {
    piece.transpose().map_err(|error| Status::from_error(error.into_inner()))
}
