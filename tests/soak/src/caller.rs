//! One call to a gateway: what is sent, at what pace, and what came back.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chorale_proto::v1::{
    ChunkVote, ClassifyOptions, ClassifyRequest, ClassifyStreamRequest, ClassifyStreamResponse, Verdict,
    classifier_service_client::ClassifierServiceClient, classify_stream_request::Payload,
    classify_stream_response::Event,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    fleet::{Fleet, REPLICAS, Role},
    ledger::{Ledger, Seen},
};

/// Connections to each gateway that callers share.
const CONNECTIONS: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after its deadline a call may end: both sides share the machine.
const MARGIN: Duration = Duration::from_secs(10);
/// What a caller that has all the time in the world says.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
const MESSAGE_BYTES: usize = 64 * 1024;
/// Bytes of answers that a connection takes whose caller does not read: fewer than the votes of a long track.
const NARROW_WINDOW: u32 = 1_024;

/// What is sent, and how.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) audio: Bytes,
    pub(crate) options: ClassifyOptions,
    pub(crate) deadline: Duration,
    pub(crate) message_bytes: usize,
    /// Between two messages.
    pub(crate) pause: Duration,
    /// Whether to send nothing before the gateway says that it wants audio.
    pub(crate) waits: bool,
}

impl Call {
    pub(crate) fn of(audio: Bytes) -> Self {
        Self {
            audio,
            options: ClassifyOptions::default(),
            deadline: DEADLINE,
            message_bytes: MESSAGE_BYTES,
            pause: Duration::ZERO,
            waits: false,
        }
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = ClassifyStreamRequest> + Send + use<> {
        let (audio, message_bytes) = (self.audio.clone(), self.message_bytes);
        (0..audio.len()).step_by(message_bytes).map(move |start| {
            let message = audio.slice(start..audio.len().min(start + message_bytes));
            ClassifyStreamRequest { payload: Some(Payload::Audio(message)) }
        })
    }

    pub(crate) fn first(&self) -> ClassifyStreamRequest {
        ClassifyStreamRequest { payload: Some(Payload::Options(self.options.clone())) }
    }
}

/// What came back.
pub(crate) struct Attempt {
    pub(crate) began: Instant,
    pub(crate) accepted: bool,
    pub(crate) votes: Vec<ChunkVote>,
    pub(crate) ending: Ending,
}

/// How a call ended.
pub(crate) enum Ending {
    Verdict(Box<Verdict>),
    Failure(Status),
}

/// Connections to all gateways, and what was seen over them.
pub(crate) struct Caller {
    channels: Vec<Vec<Channel>>,
    endpoints: Vec<Endpoint>,
    pub(crate) ledger: Ledger,
    /// Whose turn it is among the connections.
    next: AtomicUsize,
}

impl Caller {
    pub(crate) async fn new(fleet: &Fleet) -> Self {
        let (mut channels, mut endpoints) = (Vec::new(), Vec::new());
        for gateway in 0..REPLICAS {
            let endpoint = fleet.slot(Role::Gateway, gateway).server.lock().await.endpoint().to_owned();
            let endpoint = Endpoint::from_shared(endpoint).expect("an endpoint is a URL");
            let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
            channels.push((0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect());
            endpoints.push(endpoint);
        }
        Self { channels, endpoints, ledger: Ledger::default(), next: AtomicUsize::new(0) }
    }

    /// A client with a connection that others use too.
    pub(crate) fn client(&self, gateway: usize) -> ClassifierServiceClient<Channel> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        ClassifierServiceClient::new(self.channels[gateway][turn % CONNECTIONS].clone())
    }

    /// A client with a connection of its own, which takes few answers that are not read.
    pub(crate) fn narrow_client(&self, gateway: usize) -> ClassifierServiceClient<Channel> {
        let endpoint = self.endpoints[gateway].clone().initial_stream_window_size(NARROW_WINDOW);
        ClassifierServiceClient::new(endpoint.connect_lazy())
    }

    /// Classifies in a stream. Fails the run if the call does not end in time, or its events are not those of the protocol.
    pub(crate) async fn stream(&self, gateway: usize, call: &Call) -> Attempt {
        let began = Instant::now();
        let (mut accepted, mut votes) = (false, Vec::new());
        let attempt = self.stream_events(gateway, call, &mut accepted, &mut votes);
        let ending = in_time(call.deadline, "stream", attempt).await;
        self.end(gateway, began, accepted, votes, ending)
    }

