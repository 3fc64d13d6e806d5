//! Chunks to inference replicas: balanced chunk by chunk, sent again when a replica goes away.
//!
//! Each replica has one long-lived `Infer` stream that all tracks share. A stream's life:
//!
//! ```text
//!            a chunk comes                     the stream ends
//!   idle ───────────────────▶ open ─────────────────────────────────▶ resting
//!                              ▲     every chunk in flight is told,      │
//!                              │     and goes to another replica         │
//!                              └─────────────────────────────────────────┘
//!                                 a chunk comes after the rest, which is
//!                                longer each time until an answer arrives
//! ```

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use chorale_model::contract;
use chorale_proto::v1::{
    ChunkError, DescribeInferenceRequest, InferRequest, InferResponse, Prediction, Priority, ServedModel,
    infer_response, inference_service_client::InferenceServiceClient,
};
use chorale_runtime::{
    failure::{Failure, Reason},
    replicas::{Assigned, Replica, Replicas},
    trace,
};
use futures::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use crate::{
    config::DispatchConfig,
    lacking::Lacking,
    metrics::FeatureMetrics,
    served::{most_common, served_by},
};

/// Chunks that wait for a replica's stream to take them, per replica. The stream's own flow control holds more.
const REQUEST_QUEUE: usize = 16;
/// How often a chunk may vanish with its replica. A chunk that kills replicas must not take them all down.
const MAX_LOSSES: u32 = 5;
/// How long a replica may take to describe itself: less than a gateway waits for all of them.
const DESCRIBE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Pauses between the attempts for one chunk.
const CHUNK_BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(10))
    .with_max_delay(Duration::from_millis(500))
    .with_jitter()
    .without_max_times();
/// Rests between the streams to one replica; short against the patience of a chunk.
const STREAM_BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(20))
    .with_max_delay(Duration::from_millis(250))
    .with_jitter()
    .without_max_times();

type Backoff = <ExponentialBuilder as BackoffBuilder>::Backoff;

/// What the track of a chunk asks for.
#[derive(Debug, Clone, Default)]
pub struct ChunkOptions {
    /// The version of the model that is to answer; empty for whatever has the largest weight on the replica.
    pub model_version: String,
    /// Whether it may wait for chunks that come after it.
    pub priority: Priority,
    /// Whether the answer is to have an embedding.
    pub want_embedding: bool,
    /// When nobody waits for the answer any more.
    pub deadline: Option<Instant>,
    /// Whose span it belongs to.
    pub trace: trace::Context,
}

/// Sends chunks to the inference replicas. Cheap to clone; all clones share the streams.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    replicas: Replicas,
    config: DispatchConfig,
    metrics: FeatureMetrics,
    links: Mutex<HashMap<SocketAddr, Arc<Link>>>,
    lacking: Lacking,
}

