//! The admin port: metrics and probes over plain HTTP, for Prometheus and people.

use std::net::SocketAddr;

use axum::{Json, Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{health::Readiness, metrics::Metrics, server::ServerError};

/// The admin port.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where to answer `/metrics`, `/livez` and `/readyz`. Default: `127.0.0.1:9090`. Port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)) }
    }
}

#[derive(Clone)]
struct AdminState {
    metrics: Metrics,
    readiness: Readiness,
}

/// Binds the admin port and answers on it until `stop`. Returns the address that was bound.
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve(
    config: &AdminConfig,
    metrics: Metrics,
    readiness: Readiness,
    stop: CancellationToken,
) -> Result<SocketAddr, ServerError> {
    let bind_error = |source| ServerError::Bind { what: "admin", address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    let routes = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(AdminState { metrics, readiness });
    tracing::info!(%address, "admin port listening");
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "admin port failed");
        }
    });
    Ok(address)
}

async fn metrics_text(State(state): State<AdminState>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], state.metrics.encode())
}

/// 200 if every service of this process is ready, 503 otherwise; the body names each.
async fn ready(State(state): State<AdminState>) -> impl IntoResponse {
    let services = state.readiness.snapshot();
    let ready = !services.is_empty() && services.values().all(|&ready| ready);
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(services))
}
