//! A server that fails as the real one seldom does.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Instant,
};

use chorale_proto::v1::{
    Accepted, ClassifyRequest, ClassifyResponse, ClassifyStreamRequest, ClassifyStreamResponse, GetModelRequest,
    GetModelResponse, Verdict,
    classifier_service_server::{ClassifierService, ClassifierServiceServer},
    classify_stream_response::Event,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport};

/// Ends every call as it is told, one after the other.
#[derive(Debug)]
pub struct StandIn {
    endpoint: String,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Script {
    endings: Mutex<VecDeque<Option<Status>>>,
    calls: Mutex<Vec<Instant>>,
}

impl StandIn {
    /// Starts one whose calls end with these errors, or with a verdict where there is none, and so do those after them.
    pub async fn start(endings: impl IntoIterator<Item = Option<Status>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let script = Arc::new(Script { endings: Mutex::new(endings.into_iter().collect()), ..Script::default() });
        let service = ClassifierServiceServer::from_arc(Arc::clone(&script));
        let serving = transport::Server::builder().add_service(service);
        let task = tokio::spawn(async move {
            serving.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("it serves");
        });
        Self { endpoint, script, task }
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// When each call came.
    #[must_use]
    pub fn calls(&self) -> Vec<Instant> {
        self.script.calls.lock().unwrap().clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl ClassifierService for Script {
    type ClassifyStreamStream = tokio_stream::Iter<std::vec::IntoIter<Result<ClassifyStreamResponse, Status>>>;

    async fn classify_stream(
        &self,
        _request: Request<Streaming<ClassifyStreamRequest>>,
    ) -> Result<Response<Self::ClassifyStreamStream>, Status> {
        self.calls.lock().unwrap().push(Instant::now());
        if let Some(Some(status)) = self.endings.lock().unwrap().pop_front() {
            return Err(status);
        }
        let events = [Event::Accepted(Accepted::default()), Event::Verdict(Verdict::default())];
        let responses = events.map(|event| Ok(ClassifyStreamResponse { event: Some(event) }));
        Ok(Response::new(tokio_stream::iter(Vec::from(responses))))
    }

    async fn classify(&self, _request: Request<ClassifyRequest>) -> Result<Response<ClassifyResponse>, Status> {
        Err(Status::unimplemented("only streams are answered"))
    }

    async fn get_model(&self, _request: Request<GetModelRequest>) -> Result<Response<GetModelResponse>, Status> {
        Err(Status::unimplemented("only streams are answered"))
    }
}
