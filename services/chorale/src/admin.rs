//! The caller's side of an admin port.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use chorale_runtime::replicas::Target;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

/// Less than the health check of a container waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than the metrics of any process take.
const MAX_BODY_BYTES: usize = 16 << 20;

/// Asks `path` of the admin port at `target`: the status, and the body.
pub(crate) async fn get(target: &Target, path: &str) -> anyhow::Result<(u16, String)> {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let asked = async {
        let response = client.get(format!("{target}{path}").parse()?).await.context("no admin port answers")?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    timeout(PATIENCE, asked).await.with_context(|| format!("{target}{path} does not answer for {PATIENCE:?}"))?
}
