//! An inference server that does as it is told, on a runtime of its own, so that it can really die.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use chorale_proto::v1::{
    ChunkError, DescribeInferenceRequest, DescribeInferenceResponse, InferRequest, InferResponse, Model, Prediction,
    Priority, ServedModel, infer_response,
    inference_service_server::{InferenceService, InferenceServiceServer},
};
use chorale_runtime::{
    failure::{Failure, Reason},
    replicas::Target,
};
use futures::Stream;
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

/// What the server does with one chunk.
pub(crate) enum Action {
    /// Answers at once.
    Answer,
    /// Answers later; others may overtake.
    AnswerAfter(Duration),
    /// Answers with an error.
    Refuse(Reason),
    /// Accepts, and never answers.
    Ignore,
    /// Ends the stream after what was accepted; the chunk is not.
    Drain,
    /// The process is gone.
    Die,
}

type Script = dyn Fn(u64) -> Action + Send + Sync;

struct State {
    script: Box<Script>,
    feature_id: String,
    /// The versions of its models; it answers without naming one if there are none.
    versions: Mutex<Vec<String>>,
    asked: AtomicU64,
    bulk: AtomicU64,
    answered: AtomicU64,
    streams: AtomicUsize,
    draining: AtomicBool,
    runtime: Mutex<Option<Runtime>>,
}

/// The server; it dies when dropped.
pub(crate) struct FakeInference {
    address: SocketAddr,
    state: Arc<State>,
}

impl FakeInference {
    /// A server that answers at once.
    pub(crate) fn obliging() -> Self {
        Self::start(|_| Action::Answer)
    }

    /// A server that treats its `n`th chunk as `script(n)` says.
    pub(crate) fn start(script: impl Fn(u64) -> Action + Send + Sync + 'static) -> Self {
        Self::with_feature_id(chorale_model::contract::feature_id(), script)
    }

    /// A server whose model follows another feature contract.
    pub(crate) fn with_feature_id(feature_id: &str, script: impl Fn(u64) -> Action + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = Arc::new(State {
            script: Box::new(script),
            feature_id: feature_id.to_owned(),
            versions: Mutex::default(),
            asked: AtomicU64::new(0),
            bulk: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            runtime: Mutex::new(None),
        });
        let entered = runtime.enter();
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = incoming.local_addr().unwrap();
        let service = InferenceServiceServer::new(Service { state: Arc::clone(&state) });
        runtime.spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        drop(entered);
        *state.runtime.lock().unwrap() = Some(runtime);
        Self { address, state }
    }

    /// From now on, has models of these versions.
    pub(crate) fn serve(&self, versions: &[&str]) {
        *self.state.versions.lock().unwrap() = versions.iter().map(ToString::to_string).collect();
    }

    pub(crate) fn target(&self) -> Target {
        self.address.into()
    }

    /// Chunks that came.
    pub(crate) fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// Chunks that came for tracks that nobody waits for.
    pub(crate) fn bulk(&self) -> u64 {
        self.state.bulk.load(Ordering::SeqCst)
    }

    /// Chunks that were answered with a prediction.
    pub(crate) fn answered(&self) -> u64 {
        self.state.answered.load(Ordering::SeqCst)
    }

    /// Streams that were opened.
    pub(crate) fn streams(&self) -> usize {
        self.state.streams.load(Ordering::SeqCst)
    }

    /// After a drain: takes streams again.
    pub(crate) fn recover(&self) {
        self.state.draining.store(false, Ordering::SeqCst);
    }

    /// Ends the process, as it were; it is gone when this returns.
    pub(crate) fn die(&self) {
        if let Some(death) = self.state.die() {
            death.join().unwrap();
        }
    }
}

impl Drop for FakeInference {
    fn drop(&mut self) {
        self.die();
    }
}