impl Dispatcher {
    /// A dispatcher over `replicas`. No stream is opened before a chunk comes.
    #[must_use]
    pub fn new(replicas: Replicas, config: DispatchConfig, metrics: FeatureMetrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                replicas,
                config,
                metrics,
                links: Mutex::default(),
                lacking: Lacking::default(),
            }),
        }
    }

    /// Classifies one chunk: `mel` is row-major `[128 mel][96 frames]`, a byte each.
    ///
    /// To drop the future is to cancel the chunk: its answer is ignored.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` at the deadline; `OVERLOADED` or `DEPENDENCY_UNAVAILABLE` if every replica refused the chunk, was
    /// away, or does not have the version, for longer than the configuration allows; what the replica said if another one would
    /// say the same.
    pub async fn classify(&self, mel: Bytes, options: &ChunkOptions) -> Result<Prediction, Failure> {
        let answer = self.traced_answer(mel, options);
        match options.deadline {
            Some(deadline) => timeout_at(deadline, answer).await.unwrap_or_else(|_| Err(deadline_passed())),
            None => answer.await,
        }
    }

    async fn traced_answer(&self, mel: Bytes, options: &ChunkOptions) -> Result<Prediction, Failure> {
        let span = options.trace.call("chorale.v1.InferenceService/Infer");
        let answer = self.answer(mel, options, &span.context().traceparent()).await;
        answer.inspect_err(|failure| span.fail(failure.to_string()))
    }

    async fn answer(&self, mel: Bytes, options: &ChunkOptions, traceparent: &str) -> Result<Prediction, Failure> {
        let Shared { config, metrics, .. } = &*self.shared;
        let began = Instant::now();
        let mut away_since = None;
        let mut losses = 0;
        let mut pauses = CHUNK_BACKOFF.build();
        loop {
            // Counted until after the pause: a replica that refuses at once must not look idle and draw more chunks.
            let replica = self.pick(&options.model_version);
            let attempt = match &replica {
                Some(replica) => self.attempt(replica, mel.clone(), options, traceparent).await,
                None => Err(Setback::Away(self.why_none(&options.model_version))),
            };
            let retry_reason = match attempt {
                Ok(prediction) => return Ok(prediction),
                Err(Setback::Final(failure)) => return Err(failure),
                Err(Setback::Away(why)) => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= config.connect_patience {
                        return Err(unavailable(format!("no inference replica can be reached: {why}")));
                    }
                    "unavailable"
                }
                // The next one is picked among the others, so that this ends without a pause.
                Err(Setback::Lacking) => {
                    count_retry(metrics, "lacking");
                    continue;
                }
                Err(Setback::Lost(why)) => {
                    away_since = None;
                    losses += 1;
                    if losses >= MAX_LOSSES {
                        return Err(unavailable(format!("a chunk got no answer in {losses} attempts: {why}")));
                    }
                    "lost"
                }
                Err(Setback::Overloaded(failure)) => {
                    away_since = None;
                    if began.elapsed() >= config.overload_patience {
                        return Err(failure);
                    }
                    "overloaded"
                }
            };
            count_retry(metrics, retry_reason);
            sleep(pauses.next().unwrap_or_default()).await;
        }
    }

    /// A replica that may have the version.
    fn pick(&self, model_version: &str) -> Option<Assigned> {
        let lacking = self.shared.lacking.of(model_version, Instant::now());
        self.shared.replicas.pick_where(|replica| !lacking.contains(&replica.address()))
    }

    fn why_none(&self, model_version: &str) -> String {
        match self.shared.replicas.current().as_slice() {
            [] => "none is known".to_owned(),
            _ => format!("none has the model version {model_version:?}"),
        }
    }

    async fn attempt(
        &self,
        replica: &Assigned,
        mel: Bytes,
        options: &ChunkOptions,
        traceparent: &str,
    ) -> Result<Prediction, Setback> {
        let timeout_millis = match options.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => 0,
            // 0 on the wire is no deadline at all.
            Some(left) => u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1),
        };
        let feature_id = contract::feature_id().to_owned();
        let ChunkOptions { model_version, priority, want_embedding, .. } = options;
        let request = InferRequest {
            tag: 0,
            mel,
            feature_id,
            timeout_millis,
            priority: (*priority).into(),
            model_version: model_version.clone(),
            traceparent: traceparent.to_owned(),
            want_embedding: *want_embedding,
        };
        let patience = self.shared.config.answer_patience;
        let asked = self.link(replica.address()).ask(replica.channel(), request);
        let outcome = timeout(patience, asked)
            .await
            .unwrap_or_else(|_| Err(Setback::Lost(format!("{} did not answer for {patience:?}", replica.address()))));
        match &outcome {
            Err(Setback::Away(why) | Setback::Lost(why)) => {
                tracing::debug!(address = %replica.address(), why, "chunk not answered");
                replica.failed();
            }
            Err(Setback::Lacking) => self.shared.lacking.note(model_version, replica.address(), Instant::now()),
            // A replica of an older release takes no notice of the version.
            Ok(prediction) if !model_version.is_empty() && prediction.model_version != *model_version => {
                self.shared.lacking.note(model_version, replica.address(), Instant::now());
                return Err(Setback::Lacking);
            }
            Ok(_) => replica.answered(),
            Err(Setback::Final(_) | Setback::Overloaded(_)) => {}
        }
        outcome
    }

    fn link(&self, address: SocketAddr) -> Arc<Link> {
        let mut links = lock(&self.shared.links);
        if let Some(link) = links.get(&address) {
            return Arc::clone(link);
        }
        let current = self.shared.replicas.current();
        // The stream to a replica that left ends with its last chunk.
        links.retain(|known, _| current.iter().any(|replica| replica.address() == *known));
        Arc::clone(links.entry(address).or_insert_with(|| Arc::new(Link::new(address))))
    }

    /// Asks all replicas for their models: what most of those that answer serve, the model with the largest weight first.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE` if none answers; `FEATURE_MISMATCH` if all of them have models of another feature contract.
    pub async fn describe(&self) -> Result<Vec<ServedModel>, Failure> {
        let replicas = self.shared.replicas.current();
        let mut sets = Vec::new();
        let mut failure = None;
        for described in join_all(replicas.iter().map(|replica| describe(replica))).await {
            match described {
                Ok(set) => sets.push(set),
                // That a replica cannot be used says more than that another one is away.
                Err(other) if other.reason == Reason::FeatureMismatch => failure = Some(other),
                Err(other) => failure = failure.or(Some(other)),
            }
        }
        let none_known = || unavailable("no inference replica describes itself: none is known".to_owned());
        most_common(sets).ok_or_else(|| failure.unwrap_or_else(none_known))
    }
}

