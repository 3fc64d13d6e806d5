//! `chorale up`, `gateway`, `feature` and `inference`: start, serve until a signal, drain.
//!
//! The first line on standard output says where the role listens, so that a script that asked for port 0 can read it; the
//! second one where the page is, if there is one. Logs go to standard error.

use std::{future::Future, time::Instant};

use anyhow::Context;
use chorale_runtime::{
    admin, inspect,
    metrics::REVISION,
    process::Process,
    replicas::Target,
    server::RunningRole,
    shutdown::{self, ShutdownConfig},
    telemetry::{self, LogFormat},
    trace::Exporter,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::block_on;
use crate::{
    cli::{
        listener::ModelFlags,
        serve::{
            BatchFlags, CacheFlags, FeatureArguments, GatewayArguments, HttpFlags, InferenceArguments, ModelsFlag,
            ServeFlags, UpArguments,
        },
    },
    cluster::Cluster,
    config::{Config, Flags},
    exit::{Exit, UsageError},
};

pub(crate) fn up(arguments: &UpArguments) -> anyhow::Result<Exit> {
    let flags = http_flags(Flags::default().set("gateway.listen", arguments.serve.listen)?, &arguments.http)?;
    let flags = models_flag(flags, &arguments.models)?;
    let flags = batch_flags(model_flags(cache_flags(flags, &arguments.cache)?, &arguments.model)?, &arguments.batch)?;
    let config = load(&arguments.serve, flags)?;
    usage(config.gateway.validate())?;
    usage(config.feature.validate())?;
    usage(config.inference.validate())?;
    serve("chorale", config, |config, process| async move {
        let mut cluster = Cluster::start(config.clone(), &process).await?;
        announce(&cluster.endpoint(), cluster.page());
        tokio::select! {
            signal = shutdown::signalled() => tracing::info!(signal = signal?, "stopping"),
            ended = cluster.ended() => return ended.context("a role ended by itself"),
        }
        cluster.drain(&config.shutdown).await;
        Ok(())
    })
}

pub(crate) fn gateway(arguments: &GatewayArguments) -> anyhow::Result<Exit> {
    let flags = Flags::default()
        .set("gateway.listen", arguments.serve.listen)?
        .set_list("gateway.feature", &arguments.feature)?;
    let flags = cache_flags(http_flags(flags, &arguments.http)?, &arguments.cache)?;
    let config = load(&arguments.serve, flags)?;
    usage(config.gateway.validate())?;
    serve("chorale-gateway", config, |config, process| async move {
        serve_role(chorale_gateway::start(config.gateway, &process).await?, &config.shutdown).await
    })
}

pub(crate) fn feature(arguments: &FeatureArguments) -> anyhow::Result<Exit> {
    let flags = Flags::default()
        .set("feature.listen", arguments.serve.listen)?
        .set_list("feature.inference", &arguments.inference)?;
    let config = load(&arguments.serve, flags)?;
    usage(config.feature.validate())?;
    serve("chorale-feature", config, |config, process| async move {
        serve_role(chorale_feature::start(config.feature, &process).await?, &config.shutdown).await
    })
}

pub(crate) fn inference(arguments: &InferenceArguments) -> anyhow::Result<Exit> {
    let flags = Flags::default().set("inference.listen", arguments.serve.listen)?;
    let flags = models_flag(flags, &arguments.models)?;
    let config = load(&arguments.serve, batch_flags(model_flags(flags, &arguments.model)?, &arguments.batch)?)?;
    usage(config.inference.validate())?;
    serve("chorale-inference", config, |config, process| async move {
        serve_role(chorale_inference::start(config.inference, &process).await?, &config.shutdown).await
    })
}

fn http_flags(flags: Flags, http: &HttpFlags) -> anyhow::Result<Flags> {
    Ok(flags.set("gateway.http.listen", http.http_listen)?)
}

fn cache_flags(flags: Flags, cache: &CacheFlags) -> anyhow::Result<Flags> {
    Ok(flags.set("gateway.cache.url", cache.cache_url.as_ref())?)
}

/// Adds the flags that say which model runs where.
pub(crate) fn model_flags(flags: Flags, model: &ModelFlags) -> anyhow::Result<Flags> {
    Ok(flags.set("inference.model", model.model.as_ref())?.set_list("inference.devices", &model.devices)?)
}

fn models_flag(flags: Flags, models: &ModelsFlag) -> anyhow::Result<Flags> {
    Ok(flags.set("inference.models", models.models.as_ref())?)
}

fn batch_flags(flags: Flags, batch: &BatchFlags) -> anyhow::Result<Flags> {
    let delay = batch.max_queue_delay.map(|delay| humantime::format_duration(delay).to_string());
    Ok(flags.set("inference.max_batch", batch.max_batch)?.set("inference.max_queue_delay", delay)?)
}

fn load(serve: &ServeFlags, flags: Flags) -> anyhow::Result<Config> {
    let format = serve.log_format.map(LogFormat::from);
    let flags = flags
        .set_texts(&serve.settings)
        .set("admin.listen", serve.admin_listen)?
        .set("log.level", serve.log_level.as_ref())?
        .set("log.format", format)?;
    Ok(flags.load(serve.config.as_deref())?)
}

/// What the view `process` shows of one that started then.
fn about_process(started: Instant) -> impl Fn() -> Value {
    move || {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "revision": REVISION,
            "pid": std::process::id(),
            "uptime_seconds": started.elapsed().as_secs(),
        })
    }
}

/// A configuration that was read, but makes no sense, is wrong usage.
fn usage<E: std::fmt::Display>(validated: Result<(), E>) -> Result<(), UsageError> {
    validated.map_err(usage_error)
}

fn usage_error(error: impl std::fmt::Display) -> UsageError {
    UsageError(format!("configuration: {error}"))
}

/// Runs `role` between the parts that every role has: logs and traces, as of the service `name`, before it, the admin port
/// beside it.
fn serve<F>(name: &'static str, config: Config, role: impl FnOnce(Config, Process) -> F) -> anyhow::Result<Exit>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let log_level = telemetry::start(&config.log)?;
    block_on(async {
        let process = Process::logging_by(log_level);
        let shown = inspect::masked(&config);
        process.views.show("config", move || shown.clone());
        process.views.show("process", about_process(Instant::now()));
        let _exporter = Exporter::start(&config.telemetry, name).map_err(usage_error)?;
        let stop = CancellationToken::new();
        admin::serve(&config.admin, process.clone(), stop.clone()).await?;
        let _stop_admin = stop.drop_guard();
        tokio::select! {
            ended = role(config, process.clone()) => ended.map(|()| Exit::Done),
            failure = process.failed() => Err(anyhow::anyhow!(failure)),
        }
    })
}

async fn serve_role(mut role: RunningRole, shutdown: &ShutdownConfig) -> anyhow::Result<()> {
    announce(role.target(), role.http());
    tokio::select! {
        signal = shutdown::signalled() => tracing::info!(signal = signal?, "stopping"),
        ended = role.ended() => return Ok(ended?),
    }
    role.drain(shutdown).await;
    Ok(())
}

fn announce(endpoint: &Target, page: Option<&Target>) {
    anstream::println!("listening on {endpoint}");
    if let Some(page) = page {
        anstream::println!("page on {page}/");
    }
}
