//! The admin port: metrics, probes and the state of the process over plain HTTP, for Prometheus and people.
//!
//! ```text
//! /metrics            OpenMetrics text
//! /livez, /readyz     200 or 503
//! /debug              the names of the views
//! /debug/NAME         one view, as JSON: the configuration, open calls, replicas, queues
//! /debug/log-level    what is logged; PUT another level to change it until the process ends
//! ```

use std::net::SocketAddr;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{process::Process, server::ServerError};

/// Bytes in a log level at most.
const MAX_BODY_BYTES: usize = 4 * 1024;

/// The admin port.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where to answer `/metrics`, `/livez`, `/readyz` and `/debug`. Default: `127.0.0.1:9090`. Port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)) }
    }
}

/// Binds the admin port and answers on it until `stop`. Returns the address that was bound.
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve(config: &AdminConfig, process: Process, stop: CancellationToken) -> Result<SocketAddr, ServerError> {
    let bind_error = |source| ServerError::Bind { what: "admin", address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    let routes = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/debug", get(view_names))
        .route("/debug/log-level", get(log_level).put(set_log_level))
        .route("/debug/{view}", get(view))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(process);
    tracing::info!(%address, "admin port listening");
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "admin port failed");
        }
    });
    Ok(address)
}

async fn metrics_text(State(process): State<Process>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], process.metrics.encode())
}

/// 200 if every service of this process is ready, 503 otherwise; the body names each.
async fn ready(State(process): State<Process>) -> impl IntoResponse {
    let services = process.readiness.snapshot();
    let ready = !services.is_empty() && services.values().all(|&ready| ready);
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(services))
}

async fn view_names(State(process): State<Process>) -> impl IntoResponse {
    Json(process.views.names())
}

async fn view(State(process): State<Process>, Path(name): Path<String>) -> Result<Json<Value>, (StatusCode, String)> {
    let unknown = || (StatusCode::NOT_FOUND, format!("expected one of {}\n", process.views.names().join(", ")));
    process.views.look(&name).map(Json).ok_or_else(unknown)
}

async fn log_level(State(process): State<Process>) -> String {
    format!("{}\n", process.log_level.get().unwrap_or_default())
}

async fn set_log_level(State(process): State<Process>, level: String) -> Result<String, (StatusCode, String)> {
    let level = level.trim();
    process.log_level.set(level).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?;
    tracing::info!(level, "log level changed");
    Ok(format!("{level}\n"))
}