async fn describe(replica: &Replica) -> Result<Vec<ServedModel>, Failure> {
    let mut client = InferenceServiceClient::new(replica.channel());
    let address = replica.address();
    let away = match timeout(DESCRIBE_TIMEOUT, client.describe_inference(DescribeInferenceRequest {})).await {
        Ok(Ok(response)) => {
            let no_model = || Failure::new(Reason::Internal, format!("inference at {address} names no model"));
            return served_by(response.into_inner()).ok_or_else(no_model).and_then(same_contract);
        }
        Ok(Err(status)) => format!("{address}: {}", status.message()),
        Err(_) => format!("{address} did not answer for {DESCRIBE_TIMEOUT:?}"),
    };
    replica.failed();
    Err(unavailable(format!("no inference replica describes itself: {away}")))
}

fn count_retry(metrics: &FeatureMetrics, reason: &'static str) {
    metrics.dispatch_retries.get_or_create(&[("reason", reason)]).inc();
}

fn same_contract(set: Vec<ServedModel>) -> Result<Vec<ServedModel>, Failure> {
    let expected = contract::feature_id();
    let mut models = set.iter().filter_map(|served| served.model.as_ref());
    let Some(other) = models.find(|model| model.feature_id != expected) else { return Ok(set) };
    let message = format!(
        "model {:?} was trained on feature contract {:?}, but this service computes {expected:?}: run the same release on both sides",
        other.name, other.feature_id,
    );
    Err(Failure::new(Reason::FeatureMismatch, message))
}

fn unavailable(message: String) -> Failure {
    Failure::new(Reason::DependencyUnavailable, message)
}

/// The failure of work that a caller's deadline ended.
pub(crate) fn deadline_passed() -> Failure {
    Failure::new(Reason::DeadlineExceeded, "the deadline passed before the track was analysed")
}

/// Why an attempt for a chunk gave no prediction.
#[derive(Debug, Clone)]
enum Setback {
    /// The replica did not take the chunk: it cannot be reached, or it drains.
    Away(String),
    /// The replica took the chunk, and died or fell silent.
    Lost(String),
    /// The replica does not have the version of the model.
    Lacking,
    /// The replica's queue is full.
    Overloaded(Failure),
    /// Another replica would say the same.
    Final(Failure),
}

impl Setback {
    /// Why a stream ended, where `otherwise` is what most failures of it mean.
    fn of_stream(status: &Status, address: SocketAddr, otherwise: fn(String) -> Self) -> Self {
        let failure = Failure::from_status(status);
        match failure.reason {
            Reason::FeatureMismatch | Reason::RequestInvalid => Self::Final(failure),
            Reason::Overloaded => Self::Overloaded(failure),
            Reason::Draining => Self::Away(format!("{address} drains")),
            _ => otherwise(format!("{address}: {}", failure.message)),
        }
    }
}

impl From<ChunkError> for Setback {
    fn from(error: ChunkError) -> Self {
        let failure = match Reason::ALL.iter().find(|reason| reason.name() == error.reason) {
            Some(&reason) => Failure::new(reason, error.message),
            None => Failure::from_status(&Status::new(error.code.into(), error.message)),
        };
        match failure.reason {
            Reason::Overloaded => Self::Overloaded(failure),
            Reason::Draining => Self::Away(failure.message),
            Reason::ModelUnknown => Self::Lacking,
            Reason::DependencyUnavailable => Self::Lost(failure.message),
            _ => Self::Final(failure),
        }
    }
}

type Answer = Result<Prediction, Setback>;

/// The way to one replica.
#[derive(Debug)]
struct Link {
    address: SocketAddr,
    state: Mutex<LinkState>,
}

#[derive(Debug)]
struct LinkState {
    session: Option<Session>,
    /// Unique over all sessions, so that a late cancellation cannot hit another chunk.
    next_tag: u64,
    rest_until: Instant,
    rests: Backoff,
}

