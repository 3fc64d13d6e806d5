//! `ClassifierService`: admission, the three RPCs, and one log line for each call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use chorale_model::contract::feature_id;
use chorale_proto::v1::{
    ClassifyRequest, ClassifyResponse, ClassifyStreamRequest, ClassifyStreamResponse, GetModelRequest,
    GetModelResponse, Limits, Verdict, classifier_service_server::ClassifierService, classify_stream_response::Event,
};
use chorale_runtime::{
    REQUEST_ID,
    connections::Peer,
    deadline::timeout_of,
    failure::{Failure, Reason},
    shares::{Full, Place, Places},
    trace::{self, Span},
};
use tokio::{
    sync::mpsc,
    time::{timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{MetadataMap, MetadataValue},
};

use crate::{
    auth::{Authenticator, Caller},
    classify::{Classification, Context, EventSender, Origin, deadline_passed},
    config::LimitsConfig,
    deadline::Deadline,
    metrics::{CallLabels, GatewayMetrics, GenreLabels, LimitLabels, Rpc},
    open_calls::{OpenCall, OpenCalls},
    request::{CheckedOptions, Upload},
};

/// Events that wait for a caller to read them.
const QUEUED_EVENTS: usize = 16;

/// The public service.
#[derive(Debug, Clone)]
pub(crate) struct Classifier {
    context: Arc<Context>,
    authenticator: Authenticator,
    places: Places,
    open: OpenCalls,
    drain: CancellationToken,
}

impl Classifier {
    /// Takes calls of those whom `authenticator` knows until `drain`.
    pub(crate) fn new(context: Context, authenticator: Authenticator, drain: CancellationToken) -> Self {
        let places = Places::new(count(context.limits.max_concurrent_streams));
        Self { context: Arc::new(context), authenticator, places, open: OpenCalls::default(), drain }
    }

    /// The calls that are served now.
    pub(crate) fn open_calls(&self) -> OpenCalls {
        self.open.clone()
    }

    /// Admits a call, before any work is done for it.
    fn admit<T>(&self, rpc: Rpc, request: &Request<T>) -> Result<Call, Status> {
        let stranger = Caller::of_peer(request.extensions().get::<Peer>());
        let span = Span::serve(rpc.full_name(), request.metadata());
        let mut call = Call::new(rpc, stranger, span, self.context.metrics.clone());
        match self.place(request, &mut call) {
            Ok(()) => {
                call.open(&self.open);
                Ok(call)
            }
            Err(refused) => {
                call.end(Err(&refused));
                Err(call.named(Status::from(refused)))
            }
        }
    }

    /// Finds out whose call it is, and takes a place for it.
    fn place<T>(&self, request: &Request<T>, call: &mut Call) -> Result<(), Failure> {
        call.caller = self.authenticator.identify(request.metadata(), request.extensions())?;
        if self.drain.is_cancelled() {
            return Err(Failure::new(Reason::Draining, "this replica is shutting down"));
        }
        let LimitsConfig { max_concurrent_streams, .. } = self.context.limits;
        let most = self.most_streams(&call.caller);
        let (limit, value, message) = match self.places.take(&call.caller.key, count(most)) {
            Ok(place) => {
                call.place = Some(place);
                return Ok(());
            }
            Err(Full::Share(open)) => {
                ("max_streams_per_caller", most, format!("this caller has {open} calls open already"))
            }
            Err(Full::Taken) => {
                let open = max_concurrent_streams;
                ("max_concurrent_streams", open, format!("this replica serves {open} streams already"))
            }
        };
        Err(Failure::new(Reason::Overloaded, message).with("limit", limit).with("value", value))
    }

    /// Calls that `caller` may have at a time.
    fn most_streams(&self, caller: &Caller) -> u32 {
        caller.max_streams.unwrap_or(self.context.limits.max_streams_per_caller)
    }

    async fn serve_stream(
        &self,
        mut stream: Streaming<ClassifyStreamRequest>,
        deadline: Option<Deadline>,
        events: &EventSender,
        call: &Call,
    ) -> Result<Verdict, Failure> {
        let idle_timeout = self.context.limits.idle_timeout;
        let options = timeout(idle_timeout, Upload::options(&mut stream));
        let options = match deadline {
            None => options.await,
            Some(deadline) => {
                timeout_at(deadline.answer_by(false), options).await.map_err(|_elapsed| deadline_passed())?
            }
        };
        let options = options.unwrap_or_else(|_elapsed| {
            let message = format!("no options came within {idle_timeout:?}");
            Err(Failure::limit("idle_timeout", format_args!("{idle_timeout:?}"), message))
        })?;
        let options = CheckedOptions::new(options, feature_id())?;
        let upload = Upload::Stream(Box::new(stream));
        Classification::new(&self.context, call.origin(), options, deadline, Some(events), &call.bytes)
            .run(upload)
            .await
    }
}

#[tonic::async_trait]
impl ClassifierService for Classifier {
    type ClassifyStreamStream = ReceiverStream<Result<ClassifyStreamResponse, Status>>;

    async fn classify_stream(
        &self,
        request: Request<Streaming<ClassifyStreamRequest>>,
    ) -> Result<Response<Self::ClassifyStreamStream>, Status> {
        let mut call = self.admit(Rpc::ClassifyStream, &request)?;
        let deadline = timeout_of(request.metadata()).and_then(Deadline::after);
        let (events, responses) = mpsc::channel(QUEUED_EVENTS);
        let response = call.named(Response::new(ReceiverStream::new(responses)));
        let service = self.clone();
        // A task of its own, so that deadlines and pauses are noticed also while the caller reads nothing.
        tokio::spawn(async move {
            let outcome = tokio::select! {
                biased;
                () = events.closed() => Err(gone()),
                outcome = service.serve_stream(request.into_inner(), deadline, &events, &call) => outcome,
            };
            call.end(outcome.as_ref());
            let last = match outcome {
                Ok(verdict) => Ok(ClassifyStreamResponse { event: Some(Event::Verdict(verdict)) }),
                Err(failure) => Err(failure.into()),
            };
            // A caller that is gone, or that reads nothing for so long, gets nothing.
            let _ = timeout(service.context.limits.idle_timeout, events.send(last)).await;
        });
        Ok(response)
    }

    async fn classify(&self, request: Request<ClassifyRequest>) -> Result<Response<ClassifyResponse>, Status> {
        let mut call = self.admit(Rpc::Classify, &request)?;
        let deadline = timeout_of(request.metadata()).and_then(Deadline::after);
        let ClassifyRequest { options, audio } = request.into_inner();
        let outcome = match CheckedOptions::new(options.unwrap_or_default(), feature_id()) {
            Err(failure) => Err(failure),
            Ok(options) => {
                let (origin, bytes) = (call.origin(), &call.bytes);
                let classification = Classification::new(&self.context, origin, options, deadline, None, bytes);
                classification.run(Upload::Whole(audio)).await
            }
        };
        call.end(outcome.as_ref());
        match outcome {
            Ok(verdict) => Ok(call.named(Response::new(ClassifyResponse { verdict: Some(verdict) }))),
            Err(failure) => Err(call.named(Status::from(failure))),
        }
    }

    async fn get_model(&self, request: Request<GetModelRequest>) -> Result<Response<GetModelResponse>, Status> {
        let caller = self.authenticator.identify(request.metadata(), request.extensions())?;
        let known = self.context.models.get()?;
        let limits = &self.context.limits;
        let limits = Limits {
            max_audio_bytes: limits.max_audio_bytes.as_u64(),
            max_message_bytes: limits.max_message_bytes.as_u64(),
            max_duration_seconds: limits.max_duration.as_secs_f64(),
            max_concurrent_streams: limits.max_concurrent_streams,
            idle_timeout: limits.idle_timeout.try_into().ok(),
            max_streams_per_caller: self.most_streams(&caller),
            min_upload_rate: limits.min_upload_rate.as_u64(),
        };
        let (model, models) = (Some(known.heaviest()), known.served());
        Ok(Response::new(GetModelResponse { model, limits: Some(limits), models }))
    }
}

/// One call, for the log and the metrics. Dropped without an end, its caller went away.
struct Call {
    request_id: String,
    span: Span,
    trace: trace::Context,
    caller: Caller,
    rpc: Rpc,
    began: Instant,
    bytes: Arc<AtomicU64>,
    metrics: GatewayMetrics,
    ended: bool,
    /// Where it is among the open ones, if it was admitted.
    open: Option<OpenCalls>,
    /// Held while it is served.
    place: Option<Place>,
}

impl Call {
    fn new(rpc: Rpc, caller: Caller, span: Span, metrics: GatewayMetrics) -> Self {
        metrics.open_streams.inc();
        let request_id = format!("{:032x}", rand::random::<u128>());
        span.set("chorale.request_id", request_id.clone());
        let (began, bytes) = (Instant::now(), Arc::default());
        let trace = span.context();
        Self { request_id, span, trace, caller, rpc, began, bytes, metrics, ended: false, open: None, place: None }
    }

    /// Counts it among the `open` ones until it ends.
    fn open(&mut self, open: &OpenCalls) {
        let call = OpenCall {
            caller: Arc::clone(&self.caller.key),
            rpc: self.rpc,
            trace_id: self.trace.trace_id(),
            began: self.began,
            bytes: Arc::clone(&self.bytes),
        };
        open.add(self.request_id.clone(), call);
        self.open = Some(open.clone());
    }

    /// Tells the caller what the call is called in logs.
    fn named<A: Answer>(&self, mut answer: A) -> A {
        if let Ok(request_id) = MetadataValue::try_from(&self.request_id) {
            answer.metadata_mut().insert(REQUEST_ID, request_id);
        }
        answer
    }

    fn origin(&self) -> Origin<'_> {
        Origin { request_id: &self.request_id, caller: &self.caller, trace: &self.trace }
    }

    fn end(&mut self, outcome: Result<&Verdict, &Failure>) {
        self.ended = true;
        let elapsed = self.began.elapsed().as_secs_f64();
        let code = outcome.map_or_else(|failure| failure.reason.name(), |_| "OK");
        let labels = CallLabels { rpc: self.rpc, code };
        self.metrics.calls.get_or_create(&labels).inc();
        let exemplar = self.trace.is_sampled().then(|| self.trace.trace_id()).flatten();
        let exemplar = exemplar.map(|trace_id| vec![("trace_id".to_owned(), trace_id)]);
        self.metrics.call_seconds.get_or_create(&labels).observe(elapsed, exemplar, None);
        let (request_id, rpc, bytes) = (&self.request_id, self.rpc, self.bytes.load(Ordering::Relaxed));
        let trace_id = self.trace.trace_id();
        self.span.set("chorale.code", code);
        let caller = &*self.caller.key;
        match outcome {
            Ok(verdict) => {
                self.metrics.verdicts.get_or_create(&GenreLabels { genre: verdict.genre.clone() }).inc();
                self.metrics.model_verdicts.count(&verdict.model_version);
                tracing::info!(
                    request_id,
                    trace_id,
                    caller,
                    ?rpc,
                    code,
                    genre = verdict.genre,
                    model = verdict.model_version,
                    confidence = verdict.confidence,
                    seconds = verdict.duration_seconds,
                    chunks = verdict.chunk_count,
                    bytes,
                    cached = verdict.cached,
                    elapsed,
                    "call"
                );
            }
            Err(failure) => {
                if let Some(limit) = failure.metadata.get("limit") {
                    self.metrics.limits_hit.get_or_create(&LimitLabels { limit: limit.clone() }).inc();
                }
                self.span.fail(failure.to_string());
                let message = failure.to_string();
                tracing::info!(request_id, trace_id, caller, ?rpc, code, message, bytes, elapsed, "call");
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Err(&gone()));
        }
        self.metrics.open_streams.dec();
        if let Some(open) = &self.open {
            open.remove(&self.request_id);
        }
    }
}

/// What carries metadata back to a caller.
trait Answer {
    fn metadata_mut(&mut self) -> &mut MetadataMap;
}

impl<T> Answer for Response<T> {
    fn metadata_mut(&mut self) -> &mut MetadataMap {
        Response::metadata_mut(self)
    }
}

impl Answer for Status {
    fn metadata_mut(&mut self) -> &mut MetadataMap {
        Status::metadata_mut(self)
    }
}

fn count(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn gone() -> Failure {
    Failure::new(Reason::Cancelled, "the caller went away")
}
