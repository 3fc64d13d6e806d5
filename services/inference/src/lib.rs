//! The inference role: mel chunks in, genre probabilities out.
//!
//! The life of a chunk: `stream` reads it from an `Infer` call and checks it, `queue` keeps it and says when it leaves in a
//! batch, `batcher` wakes who waits for one, `worker` runs the batch on the device that its thread owns, and the answer takes the chunk's own way back to
//! its stream (`waiting`). Every queue on that way is bounded: a stream has at most `queue_capacity` chunks in flight and
//! is not read beyond that; the queue shared by all streams holds at most `queue_capacity` chunks of 12 KiB and refuses
//! the next one.

mod batcher;
mod config;
mod error;
mod metrics;
mod queue;
mod service;
mod stream;
#[cfg(test)]
mod testing;
mod waiting;
mod worker;

use std::{collections::HashMap, sync::Arc};

use chorale_model::{Classifier, Manifest, ModelFolder};
use chorale_proto::{
    service_names,
    v1::{DescribeInferenceResponse, Model, inference_service_server::InferenceServiceServer},
};
use chorale_runtime::{
    connections::ConnectionConfig,
    process::Process,
    server::{BoundServer, RunningRole},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{
    batcher::Intake,
    metrics::InferenceMetrics,
    service::{InferenceService, MAX_MESSAGE_BYTES},
    worker::WorkerContext,
};
pub use crate::{config::InferenceConfig, error::InferenceError};

/// Binds the port, loads the model onto every device, runs a forward pass on each, and serves.
///
/// The role is ready when this returns. It withdraws its readiness while no device works.
///
/// # Errors
/// If the configuration is wrong, the port cannot be bound, the model cannot be loaded, or a device cannot run it.
pub async fn start(config: InferenceConfig, process: &Process) -> Result<RunningRole, InferenceError> {
    config.validate()?;
    process.readiness.set(service_names::INFERENCE, false);
    let server =
        BoundServer::bind("inference", config.listen, ConnectionConfig::inner(), config.tls.as_ref(), process)?;

    let folder = config.model.clone();
    let folder = tokio::task::spawn_blocking(move || ModelFolder::open(folder.as_deref()))
        .await
        .map_err(InferenceError::LoadStopped)??;
    let folder = Arc::new(folder);
    let manifest = folder.manifest().clone();

    let metrics = Arc::new(process.metrics.register("inference", |registry| InferenceMetrics::new(registry, &config)));
    let intake = Arc::new(Intake::new(config.batch_policy(), Arc::clone(&metrics)));
    let context = WorkerContext::new(&manifest, config.max_batch, intake.batcher(), Arc::clone(&metrics));
    let workers = config.devices.iter().map(|&device| {
        let folder = Arc::clone(&folder);
        worker::start(device, move || Classifier::load(&folder, device), context.clone())
    });
    futures::future::try_join_all(workers).await?;

    let devices: Vec<String> = config.devices.iter().map(ToString::to_string).collect();
    tracing::info!(
        model = %manifest.name,
        version = %manifest.version,
        device = %devices.join(","),
        threads = candle_core::utils::get_num_threads(),
        max_batch = config.max_batch,
        max_queue_delay = ?config.max_queue_delay(),
        "model ready"
    );

    let drain = CancellationToken::new();
    let serving = intake.serving();
    let service = InferenceService {
        intake,
        metrics,
        feature_id: manifest.feature_id.as_str().into(),
        max_in_flight: config.queue_capacity,
        description: describe(&manifest, devices, config.max_batch),
        drain: drain.clone(),
    };
    let mut routes = RoutesBuilder::default();
    routes.add_service(InferenceServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES));
    let role = server.serve(service_names::INFERENCE, routes, drain.clone())?;

    process.readiness.set(service_names::INFERENCE, *serving.borrow() > 0);
    tokio::spawn(report_readiness(serving, process.clone(), drain));
    Ok(role)
}

/// Keeps the role's readiness at whether any device works, until the role drains.
async fn report_readiness(mut serving: watch::Receiver<usize>, process: Process, drain: CancellationToken) {
    let ended = drain.cancelled();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            biased;
            () = &mut ended => return,
            changed = serving.changed() => match changed {
                Ok(()) => process.readiness.set(service_names::INFERENCE, *serving.borrow_and_update() > 0),
                Err(_) => return,
            },
        }
    }
}

fn describe(manifest: &Manifest, devices: Vec<String>, max_batch: usize) -> DescribeInferenceResponse {
    let metrics: HashMap<String, f64> = (manifest.metrics.iter())
        .flat_map(|(split, measured)| {
            [("track_accuracy", measured.track_accuracy), ("chunk_accuracy", measured.chunk_accuracy)]
                .map(|(metric, value)| (format!("{split}/{metric}"), value))
        })
        .collect();
    let model = Model {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        feature_id: manifest.feature_id.clone(),
        labels: manifest.labels.clone(),
        architecture: manifest.architecture.clone(),
        metrics,
        unknown_below: manifest.unknown_below,
    };
    DescribeInferenceResponse { model: Some(model), devices, max_batch: u32::try_from(max_batch).unwrap_or(u32::MAX) }
}
