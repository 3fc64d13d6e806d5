//! The public face of a Chorale cluster: `ClassifierService` and its HTTP, the vote, and the result cache.
//!
//! A gateway never sees a mel chunk: audio goes to a feature service, predictions come back in order, and the vote
//! over them is the verdict. [`start`] is all there is to call.

mod admission;
mod analysis;
mod answers;
mod auth;
mod cache;
mod call;
mod classifier;
mod classify;
mod config;
mod deadline;
mod error;
mod flight;
#[doc(hidden)]
pub mod fuzzing;
mod heard;
mod http;
mod metrics;
mod model;
mod open_calls;
mod open_inference;
mod pace;
mod pcm_text;
mod replay;
mod request;
mod service;
mod share;
mod told;
mod vote;
mod waveform;

use chorale_proto::{
    inference::grpc_inference_service_server::GrpcInferenceServiceServer, service_names,
    v1::classifier_service_server::ClassifierServiceServer,
};
use chorale_runtime::{
    connector::Connector,
    open_inference::OpenInference,
    oversize::ExplainOversize,
    process::Process,
    replicas::Replicas,
    server::{BoundServer, Role, RunningRole},
};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{
    admission::AdmitFirst, answers::Answers, auth::Authenticator, cache::VerdictCache, classifier::Classifier,
    classify::Context, metrics::GatewayMetrics, model::LatestModels, open_inference::OpenTracks,
};
pub use crate::{
    config::{AuthConfig, CacheConfig, GatewayConfig, JwtConfig, LimitsConfig, RedisUrl, RedisUrlError},
    error::GatewayError,
    http::{AllowedOrigin, AllowedOriginError, HttpConfig},
};

const ROLE: Role =
    Role { name: "gateway", service: service_names::CLASSIFIER, beside: &[service_names::OPEN_INFERENCE] };

/// Starts a gateway. It answers when this returns, and is ready once a feature service has described its models.
///
/// # Errors
/// If the configuration does not fit, or the address cannot be bound. A feature service or a Redis server that is away
/// is no error.
pub async fn start(config: GatewayConfig, process: &Process) -> Result<RunningRole, GatewayError> {
    config.validate()?;
    let GatewayConfig { listen, http, feature, feature_tls, tls, connections, auth, cache, limits } = config;
    let metrics = process.metrics.register("gateway", GatewayMetrics::register);
    let authenticator = Authenticator::follow(&auth)?;
    let verdicts = VerdictCache::new(&cache, metrics.clone())?;
    let server = BoundServer::bind(ROLE, listen, connections, tls.as_ref(), process)?;
    let face = http.enabled.then(|| server.bind_http("gateway.http", http.listen)).transpose()?;

    let drain = CancellationToken::new();
    let connector = Connector::new(&feature, &feature_tls)?;
    let replicas = Replicas::discover(feature, connector);
    let known = replicas.clone();
    process.views.show("gateway.replicas", move || known.describe());
    process.readiness.set(service_names::CLASSIFIER, false);
    let (models, learning) = LatestModels::learn(replicas.clone(), process.readiness.clone(), metrics.clone());
    tokio::spawn(drain.clone().run_until_cancelled_owned(learning));

    let idle_timeout = limits.idle_timeout;
    let max_message_bytes = usize::try_from(limits.max_message_bytes.as_u64()).unwrap_or(usize::MAX);
    let answers = Answers::new(verdicts, metrics.clone());
    let CacheConfig { shared_wait, across_callers, .. } = cache;
    let context = Context {
        limits,
        shared_wait,
        across_callers,
        replicas,
        models: models.clone(),
        answers,
        metrics: metrics.clone(),
    };
    let classifier = Classifier::new(context, authenticator.clone(), drain.clone());
    let open = OpenTracks::new(classifier.clone(), authenticator, models, metrics);
    let open = OpenInference::new(open, process.readiness.clone(), service_names::CLASSIFIER, drain.clone())
        .with_idle_timeout(idle_timeout);
    let calls = classifier.open_calls();
    process.views.show("gateway.calls", move || calls.describe());
    let mut routes = RoutesBuilder::default();
    let service = ClassifierServiceServer::new(classifier.clone()).max_decoding_message_size(max_message_bytes);
    let service = AdmitFirst::new(ExplainOversize(service), classifier.clone());
    let open = GrpcInferenceServiceServer::new(open).max_decoding_message_size(max_message_bytes);
    let open = AdmitFirst::new(ExplainOversize(open), classifier.clone());
    routes.add_service(service.clone()).add_service(open);
    let role = server.serve(routes, drain.clone())?;
    Ok(match face {
        None => role,
        Some(face) => role.beside(http::serve(face, &http, classifier, service, drain)),
    })
}
