//! The public face of a Chorale cluster: `ClassifierService`, the vote, and the result cache.
//!
//! A gateway never sees a mel chunk: audio goes to a feature service, predictions come back in order, and the vote
//! over them is the verdict. [`start`] is all there is to call.

mod analysis;
mod answers;
mod cache;
mod classify;
mod config;
mod deadline;
mod error;
mod flight;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod heard;
mod metrics;
mod model;
mod oversize;
mod replay;
mod request;
mod service;
mod vote;

use chorale_proto::{service_names, v1::classifier_service_server::ClassifierServiceServer};
use chorale_runtime::{
    process::Process,
    replicas::Replicas,
    server::{BoundServer, RunningRole},
};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{
    answers::Answers, cache::VerdictCache, classify::Context, metrics::GatewayMetrics, model::LatestModel,
    oversize::ExplainOversize, service::Classifier,
};
pub use crate::{
    config::{CacheConfig, GatewayConfig, LimitsConfig, RedisUrl, RedisUrlError},
    error::GatewayError,
};

/// Starts a gateway. It answers when this returns, and is ready once a feature service has described its model.
///
/// # Errors
/// If the configuration does not fit, or the address cannot be bound. A feature service or a Redis server that is away
/// is no error.
pub async fn start(config: GatewayConfig, process: &Process) -> Result<RunningRole, GatewayError> {
    config.validate()?;
    let GatewayConfig { listen, feature, cache, limits } = config;
    let metrics = process.metrics.register("gateway", GatewayMetrics::register);
    let verdicts = VerdictCache::new(&cache, metrics.clone())?;
    let server = BoundServer::bind("gateway", listen)?;

    let drain = CancellationToken::new();
    let replicas = Replicas::discover(feature);
    process.readiness.set(service_names::CLASSIFIER, false);
    let (model, learning) = LatestModel::learn(replicas.clone(), process.readiness.clone());
    tokio::spawn(drain.clone().run_until_cancelled_owned(learning));

    let max_message_bytes = usize::try_from(limits.max_message_bytes.as_u64()).unwrap_or(usize::MAX);
    let answers = Answers::new(verdicts, metrics.clone());
    let context = Context { limits, shared_wait: cache.shared_wait, replicas, model, answers, metrics };
    let classifier = Classifier::new(context, drain.clone());
    let mut routes = RoutesBuilder::default();
    let service = ClassifierServiceServer::new(classifier).max_decoding_message_size(max_message_bytes);
    routes.add_service(ExplainOversize(service));
    Ok(server.serve(service_names::CLASSIFIER, routes, process.readiness.clone(), drain)?)
}
