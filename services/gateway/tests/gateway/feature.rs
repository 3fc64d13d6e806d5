//! A feature service that does what a test says.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use chorale_model::contract::feature_id;
use chorale_proto::v1::{
    AnalyzeOptions, AnalyzeRequest, AnalyzeResponse, AudioFormat, ChunkResult, DescribeFeatureRequest,
    DescribeFeatureResponse, Model, Prediction, ServedModel, Summary, analyze_request, analyze_response,
    feature_service_server::{FeatureService, FeatureServiceServer},
};
use chorale_runtime::failure::{Failure, Reason};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

pub(crate) const LABELS: [&str; 3] = ["jazz", "pop", "rock"];
/// Every so many bytes of "audio" are a chunk; the first one says which label wins.
pub(crate) const CHUNK_BYTES: usize = 1_000;
pub(crate) const SILENT: u8 = b's';

/// "Audio" whose chunks are won by these labels (by index), or silent.
pub(crate) fn audio(winners: &[u8]) -> Vec<u8> {
    winners.iter().flat_map(|&winner| [winner; CHUNK_BYTES]).collect()
}

#[derive(Clone, Default)]
pub(crate) struct Script {
    /// Refuse every call with this.
    pub(crate) refuse: Option<Failure>,
    /// Never say anything, not even that the call is admitted.
    pub(crate) hang: bool,
    /// Fail after this many chunks.
    pub(crate) fail_after: Option<(u32, Failure)>,
    /// Wait this long before each chunk.
    pub(crate) pause: Duration,
    /// End without a summary.
    pub(crate) no_summary: bool,
    /// The versions of the model that answer, chunk by chunk, the last one for all further ones.
    pub(crate) versions: Vec<String>,
    /// Answer with chunks that are not in order.
    pub(crate) out_of_order: bool,
    pub(crate) feature_id: Option<String>,
    /// The models that are served, by version and weight; `v1` alone if there are none.
    pub(crate) served: Vec<(String, u32)>,
    /// Refuse, after the audio has begun, calls for other versions than those that are served.
    pub(crate) strict: bool,
    /// What is sent as the embeddings of those who want them, chunk by chunk, the last one for all further ones; if there are
    /// none, a 2 at the place of the winner.
    pub(crate) embeddings: Vec<Vec<f32>>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    held: watch::Sender<bool>,
    opened: AtomicU32,
    completed: AtomicU32,
    open: AtomicU32,
}

/// Binds `address`. A replica that died on it a moment ago may still be letting go of it.
fn bind(address: SocketAddr) -> std::net::TcpListener {
    for _ in 0..500 {
        match std::net::TcpListener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(10));
            }
            bound => return bound.unwrap(),
        }
    }
    panic!("{address} stays in use");
}

/// A replica of the feature service, in a runtime of its own, so that it can die at once like a process.
pub(crate) struct FakeFeature {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl FakeFeature {
    pub(crate) fn start() -> Self {
        Self::start_with(Script::default())
    }

