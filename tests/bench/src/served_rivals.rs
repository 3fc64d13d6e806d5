//! Other servers with our network behind them: see `rivals/triton_server.py` and `rivals/bentoml_server.py`.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tonic::codegen::http::{Request, StatusCode, header::CONTENT_TYPE};

use crate::load::Outcome;

const SCRIPTS: &str = "tests/bench/rivals";
/// It imports librosa and loads the model.
const START_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

/// A rival.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Beside {
    /// Triton Inference Server, with librosa and ONNX Runtime in its Python backend
    Triton,
    /// BentoML, with the same in every worker
    Bentoml,
}

impl Beside {
    /// Its name, and that of the folder of its Python.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Triton => "triton",
            Self::Bentoml => "bentoml",
        }
    }

    fn ready_path(self) -> &'static str {
        match self {
            Self::Triton => "v2/models/chorale/ready",
            Self::Bentoml => "readyz",
        }
    }
}

/// A running server, and how to have it classify a track.
pub(crate) struct ServedRival {
    beside: Beside,
    process: Child,
    client: Client<HttpConnector, Full<Bytes>>,
    origin: String,
    body: Bytes,
    /// Bytes of `body` before the audio.
    head_bytes: usize,
}

impl ServedRival {
    /// Starts it with the Python below `tools`, and with a worker for every core, to classify `audio`.
    pub(crate) async fn start(beside: Beside, tools: &Path, model: &Path, audio: &Bytes) -> anyhow::Result<Self> {
        // Triton takes the next two ports as well.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let workers = available_parallelism()?.to_string();
        let model = model.canonicalize().with_context(|| model.display().to_string())?;
        let python = tools.join(format!("bench-{}/bin/python", beside.name()));
        let python = std::path::absolute(&python)?;
        let mut command = Command::new(&python);
        match beside {
            Beside::Triton => command.arg("triton_server.py").arg(&port).arg(&model).arg(&workers),
            Beside::Bentoml => command
                .args(["-m", "bentoml", "serve", "bentoml_server:Genre", "--host", "127.0.0.1", "--port", &port])
                .env("MODEL", &model)
                .env("WORKERS", &workers)
                .env("BENTOML_DO_NOT_TRACK", "true"),
        };
        command.current_dir(SCRIPTS).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().with_context(|| python.display().to_string())?;
        let head = match beside {
            Beside::Triton => {
                let length = u32::try_from(audio.len())?.to_le_bytes();
                let parameters = json!({ "binary_data_size": length.len() + audio.len() });
                let input = json!({ "name": "audio", "shape": [1, 1], "datatype": "BYTES", "parameters": parameters });
                let head = json!({ "inputs": [input] }).to_string();
                [head.as_bytes(), &length].concat()
            }
            Beside::Bentoml => Vec::new(),
        };
        let mut server = Self {
            beside,
            process,
            client: Client::builder(TokioExecutor::new()).build_http(),
            origin: format!("http://127.0.0.1:{port}"),
            body: [&head, audio.as_ref()].concat().into(),
            head_bytes: head.len(),
        };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let name = self.beside.name();
        let address = format!("{}/{}", self.origin, self.beside.ready_path());
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                anyhow::bail!("{name} ended before it was ready: {status}");
            }
            let asked = self.client.request(Request::get(&address).body(Full::default())?).await;
            if asked.is_ok_and(|response| response.status() == StatusCode::OK) {
                return Ok(());
            }
            anyhow::ensure!(began.elapsed() < START_PATIENCE, "{name} was not ready within {START_PATIENCE:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Classifies the track once.
    pub(crate) async fn call(&self) -> anyhow::Result<Outcome> {
        let request = match self.beside {
            // Of the head, the last four bytes belong to the data.
            Beside::Triton => Request::post(format!("{}/v2/models/chorale/infer", self.origin))
                .header("Inference-Header-Content-Length", self.head_bytes - 4),
            Beside::Bentoml => Request::post(format!("{}/classify", self.origin)).header(CONTENT_TYPE, "audio/mpeg"),
        };
        let response = self.client.request(request.body(Full::new(self.body.clone()))?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        match status {
            StatusCode::OK => Ok(Outcome::Answered),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Ok(Outcome::Refused),
            _ => anyhow::bail!("{} answers {status}: {}", self.beside.name(), String::from_utf8_lossy(&body)),
        }
    }
}

impl Drop for ServedRival {
    fn drop(&mut self) {
        // Triton ends when nothing more can be read, BentoML by a signal; both take their workers with them.
        drop(self.process.stdin.take());
        if let (Beside::Bentoml, Ok(id)) = (self.beside, i32::try_from(self.process.id())) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let _ = self.process.wait();
    }
}