impl State {
    fn die(&self) -> Option<JoinHandle<()>> {
        let runtime = self.runtime.lock().unwrap().take()?;
        // A runtime must not be ended by one of its own threads.
        Some(thread::spawn(|| runtime.shutdown_timeout(Duration::from_millis(100))))
    }
}

/// A number that stands for the chunk; the prediction of the fake, and with a minus its embedding.
pub(crate) fn fingerprint(mel: &[u8]) -> f32 {
    mel.iter().fold(0_u32, |hash, &cell| (hash * 31 + u32::from(cell)) % 1_000_003) as f32
}

struct Service {
    state: Arc<State>,
}

#[tonic::async_trait]
impl InferenceService for Service {
    type InferStream = Pin<Box<dyn Stream<Item = Result<InferResponse, Status>> + Send>>;

    async fn infer(&self, request: Request<Streaming<InferRequest>>) -> Result<Response<Self::InferStream>, Status> {
        if self.state.draining.load(Ordering::SeqCst) {
            return Err(Failure::new(Reason::Draining, "draining").into());
        }
        self.state.streams.fetch_add(1, Ordering::SeqCst);
        let (responses, outgoing) = mpsc::channel(1_024);
        tokio::spawn(serve(Arc::clone(&self.state), request.into_inner(), responses));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn describe_inference(
        &self,
        _: Request<DescribeInferenceRequest>,
    ) -> Result<Response<DescribeInferenceResponse>, Status> {
        let model = Model { name: "fake".to_owned(), feature_id: self.state.feature_id.clone(), ..Model::default() };
        let served = |version: &String| ServedModel {
            model: Some(Model { version: version.clone(), ..model.clone() }),
            weight: 1,
        };
        let models = self.state.versions.lock().unwrap().iter().map(served).collect();
        Ok(Response::new(DescribeInferenceResponse {
            model: Some(model),
            models,
            ..DescribeInferenceResponse::default()
        }))
    }
}

async fn serve(
    state: Arc<State>,
    mut requests: Streaming<InferRequest>,
    responses: mpsc::Sender<Result<InferResponse, Status>>,
) {
    while let Ok(Some(request)) = requests.message().await {
        assert_eq!(request.mel.len(), chorale_model::contract::CHUNK_CELLS);
        let nth = state.asked.fetch_add(1, Ordering::SeqCst);
        state.bulk.fetch_add(u64::from(request.priority() == Priority::Bulk), Ordering::SeqCst);
        let versions = state.versions.lock().unwrap().clone();
        let lacks = !versions.is_empty() && !versions.contains(&request.model_version);
        let prediction = Prediction {
            probabilities: vec![fingerprint(&request.mel)],
            model_version: if versions.is_empty() { String::new() } else { request.model_version.clone() },
            embedding: if request.want_embedding { vec![-fingerprint(&request.mel)] } else { Vec::new() },
            ..Prediction::default()
        };
        let respond = {
            let (state, responses, tag) = (Arc::clone(&state), responses.clone(), request.tag);
            async move |result| {
                let answered = matches!(result, infer_response::Result::Prediction(_));
                if responses.send(Ok(InferResponse { tag, result: Some(result) })).await.is_ok() && answered {
                    state.answered.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        let action = if lacks { Action::Refuse(Reason::ModelUnknown) } else { (state.script)(nth) };
        match action {
            Action::Answer => respond(infer_response::Result::Prediction(prediction)).await,
            Action::AnswerAfter(delay) => {
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    respond(infer_response::Result::Prediction(prediction)).await;
                });
            }
            Action::Refuse(reason) => {
                let error = ChunkError {
                    code: reason.code() as i32,
                    reason: reason.name().to_owned(),
                    message: "as the script says".to_owned(),
                };
                respond(infer_response::Result::Error(error)).await;
            }
            Action::Ignore => {}
            Action::Drain => {
                state.draining.store(true, Ordering::SeqCst);
                return;
            }
            Action::Die => {
                state.die();
                std::future::pending::<()>().await;
            }
        }
    }
}