    async fn stream_events(
        &self,
        gateway: usize,
        call: &Call,
        accepted: &mut bool,
        votes: &mut Vec<ChunkVote>,
    ) -> Result<Verdict, Status> {
        let (requests, outgoing) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request.set_timeout(call.deadline);
        let (wanted, is_wanted) = oneshot::channel();
        let mut sender = JoinSet::new();
        sender.spawn(send(call.clone(), requests, is_wanted));
        let mut events = self.client(gateway).classify_stream(request).await?.into_inner();
        let mut wanted = Some(wanted);
        while let Some(event) = next_event(&mut events).await? {
            match event {
                Event::Accepted(word) => {
                    assert!(!*accepted && votes.is_empty(), "accepted comes first, and once");
                    *accepted = true;
                    if let Some(wanted) = wanted.take() {
                        // Whoever does not wait for it has sent everything already.
                        let _ = wanted.send(word.audio_wanted);
                    }
                }
                Event::ChunkVote(vote) => votes.push(vote),
                Event::Progress(progress) => {
                    assert!(progress.bytes_received <= call.audio.len() as u64, "{progress:?}");
                }
                Event::Envelope(_) => panic!("nobody asked for the waveform"),
                Event::Verdict(verdict) => {
                    assert!(*accepted, "a verdict before accepted");
                    let more = next_event(&mut events).await?;
                    assert_eq!(more, None, "the verdict is the last event");
                    return Ok(verdict);
                }
            }
        }
        panic!("a stream ended without a verdict and without an error");
    }

    /// Classifies in one message. Fails the run if the call does not end in time.
    pub(crate) async fn unary(&self, gateway: usize, call: &Call) -> Attempt {
        let began = Instant::now();
        let body = ClassifyRequest { options: Some(call.options.clone()), audio: call.audio.clone() };
        let mut request = Request::new(body);
        request.set_timeout(call.deadline);
        let mut client = self.client(gateway);
        let answer = in_time(call.deadline, "unary call", client.classify(request)).await;
        let verdict = answer.map(|response| response.into_inner().verdict.expect("an answer has a verdict"));
        self.end(gateway, began, false, Vec::new(), verdict)
    }

    fn end(
        &self,
        gateway: usize,
        began: Instant,
        accepted: bool,
        votes: Vec<ChunkVote>,
        verdict: Result<Verdict, Status>,
    ) -> Attempt {
        let seen = verdict.as_ref().map_or_else(Seen::of, |_| Seen::ok());
        self.ledger.enter(gateway, began, seen);
        let ending = verdict.map_or_else(Ending::Failure, |verdict| Ending::Verdict(Box::new(verdict)));
        Attempt { began, accepted, votes, ending }
    }

    /// Sends what `requests` holds and gives the events to `read`; then the caller leaves, whatever it has seen.
    pub(crate) async fn leave_after<T>(
        &self,
        gateway: usize,
        mut client: ClassifierServiceClient<Channel>,
        requests: mpsc::Receiver<ClassifyStreamRequest>,
        read: impl AsyncFnOnce(Option<&mut Streaming<ClassifyStreamResponse>>) -> T,
    ) -> T {
        let began = Instant::now();
        let mut request = Request::new(ReceiverStream::new(requests));
        request.set_timeout(DEADLINE);
        let events = client.classify_stream(request).await;
        let read = read(events.ok().map(tonic::Response::into_inner).as_mut()).await;
        self.ledger.enter(gateway, began, Seen::Left);
        read
    }
}

async fn next_event(events: &mut Streaming<ClassifyStreamResponse>) -> Result<Option<Event>, Status> {
    Ok(events.message().await?.map(|response| response.event.expect("an event holds something")))
}

async fn send(call: Call, requests: mpsc::Sender<ClassifyStreamRequest>, wanted: oneshot::Receiver<bool>) {
    if requests.send(call.first()).await.is_err() || (call.waits && wanted.await != Ok(true)) {
        return;
    }
    for message in call.messages() {
        // The gateway may end the call before it has read everything.
        if requests.send(message).await.is_err() {
            return;
        }
        if !call.pause.is_zero() {
            sleep(call.pause).await;
        }
    }
}

async fn in_time<T>(deadline: Duration, what: &str, call: impl Future<Output = T>) -> T {
    let patience = deadline + MARGIN;
    timeout(patience, call)
        .await
        .unwrap_or_else(|_| panic!("stuck: a {what} with {deadline:?} did not end in {patience:?}"))
}
