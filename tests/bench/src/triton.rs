//! Triton Inference Server with our network behind it: see `rivals/triton_server.py`.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tonic::codegen::http::{Request, StatusCode};

use crate::load::Outcome;

/// A running server.
pub(crate) struct Triton {
    process: Child,
    port: u16,
}

impl Triton {
    /// Starts it, with an instance of the model for every core.
    pub(crate) async fn start(python: &Path, model: &Path) -> anyhow::Result<Self> {
        // It takes the next two ports as well.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let cores = std::thread::available_parallelism()?;
        let mut process = Command::new(python)
            .arg("tests/bench/rivals/triton_server.py")
            .args([port.to_string().as_ref(), model.as_os_str(), cores.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| python.display().to_string())?;
        let output = process.stdout.take().context("no pipe")?;
        let ready = tokio::task::spawn_blocking(move || {
            BufReader::new(output).lines().map_while(Result::ok).any(|line| line == "ready")
        });
        let server = Self { process, port };
        anyhow::ensure!(ready.await?, "Triton ended before it was ready");
        Ok(server)
    }
}

impl Drop for Triton {
    fn drop(&mut self) {
        // It ends when nothing more can be read.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// A caller: the request is the same each time.
pub(crate) struct TritonClient {
    client: Client<HttpConnector, Full<Bytes>>,
    address: String,
    head_bytes: usize,
    body: Bytes,
}

impl TritonClient {
    /// A caller that has `audio` classified.
    pub(crate) fn new(server: &Triton, audio: &Bytes) -> anyhow::Result<Self> {
        let length = u32::try_from(audio.len())?.to_le_bytes();
        let size = length.len() + audio.len();
        let input = json!({ "name": "audio", "shape": [1, 1], "datatype": "BYTES", "parameters": { "binary_data_size": size } });
        let head = json!({ "inputs": [input] }).to_string();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            address: format!("http://127.0.0.1:{}/v2/models/chorale/infer", server.port),
            head_bytes: head.len(),
            body: [head.as_bytes(), &length, audio].concat().into(),
        })
    }

    /// Classifies the track once.
    pub(crate) async fn call(&self) -> anyhow::Result<Outcome> {
        let request = Request::post(&self.address)
            .header("Inference-Header-Content-Length", self.head_bytes)
            .body(Full::new(self.body.clone()))?;
        let response = self.client.request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        match status {
            StatusCode::OK => Ok(Outcome::Answered),
            StatusCode::SERVICE_UNAVAILABLE => Ok(Outcome::Refused),
            _ => anyhow::bail!("Triton answers {status}: {}", String::from_utf8_lossy(&body)),
        }
    }
}