/// An open `Infer` stream.
#[derive(Debug)]
struct Session {
    requests: mpsc::Sender<InferRequest>,
    in_flight: HashMap<u64, oneshot::Sender<Answer>>,
}

/// One chunk's place in a session; given up when dropped.
struct Ticket {
    link: Arc<Link>,
    tag: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(session) = &mut lock(&self.link.state).session {
            session.in_flight.remove(&self.tag);
        }
    }
}

impl Link {
    fn new(address: SocketAddr) -> Self {
        let state = LinkState { session: None, next_tag: 0, rest_until: Instant::now(), rests: STREAM_BACKOFF.build() };
        Self { address, state: Mutex::new(state) }
    }

    /// Sends `request`, with a tag of its own.
    async fn ask(self: Arc<Self>, channel: Channel, request: InferRequest) -> Answer {
        let address = self.address;
        let (mut ticket, requests) = self.enter(channel)?;
        // If the stream has ended, the ticket's answer says so.
        let _ = requests.send(InferRequest { tag: ticket.tag, ..request }).await;
        drop(requests);
        let answer = (&mut ticket.answer).await;
        answer.unwrap_or_else(|_| Err(Setback::Lost(format!("{address}: the stream was given up"))))
    }

    /// Takes a place in the open session, or opens one.
    fn enter(self: Arc<Self>, channel: Channel) -> Result<(Ticket, mpsc::Sender<InferRequest>), Setback> {
        let mut state = lock(&self.state);
        if state.session.is_none() && Instant::now() < state.rest_until {
            return Err(Setback::Away(format!("{} failed a moment ago", self.address)));
        }
        let tag = state.next_tag;
        state.next_tag += 1;
        let session = state.session.get_or_insert_with(|| {
            let (requests, outgoing) = mpsc::channel(REQUEST_QUEUE);
            tokio::spawn(run_session(Arc::downgrade(&self), self.address, channel, outgoing));
            Session { requests, in_flight: HashMap::new() }
        });
        let (reply, answer) = oneshot::channel();
        session.in_flight.insert(tag, reply);
        let requests = session.requests.clone();
        drop(state);
        Ok((Ticket { link: self, tag, answer }, requests))
    }

    fn answered(&self, response: InferResponse) {
        let answer = match response.result {
            Some(infer_response::Result::Prediction(prediction)) => Ok(prediction),
            Some(infer_response::Result::Error(error)) => Err(error.into()),
            None => Err(Setback::Final(Failure::new(
                Reason::Internal,
                format!("{}: an answer holds nothing", self.address),
            ))),
        };
        let mut state = lock(&self.state);
        state.rests = STREAM_BACKOFF.build();
        let reply = state.session.as_mut().and_then(|session| session.in_flight.remove(&response.tag));
        drop(state);
        // Without a reply, the caller has cancelled the chunk.
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
    }

    fn ended(&self, why: &Setback) {
        let mut state = lock(&self.state);
        state.rest_until = Instant::now() + state.rests.next().unwrap_or_default();
        let session = state.session.take();
        drop(state);
        let in_flight = session.map(|session| session.in_flight).unwrap_or_default();
        tracing::info!(address = %self.address, chunks = in_flight.len(), ?why, "inference stream ended");
        for reply in in_flight.into_values() {
            let _ = reply.send(Err(why.clone()));
        }
    }
}

/// Opens a stream and hands out its answers until it ends. The link owns the sender of `requests`: when the link is
/// dropped, the stream ends.
async fn run_session(link: Weak<Link>, address: SocketAddr, channel: Channel, requests: mpsc::Receiver<InferRequest>) {
    let mut client = InferenceServiceClient::new(channel);
    let why = match client.infer(ReceiverStream::new(requests)).await {
        Ok(response) => hand_out(&link, address, response.into_inner()).await,
        Err(status) => Setback::of_stream(&status, address, Setback::Away),
    };
    if let Some(link) = link.upgrade() {
        link.ended(&why);
    }
}

async fn hand_out(link: &Weak<Link>, address: SocketAddr, mut responses: Streaming<InferResponse>) -> Setback {
    loop {
        match responses.message().await {
            Ok(Some(response)) => {
                if let Some(link) = link.upgrade() {
                    link.answered(response);
                }
            }
            Ok(None) => return Setback::Away(format!("{address} drains")),
            Err(status) => return Setback::of_stream(&status, address, Setback::Lost),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