    pub(crate) fn start_with(script: Script) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), script)
    }

    pub(crate) fn start_at(address: SocketAddr, script: Script) -> Self {
        let shared = Arc::new(Shared { script: Mutex::new(script), ..Shared::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = bind(address);
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let service = FeatureServiceServer::new(Service { shared: Arc::clone(&shared) });
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            Server::builder().add_service(service).serve_with_incoming(incoming).await
        });
        Self { address, shared, runtime: Some(runtime) }
    }

    pub(crate) fn set(&self, script: Script) {
        *self.shared.script.lock().unwrap() = script;
    }

    /// While held, no summary is sent.
    pub(crate) fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    /// Calls that were admitted.
    pub(crate) fn opened(&self) -> u32 {
        self.shared.opened.load(Ordering::SeqCst)
    }

    /// Calls that were answered to the end.
    pub(crate) fn completed(&self) -> u32 {
        self.shared.completed.load(Ordering::SeqCst)
    }

    /// Waits until so many calls are open.
    pub(crate) async fn wait_open(&self, open: u32) {
        for _ in 0..500 {
            if self.shared.open.load(Ordering::SeqCst) == open {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("expected {open} open calls, found {}", self.shared.open.load(Ordering::SeqCst));
    }

    /// Dies as a killed process does.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for FakeFeature {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Service {
    shared: Arc<Shared>,
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

type Results = mpsc::Sender<Result<AnalyzeResponse, Status>>;

#[tonic::async_trait]
impl FeatureService for Service {
    type AnalyzeStream = ReceiverStream<Result<AnalyzeResponse, Status>>;

    async fn analyze(
        &self,
        request: Request<Streaming<AnalyzeRequest>>,
    ) -> Result<Response<Self::AnalyzeStream>, Status> {
        let script = self.shared.script.lock().unwrap().clone();
        if script.hang {
            std::future::pending::<()>().await;
        }
        if let Some(failure) = script.refuse {
            return Err(failure.into());
        }
        assert!(request.metadata().contains_key("x-request-id"));
        self.shared.opened.fetch_add(1, Ordering::SeqCst);
        self.shared.open.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        let (sender, results) = mpsc::channel(4);
        tokio::spawn(async move {
            let _open = Open(Arc::clone(&shared));
            tokio::select! {
                () = sender.closed() => {}
                result = analyze(request.into_inner(), script, &shared, &sender) => {
                    if let Err(status) = result {
                        let _ = sender.send(Err(status)).await;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(results)))
    }

    async fn describe_feature(
        &self,
        _request: Request<DescribeFeatureRequest>,
    ) -> Result<Response<DescribeFeatureResponse>, Status> {
        let script = self.shared.script.lock().unwrap().clone();
        let feature_id = script.feature_id.unwrap_or_else(|| feature_id().to_owned());
        let model = |version: &str| Model {
            name: "fake".to_owned(),
            version: version.to_owned(),
            feature_id: feature_id.clone(),
            labels: LABELS.map(str::to_owned).to_vec(),
            ..Model::default()
        };
        let served = |(version, weight): &(String, u32)| ServedModel { model: Some(model(version)), weight: *weight };
        Ok(Response::new(DescribeFeatureResponse {
            model: Some(model("v1")),
            models: script.served.iter().map(served).collect(),
            feature_id,
        }))
    }
}

async fn analyze(
    mut requests: Streaming<AnalyzeRequest>,
    script: Script,
    shared: &Shared,
    results: &Results,
) -> Result<(), Status> {
    let first = requests.message().await?.unwrap().payload.unwrap();
    let analyze_request::Payload::Options(options) = first else { panic!("expected options, found {first:?}") };
    assert_eq!(options.feature_id, feature_id());
    let serves = script.served.iter().any(|(version, _)| *version == options.model_version);
    if script.strict && !serves {
        let message = format!("no inference replica has {}", options.model_version);
        return Err(Failure::new(Reason::DependencyUnavailable, message).into());
    }
    let mut buffer = BytesMut::new();
    let mut chunks = 0;
    while let Some(request) = requests.message().await? {
        let Some(analyze_request::Payload::Audio(audio)) = request.payload else { panic!("expected audio") };
        buffer.extend_from_slice(&audio);
        while buffer.len() >= CHUNK_BYTES {
            let block = buffer.split_to(CHUNK_BYTES);
            if let Some((_, failure)) = script.fail_after.as_ref().filter(|(after, _)| *after == chunks) {
                return Err(failure.clone().into());
            }
            tokio::time::sleep(script.pause).await;
            let chunk = chunk(chunks, block[0], &script, &options);
            let event = Some(analyze_response::Event::Chunk(chunk));
            if results.send(Ok(AnalyzeResponse { event })).await.is_err() {
                return Ok(());
            }
            chunks += 1;
        }
    }
    let _ = shared.held.subscribe().wait_for(|held| !held).await;
    if script.no_summary {
        return Ok(());
    }
    let summary = Summary {
        duration_seconds: 2.0 * f64::from(chunks) + 2.0,
        chunk_count: chunks,
        audio_format: Some(AudioFormat { container: "fake".to_owned(), ..AudioFormat::default() }),
        feature_id: feature_id().to_owned(),
        ..Summary::default()
    };
    shared.completed.fetch_add(1, Ordering::SeqCst);
    let _ = results.send(Ok(AnalyzeResponse { event: Some(analyze_response::Event::Summary(summary)) })).await;
    Ok(())
}

fn chunk(index: u32, winner: u8, script: &Script, options: &AnalyzeOptions) -> ChunkResult {
    let mut probabilities = vec![0.1_f32; LABELS.len()];
    if let Some(winning) = probabilities.get_mut(usize::from(winner)) {
        *winning = 0.8;
    }
    let position = usize::try_from(index).unwrap();
    let version = script.versions.get(position).or(script.versions.last()).cloned();
    let embedding = script.embeddings.get(position).or(script.embeddings.last()).cloned();
    let by_winner = || (0..LABELS.len()).map(|label| if label == usize::from(winner) { 2.0 } else { 0.0 }).collect();
    let prediction = Prediction {
        probabilities,
        model_version: version.unwrap_or_else(|| options.model_version.clone()),
        embedding: if options.want_embedding { embedding.unwrap_or_else(by_winner) } else { Vec::new() },
        ..Prediction::default()
    };
    let start_seconds = 2.0 * f64::from(index);
    ChunkResult {
        index: if script.out_of_order { index + 1 } else { index },
        start_seconds,
        end_seconds: start_seconds + 4.0,
        silent: winner == SILENT,
        prediction: (winner != SILENT).then_some(prediction),
        ..ChunkResult::default()
    }
}
