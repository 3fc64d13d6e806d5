//! The gateway over HTTP/1.1: the same calls as over gRPC, for those who speak that, and the page for people.
//!
//! ```text
//! POST /v1/classify         audio in the body; the verdict as JSON, or events as they come (text/event-stream)
//! GET  /v1/classify/live    a WebSocket for audio that is still being made
//! GET  /v1/model            the models and the limits
//! POST /chorale.v1.ClassifierService/…    gRPC-Web
//! GET  /openapi.json, /docs               the description of all this, for programs and for people
//! GET  /                                  the studio page
//! ```
//!
//! Who is admitted, what a call may cost, and what is counted and logged of it is decided where gRPC decides it:
//! [`Classifier`](crate::classifier::Classifier).

mod assets;
mod classify;
mod config;
mod events;
mod headers;
mod live;
mod model;
mod multipart;
mod options;
mod origin;
mod problem;
mod upload;
mod verdict;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, StatusCode},
    middleware::{from_fn, from_fn_with_state, map_request},
    response::IntoResponse,
    routing::{get, post},
};
use chorale_proto::{service_names::CLASSIFIER, v1::classifier_service_server::ClassifierServiceServer};
use chorale_runtime::{
    REQUEST_ID,
    http::{BoundHttp, Patience, RunningHttp},
    oversize::ExplainOversize,
    rpcs::RpcMeter,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;

pub use self::config::{AllowedOrigin, AllowedOriginError, HttpConfig};
use self::problem::Problem;
use crate::{admission::AdmitFirst, classifier::Classifier};

/// The gRPC service, which gRPC-Web gets to as well.
type GrpcService = AdmitFirst<ExplainOversize<ClassifierServiceServer<Classifier>>>;

/// What the routes share. Cheap to clone.
#[derive(Debug, Clone)]
struct Face {
    classifier: Classifier,
    allowed_origins: Arc<[AllowedOrigin]>,
    /// Connections that went over to WebSocket.
    sockets: TaskTracker,
}

/// Answers on `bound` until `drain`.
pub(crate) fn serve(
    bound: BoundHttp,
    config: &HttpConfig,
    classifier: Classifier,
    grpc: GrpcService,
    drain: CancellationToken,
) -> RunningHttp {
    // Twice, so that a call ends at its own limit first, and says so in the log.
    let reading = classifier.limits().idle_timeout.saturating_mul(2);
    let patience = Patience { headers: config.header_timeout, reading };
    let allowed_origins = config.allowed_origins.clone().into();
    let face = Face { classifier, allowed_origins, sockets: TaskTracker::new() };
    let sockets = face.sockets.clone();
    let rpcs = bound.rpcs();
    bound.serve(routes(face, grpc, rpcs), patience, sockets, drain)
}

fn routes(face: Face, grpc: GrpcService, rpcs: RpcMeter) -> Router {
    let grpc_web = Routes::new(grpc).into_axum_router().layer(rpcs).layer(GrpcWebLayer::new());
    Router::new()
        .route("/v1/classify", post(classify::classify))
        .route("/v1/classify/live", get(live::live))
        .route("/v1/model", get(model::model))
        .route_service(&format!("/{CLASSIFIER}/{{*method}}"), grpc_web)
        .merge(assets::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(face.clone(), origin::check))
        .layer(map_request(upload::linger))
        .layer(from_fn(headers::secure))
        .with_state(face)
}

async fn no_such_path() -> Problem {
    let detail = "expected a path of this gateway: /docs describes them";
    Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", "NOT_FOUND", "No such path", detail)
}

async fn no_such_method() -> Problem {
    let detail = "expected another method for this path: the header `allow` lists those that it has";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED", "No such method", detail)
}

/// An answer that says what the call is called in logs.
fn named(request_id: &str, answer: impl IntoResponse) -> axum::response::Response {
    let mut answer = answer.into_response();
    if let Ok(request_id) = HeaderValue::from_str(request_id) {
        answer.headers_mut().insert(HeaderName::from_static(REQUEST_ID), request_id);
    }
    answer
}
