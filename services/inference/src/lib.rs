//! The inference role: mel chunks in, genre probabilities out.
//!
//! The life of a chunk: `stream` reads it from an `Infer` call and gives it the model of its version, `queue` keeps it and
//! says when it leaves in a batch, `batcher` wakes who waits for one, `worker` runs the batch on the device that its thread
//! owns, and the answer takes the chunk's own way back to its stream (`waiting`). Every queue on that way is bounded: a
//! stream has at most `queue_capacity` chunks in flight and is not read beyond that; the queue shared by all streams holds
//! at most `queue_capacity` chunks of 12 KiB and refuses the next one.
//!
//! The life of a model: `serving_file` names it, `loader` puts it onto every device, `models` hands it out while it is served,
//! and `models_folder` does all of this again when the file changes.

mod batcher;
mod config;
mod error;
mod loader;
mod metrics;
mod models;
mod models_folder;
mod network;
mod open_inference;
mod queue;
mod service;
mod serving_file;
mod stream;
#[cfg(test)]
mod testing;
mod waiting;
mod watchdog;
mod worker;

use std::sync::Arc;

use chorale_proto::{
    inference::grpc_inference_service_server::GrpcInferenceServiceServer, service_names,
    v1::inference_service_server::InferenceServiceServer,
};
use chorale_runtime::{
    connections::ConnectionConfig,
    open_inference::OpenInference,
    oversize::ExplainOversize,
    priority::give_way,
    process::Process,
    server::{BoundServer, Role, RunningRole},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{
    batcher::Intake,
    loader::Loader,
    metrics::InferenceMetrics,
    models::Models,
    models_folder::{ModelsFolder, look},
    open_inference::OpenChunks,
    service::{InferenceService, MAX_MESSAGE_BYTES},
    watchdog::{Pulse, watch},
    worker::WorkerContext,
};
pub use crate::{config::InferenceConfig, error::InferenceError};

const ROLE: Role =
    Role { name: "inference", service: service_names::INFERENCE, beside: &[service_names::OPEN_INFERENCE] };

/// Binds the port, loads the models onto every device, runs a forward pass on each, and serves.
///
/// The role is ready when this returns. It withdraws its readiness while no device works. A models folder is followed until
/// the role drains.
///
/// # Errors
/// If the configuration is wrong, the port cannot be bound, a model cannot be loaded, or a device cannot run it.
pub async fn start(config: InferenceConfig, process: &Process) -> Result<RunningRole, InferenceError> {
    config.validate()?;
    // Cores are shared by the threads of this pool, on which nothing but networks computes. It is there already if this process
    // has started another replica.
    let _ = rayon::ThreadPoolBuilder::new().start_handler(|_| give_way()).build_global();
    process.readiness.set(service_names::INFERENCE, false);
    let server = BoundServer::bind(ROLE, config.listen, ConnectionConfig::inner(), config.tls.as_ref(), process)?;

    let metrics = Arc::new(process.metrics.register("inference", |registry| InferenceMetrics::new(registry, &config)));
    let loader = Loader::new(&config.devices, config.max_batch, Arc::clone(&metrics));
    let (served, watched) = match &config.models {
        // Looked at first: what changes while it is read is a change.
        Some(path) => {
            let stamp = look(path).await;
            (loader.load_folder(path, |_| None).await?, Some(path.clone()).zip(stamp))
        }
        None => (loader.load_one(config.model.as_deref()).await?, None),
    };
    let models = Arc::new(Models::new(served, Arc::clone(&metrics)));

    let intake = Arc::new(Intake::new(config.batch_policy(), Arc::clone(&metrics)));
    let context = WorkerContext::new(Arc::clone(&models), config.max_batch, intake.batcher(), Arc::clone(&metrics));
    let pulses: Vec<Pulse> =
        config.devices.iter().map(|&device| worker::start(device, context.clone())).collect::<Result<_, _>>()?;
    tokio::spawn(watch(pulses, config.max_forward_time, process.clone()));
    let batcher = intake.batcher();
    process.views.show("inference.queue", move || batcher.describe());
    let shown = Arc::clone(&models);
    process.views.show("inference.models", move || shown.summary());

    let devices: Vec<String> = config.devices.iter().map(ToString::to_string).collect();
    tracing::info!(
        models = models.summary(),
        device = %devices.join(","),
        threads = candle_core::utils::get_num_threads(),
        max_batch = config.max_batch,
        max_queue_delay = ?config.max_queue_delay(),
        "models ready"
    );

    let drain = CancellationToken::new();
    if let Some((path, stamp)) = watched {
        let (models, metrics) = (Arc::clone(&models), Arc::clone(&metrics));
        let folder = ModelsFolder { path, linger: config.model_linger, models, loader, metrics };
        tokio::spawn(drain.clone().run_until_cancelled_owned(folder.watch(stamp)));
    }
    let serving = intake.serving();
    let service = Arc::new(InferenceService {
        intake,
        metrics,
        models,
        max_in_flight: config.queue_capacity,
        devices,
        max_batch: config.max_batch,
        drain: drain.clone(),
    });
    let mut routes = RoutesBuilder::default();
    let open = OpenChunks::new(Arc::clone(&service));
    let open = OpenInference::new(open, process.readiness.clone(), service_names::INFERENCE, drain.clone());
    let open = GrpcInferenceServiceServer::new(open).max_decoding_message_size(open_inference::MAX_MESSAGE_BYTES);
    routes
        .add_service(InferenceServiceServer::from_arc(service).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(ExplainOversize(open));
    let role = server.serve(routes, drain.clone())?;

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
