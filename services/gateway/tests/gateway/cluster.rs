//! A gateway under test, and its callers.

use std::{net::SocketAddr, time::Duration};

use chorale_gateway::{GatewayConfig, HttpConfig};
use chorale_proto::v1::{
    Accepted, ClassifyOptions, ClassifyRequest, ClassifyStreamRequest, ClassifyStreamResponse, Verdict,
    classifier_service_client::ClassifierServiceClient, classify_stream_request::Payload,
    classify_stream_response::Event,
};
use chorale_runtime::{failure::Failure, process::Process, server::RunningRole};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, transport::Channel};

use crate::feature::FakeFeature;

/// Longer than any call of these tests should take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Cluster {
    pub(crate) gateway: RunningRole,
    pub(crate) process: Process,
    pub(crate) client: ClassifierServiceClient<Channel>,
}

impl Cluster {
    /// A gateway that is ready, in front of `features`.
    pub(crate) async fn start(features: &[&FakeFeature], change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let cluster = Self::start_unready(features.iter().map(|feature| feature.address), change).await;
        tokio::time::timeout(PATIENCE, cluster.gateway.ready()).await.unwrap();
        cluster
    }

    pub(crate) async fn start_unready(
        features: impl IntoIterator<Item = SocketAddr>,
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Self {
        let mut config = GatewayConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            http: HttpConfig { enabled: false, ..HttpConfig::default() },
            feature: features.into_iter().map(Into::into).collect(),
            ..GatewayConfig::default()
        };
        change(&mut config);
        let process = Process::default();
        let gateway = chorale_gateway::start(config, &process).await.unwrap();
        let client = ClassifierServiceClient::connect(format!("http://{}", gateway.address())).await.unwrap();
        Self { gateway, process, client }
    }

    /// Opens a stream and sends its options.
    pub(crate) async fn open(&self, options: ClassifyOptions) -> Call {
        self.open_within(options, None).await
    }

    pub(crate) async fn open_within(&self, options: ClassifyOptions, deadline: Option<Duration>) -> Call {
        let call = self.open_bare(deadline).await.unwrap();
        call.send(Payload::Options(options)).await;
        call
    }

    /// Opens a stream and sends nothing.
    pub(crate) async fn open_bare(&self, deadline: Option<Duration>) -> Result<Call, Failure> {
        let (requests, queued) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(queued));
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        let response = self.client.clone().classify_stream(request).await.map_err(|status| failure(&status))?;
        Ok(Call { requests: Some(requests), responses: response.into_inner() })
    }

    /// Streams the whole audio and returns the answer.
    pub(crate) async fn stream(&self, options: ClassifyOptions, audio: &[u8]) -> Result<Verdict, Failure> {
        let mut call = self.open(options).await;
        call.send_audio(audio).await;
        call.verdict().await
    }

    pub(crate) async fn classify(&self, options: ClassifyOptions, audio: &[u8]) -> Result<Verdict, Failure> {
        let request = ClassifyRequest { options: Some(options), audio: audio.to_vec().into() };
        let response = self.client.clone().classify(request).await.map_err(|status| failure(&status))?;
        Ok(response.into_inner().verdict.unwrap())
    }

    /// The value of a metric with these labels; 0 if it was never touched.
    pub(crate) fn metric(&self, line_start: &str) -> u64 {
        let text = self.process.metrics.encode();
        let line = text.lines().find(|line| line.starts_with(line_start));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until a metric has a value.
    pub(crate) async fn wait_metric(&self, line_start: &str, value: u64) {
        for _ in 0..500 {
            if self.metric(line_start) == value {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("expected {line_start} {value}, found {}", self.metric(line_start));
    }
}

fn failure(status: &Status) -> Failure {
    Failure::from_status(status)
}

/// One `ClassifyStream` call.
pub(crate) struct Call {
    pub(crate) requests: Option<mpsc::Sender<ClassifyStreamRequest>>,
    pub(crate) responses: Streaming<ClassifyStreamResponse>,
}

impl Call {
    /// Sends a message, unless the gateway has closed the call.
    pub(crate) async fn send(&self, payload: Payload) {
        let request = ClassifyStreamRequest { payload: Some(payload) };
        let _ = self.requests.as_ref().unwrap().send(request).await;
    }

    /// Sends audio in pieces that do not match its chunks.
    pub(crate) async fn send_audio(&self, audio: &[u8]) {
        for piece in audio.chunks(777) {
            self.send(Payload::Audio(piece.to_vec().into())).await;
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        let message = tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("the gateway hangs");
        Ok(message.map_err(|status| failure(&status))?.map(|response| response.event.unwrap()))
    }

    pub(crate) async fn accepted(&mut self) -> Accepted {
        match self.next().await.unwrap() {
            Some(Event::Accepted(accepted)) => accepted,
            other => panic!("expected accepted, found {other:?}"),
        }
    }

    /// Ends the upload and reads all events.
    pub(crate) async fn events(&mut self) -> Result<Vec<Event>, Failure> {
        self.requests = None;
        let mut events = Vec::new();
        while let Some(event) = self.next().await? {
            events.push(event);
        }
        Ok(events)
    }

    /// Ends the upload and returns the verdict.
    pub(crate) async fn verdict(&mut self) -> Result<Verdict, Failure> {
        match self.events().await?.pop() {
            Some(Event::Verdict(verdict)) => Ok(verdict),
            other => panic!("expected a verdict, found {other:?}"),
        }
    }
}
