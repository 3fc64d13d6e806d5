//! The feature role: its server, and when it is ready.

use std::time::Duration;

use chorale_proto::{service_names, v1::feature_service_server::FeatureServiceServer};
use chorale_runtime::{
    connections::ConnectionConfig,
    connector::Connector,
    failure::Reason,
    health::Readiness,
    process::Process,
    replicas::Replicas,
    server::{BoundServer, Role, RunningRole, ServerError},
    tls::TlsError,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{
    config::FeatureConfig,
    dispatch::Dispatcher,
    metrics::FeatureMetrics,
    service::{AnalysisService, MAX_MESSAGE_BYTES},
};

/// How often inference is asked whether it is there, while it is.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The same while it is not.
const WAIT_INTERVAL: Duration = Duration::from_millis(100);
/// The service is not ready any more when inference has not answered for this long.
const ABSENCE: Duration = Duration::from_secs(10);

/// A feature role that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No targets.
    #[error("feature.inference: expected at least one target, found none")]
    NoInference,
    /// The server cannot be bound or served.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Inference replicas cannot be spoken to as configured.
    #[error("feature.inference_tls: {0}")]
    InferenceTls(#[from] TlsError),
}

const ROLE: Role = Role { name: "feature", service: service_names::FEATURE, beside: &[] };

/// Starts the feature role in `process`. It becomes ready when an inference replica answers.
///
/// # Errors
/// If no inference target is configured, or the address cannot be bound.
pub async fn start(config: FeatureConfig, process: &Process) -> Result<RunningRole, StartError> {
    config.validate()?;
    let bound = BoundServer::bind(ROLE, config.listen, ConnectionConfig::inner(), config.tls.as_ref(), process)?;
    let metrics = FeatureMetrics::register(&process.metrics);
    let replicas =
        Replicas::discover(config.inference.clone(), Connector::new(&config.inference, &config.inference_tls)?);
    let known = replicas.clone();
    process.views.show("feature.replicas", move || known.describe());
    let dispatcher = Dispatcher::new(replicas, config.dispatch.clone(), metrics.clone());
    let drain = CancellationToken::new();

    process.readiness.set(service_names::FEATURE, false);
    let watch = watch_inference(dispatcher.clone(), process.readiness.clone());
    tokio::spawn(drain.clone().run_until_cancelled_owned(watch));

    let service = AnalysisService::new(&config, dispatcher, metrics, drain.clone());
    let open = service.open();
    process.views.show("feature.calls", move || open.describe());
    let turns = service.turns();
    process.views.show("feature.turns", move || turns.describe());
    let mut routes = RoutesBuilder::default();
    routes.add_service(FeatureServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES));
    Ok(bound.serve(routes, drain)?)
}

/// Keeps readiness equal to whether inference is there.
async fn watch_inference(dispatcher: Dispatcher, readiness: Readiness) {
    let mut ready = false;
    let mut last_answer = Instant::now();
    let mut complaint = None;
    loop {
        let now_ready = match dispatcher.describe().await {
            Ok(models) => {
                if let Some(heaviest) = models.into_iter().find_map(|served| served.model).filter(|_| !ready) {
                    tracing::info!(model = heaviest.name, version = heaviest.version, "inference answers");
                }
                last_answer = Instant::now();
                complaint = None;
                true
            }
            Err(failure) => {
                if complaint.replace(failure.reason) != Some(failure.reason) {
                    tracing::warn!(error = %failure, "inference is not usable");
                }
                ready && failure.reason != Reason::FeatureMismatch && last_answer.elapsed() < ABSENCE
            }
        };
        // Only a change is told: a drain withdraws readiness too, and must not be overruled.
        if now_ready != ready {
            ready = now_ready;
            readiness.set(service_names::FEATURE, ready);
        }
        sleep(if ready { CHECK_INTERVAL } else { WAIT_INTERVAL }).await;
    }
}
