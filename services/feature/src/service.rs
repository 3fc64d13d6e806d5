//! `chorale.v1.FeatureService`: one upload in, its classified chunks out.
//!
//! Three things run at the same time for a track, and a failure of one ends all three: the upload is received, two threads
//! decode it and compute its chunks, and the chunks are classified and sent back in order. Between them are short queues,
//! so that a slow one slows the others: a caller that does not read, or inference that falls behind, pauses the decoder,
//! and a paused decoder pauses the upload. They begin when the track has its [turn](crate::turns).

use std::{io, ops::ControlFlow, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use chorale_model::contract;
use chorale_proto::v1::{
    AnalyzeOptions, AnalyzeRequest, AnalyzeResponse, ChunkResult, DescribeFeatureRequest, DescribeFeatureResponse,
    Envelope, analyze_request::Payload, analyze_response, feature_service_server::FeatureService,
};
use chorale_runtime::{
    CALLER, REQUEST_ID,
    connections::Peer,
    deadline::timeout_of,
    failure::{Failure, Reason},
    metrics::exemplar,
    overload::Urgency,
    priority::give_way,
    shares::{Full, Place, Places},
    trace::{self, Span},
};
use futures::{
    FutureExt, StreamExt, TryFutureExt,
    future::{self, Either},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    AudioInput, AudioSender, AudioSource, AudioSummary, Event, FeatureError, Limits, MelChunk,
    config::FeatureConfig,
    conveyor::analyze_on_two_cores,
    dispatch::{ChunkOptions, Dispatcher, deadline_passed},
    messages::{audio_input, summary_message},
    metrics::FeatureMetrics,
    open_streams::{OpenStream, OpenStreams},
    turns::{Party, SharedTurn, Turn, Turns},
};

/// Bytes in one message of an upload at most.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// A message is handed to the decoder in pieces of at most this many bytes, so that [`UPLOAD_QUEUE`] bounds bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for the decoder.
const UPLOAD_QUEUE: usize = 4;
/// Events that wait to be classified, beside those in the window.
const EVENT_QUEUE: usize = 4;
/// Chunks of a track that have spans of their own, those of the first nine minutes: a track of hours has thousands, which no
/// collector thanks us for.
const TRACED_CHUNKS: u32 = 256;
/// Responses that wait for the transport.
const RESPONSE_QUEUE: usize = 4;

type Responses = mpsc::Sender<Result<AnalyzeResponse, Status>>;

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AnalysisService {
    dispatcher: Dispatcher,
    metrics: FeatureMetrics,
    limits: Limits,
    window: usize,
    places: Places,
    turns: Arc<Turns>,
    open: OpenStreams,
    drain: CancellationToken,
}

impl AnalysisService {
    /// A service that takes no new stream once `drain` is cancelled.
    pub(crate) fn new(
        config: &FeatureConfig,
        dispatcher: Dispatcher,
        metrics: FeatureMetrics,
        drain: CancellationToken,
    ) -> Self {
        let max_streams = config.max_concurrent_streams.get();
        Self {
            turns: Turns::new(config.cores(), config.target_wait, max_streams, metrics.clone()),
            dispatcher,
            metrics,
            limits: Limits::from(&config.limits),
            window: config.dispatch.window.get(),
            places: Places::new(max_streams),
            open: OpenStreams::default(),
            drain,
        }
    }

    /// Who computes, and who waits.
    pub(crate) fn turns(&self) -> Arc<Turns> {
        Arc::clone(&self.turns)
    }

    /// The analyses that run.
    pub(crate) fn open(&self) -> OpenStreams {
        self.open.clone()
    }

    /// Admits a track of `party`, whose priority is not known yet.
    fn admit(&self, party: &Party) -> Result<Place, Failure> {
        if self.drain.is_cancelled() {
            let message = "this replica is shutting down; call again, another one will answer";
            return Err(Failure::new(Reason::Draining, message));
        }
        // Told before the call is admitted, so that the gateway asks another replica at once.
        if let Some(refusal) = self.turns.refusal(party) {
            return Err(refusal);
        }
        self.places.take(&party.caller, usize::MAX).map_err(|full| {
            let message = match full {
                Full::Taken => "all streams of this replica are taken (max_concurrent_streams)".to_owned(),
                Full::Share(open) => format!("this caller has {open} streams of this replica open already"),
            };
            Failure::new(Reason::Overloaded, message).with("limit", "max_concurrent_streams")
        })
    }

    /// Serves one stream, and reports how it went.
    async fn run(
        self,
        requests: Streaming<AnalyzeRequest>,
        caller: Arc<str>,
        place: Place,
        deadline: Option<Instant>,
        responses: Responses,
        call: CallName,
    ) {
        let began = Instant::now();
        self.metrics.open_streams.inc();
        let trace = call.span.context();
        let (request_id, trace_id) = (call.request_id.clone(), trace.trace_id());
        let listed = self.open.add(OpenStream { request_id, trace_id, caller: Arc::clone(&caller), began });
        let track = Track { service: &self, deadline, responses: &responses, trace: &trace };
        let analysis = track.analyze(requests, caller, place);
        let analysis = match deadline {
            Some(deadline) => Either::Left(
                timeout_at(deadline, analysis).map(|ended| ended.unwrap_or_else(|_| Err(deadline_passed()))),
            ),
            None => Either::Right(analysis),
        };
        // Boxed: it holds the state of the whole analysis.
        let analysis = analysis.boxed();
        let outcome = tokio::select! {
            outcome = analysis => outcome,
            () = responses.closed() => Err(caller_gone()),
        };
        drop(listed);
        self.metrics.open_streams.dec();
        self.report(&outcome, began.elapsed(), &call);
        if let Err(failure) = outcome {
            let _ = responses.send(Err(failure.into())).await;
        }
    }

    fn report(&self, outcome: &Result<AudioSummary, Failure>, elapsed: Duration, call: &CallName) {
        let CallName { request_id, span } = call;
        let trace_id = span.context().trace_id();
        let code = match outcome {
            Ok(summary) => {
                tracing::info!(
                    request_id,
                    trace_id,
                    code = "OK",
                    container = summary.container,
                    codec = summary.codec,
                    seconds = summary.duration_seconds,
                    chunks = summary.chunk_count,
                    warnings = summary.warnings.len(),
                    ?elapsed,
                    "analysed"
                );
                self.metrics.audio_seconds.inc_by(summary.duration_seconds);
                self.metrics.decode_seconds.observe(summary.decode_time.as_secs_f64());
                self.metrics.mel_seconds.observe(summary.mel_time.as_secs_f64());
                "OK"
            }
            Err(failure) => {
                let code = failure.reason.name();
                span.fail(failure.to_string());
                if failure.reason == Reason::Internal {
                    tracing::error!(request_id, trace_id, code, error = %failure, ?elapsed, "not analysed");
                } else {
                    tracing::info!(request_id, trace_id, code, error = %failure, ?elapsed, "not analysed");
                }
                code
            }
        };
        let labels = [("rpc", "Analyze"), ("code", code)];
        self.metrics.calls.get_or_create(&labels).inc();
        let exemplar = exemplar(&span.context());
        self.metrics.call_seconds.get_or_create(&labels).observe(elapsed.as_secs_f64(), exemplar, None);
    }
}

#[tonic::async_trait]
impl FeatureService for AnalysisService {
    type AnalyzeStream = ReceiverStream<Result<AnalyzeResponse, Status>>;

    async fn analyze(
        &self,
        request: Request<Streaming<AnalyzeRequest>>,
    ) -> Result<Response<Self::AnalyzeStream>, Status> {
        let party = Party { caller: caller_of(&request), urgency: Urgency::Interactive };
        let call = CallName::of(&request);
        let refuse = |failure: &Failure| self.report(&Err(failure.clone()), Duration::ZERO, &call);
        let place = self.admit(&party).inspect_err(refuse)?;
        let deadline = timeout_of(request.metadata()).and_then(|timeout| Instant::now().checked_add(timeout));
        let (responses, outgoing) = mpsc::channel(RESPONSE_QUEUE);
        tokio::spawn(self.clone().run(request.into_inner(), party.caller, place, deadline, responses, call));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn describe_feature(
        &self,
        _: Request<DescribeFeatureRequest>,
    ) -> Result<Response<DescribeFeatureResponse>, Status> {
        let models = self.dispatcher.describe().await?;
        let model = models.first().and_then(|heaviest| heaviest.model.clone());
        Ok(Response::new(DescribeFeatureResponse { feature_id: contract::feature_id().to_owned(), model, models }))
    }
}

/// What a call is called in logs and traces.
struct CallName {
    /// As the gateway says.
    request_id: Option<String>,
    span: Span,
}

impl CallName {
    fn of<T>(request: &Request<T>) -> Self {
        let request_id = request.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        Self { request_id, span: Span::serve("chorale.v1.FeatureService/Analyze", request.metadata()) }
    }
}

/// One track on its way.
#[derive(Clone, Copy)]
struct Track<'a> {
    service: &'a AnalysisService,
    deadline: Option<Instant>,
    responses: &'a Responses,
    trace: &'a trace::Context,
}

impl Track<'_> {
    async fn analyze(
        self,
        mut requests: Streaming<AnalyzeRequest>,
        caller: Arc<str>,
        place: Place,
    ) -> Result<AudioSummary, Failure> {
        let options = receive_options(&mut requests).await?;
        let input = audio_input(&options)?;
        // A caller that says nothing yet takes no core.
        let first = next_request(&mut requests).await?;
        let waiting = self.trace.child("turn");
        let turn = self.service.turns.enter(Party { caller, urgency: options.priority().into() }).await?;
        drop(waiting);
        let began = Instant::now();
        let (audio, source) = AudioSource::channel(UPLOAD_QUEUE);
        let (events, known) = mpsc::channel(EVENT_QUEUE);
        let decoding = decode_on_thread(source, input, self.service.limits.clone(), events, turn, place)?;

        // To drop these is to abort: the decoder's thread ends when the upload or the events' receiver is gone.
        let upload = self.receive_audio(first, requests, audio);
        let decoding = decoding
            .unwrap_or_else(|_| Err(DecodeFailure::Panic))
            .map_err(|failure| self.explain(failure))
            .inspect_err(|failure| {
                self.trace.record_failure("decode", Instant::now().into_std(), began.elapsed(), failure.to_string());
            });
        let results = self.send_results(known, &options);
        let decoding = decoding.inspect_ok(|summary| self.trace_analysis(summary, began.elapsed()));
        let ((), summary, ()) = future::try_join3(upload, decoding, results).await?;

        self.respond(analyze_response::Event::Summary(summary_message(&summary))).await?;
        Ok(summary)
    }

    /// Decoding and features, which ran beside each other for so long, until now; how long each was busy is told beside.
    fn trace_analysis(self, summary: &AudioSummary, elapsed: Duration) {
        for (name, busy) in [("decode", summary.decode_time), ("mel", summary.mel_time)] {
            self.trace.record(
                name,
                Instant::now().into_std(),
                elapsed,
                &[("chorale.busy_seconds", busy.as_secs_f64())],
            );
        }
    }

    async fn receive_audio(
        self,
        first: Option<AnalyzeRequest>,
        mut requests: Streaming<AnalyzeRequest>,
        audio: AudioSender,
    ) -> Result<(), Failure> {
        let mut next = first;
        while let Some(request) = next {
            let Some(Payload::Audio(mut bytes)) = request.payload else {
                return Err(Failure::invalid("audio", "expected `audio` in every message after the first"));
            };
            self.service.metrics.audio_bytes.inc_by(bytes.len() as u64);
            while !bytes.is_empty() {
                let piece: Bytes = bytes.split_to(bytes.len().min(PIECE_BYTES));
                if audio.send(piece).await.is_err() {
                    // The decoder has ended; its result says why.
                    return Ok(());
                }
            }
            next = next_request(&mut requests).await?;
        }
        audio.finish();
        Ok(())
    }

    async fn send_results(self, known: mpsc::Receiver<Known>, options: &AnalyzeOptions) -> Result<(), Failure> {
        let mut results =
            ReceiverStream::new(known).map(|known| self.complete(known, options)).buffered(self.service.window);
        while let Some(result) = results.next().await {
            self.respond(result?).await?;
        }
        Ok(())
    }

    /// Begins to complete an event with the model's answer.
    fn complete(
        self,
        known: Known,
        options: &AnalyzeOptions,
    ) -> impl Future<Output = Result<analyze_response::Event, Failure>> + Send + use<> {
        let chunk = match known {
            Known::Envelope(envelope) => {
                return Either::Left(future::ready(Ok(analyze_response::Event::Envelope(envelope))));
            }
            Known::Chunk(chunk) => chunk,
        };
        let kind = if chunk.silent { "silent" } else { "voiced" };
        self.service.metrics.chunks.get_or_create(&[("kind", kind)]).inc();
        let mut result = ChunkResult {
            index: chunk.index,
            start_seconds: chunk.start_seconds,
            end_seconds: chunk.end_seconds,
            silent: chunk.silent,
            prediction: None,
            mel: if options.want_mel { chunk.cells.clone() } else { Bytes::new() },
        };
        if chunk.silent {
            return Either::Left(future::ready(Ok(analyze_response::Event::Chunk(result))));
        }
        let dispatcher = self.service.dispatcher.clone();
        let options = ChunkOptions {
            model_version: options.model_version.clone(),
            priority: options.priority(),
            want_embedding: options.want_embedding,
            deadline: self.deadline,
            trace: if chunk.index < TRACED_CHUNKS { self.trace.clone() } else { trace::Context::default() },
        };
        // A task of its own: a caller that does not read must not keep a chunk from making way for those of others.
        let classified = tokio::spawn(async move { dispatcher.classify(chunk.cells, &options).await });
        let classified = AbortOnDropHandle::new(classified);
        Either::Right(async move {
            let answered = classified.await;
            result.prediction =
                Some(answered.map_err(|_| Failure::new(Reason::Internal, "the dispatch of a chunk panicked"))??);
            Ok(analyze_response::Event::Chunk(result))
        })
    }

    async fn respond(self, event: analyze_response::Event) -> Result<(), Failure> {
        self.responses.send(Ok(AnalyzeResponse { event: Some(event) })).await.map_err(|_| caller_gone())
    }

    fn explain(self, failure: DecodeFailure) -> Failure {
        let (failure, codec) = match failure {
            DecodeFailure::Audio(error, codec) => (error.into(), codec),
            DecodeFailure::Panic => (Failure::new(Reason::Internal, "the decoder panicked on this audio"), None),
        };
        if failure.reason != Reason::Cancelled {
            let labels = [("codec", codec.unwrap_or("unknown")), ("kind", failure.reason.name())];
            self.service.metrics.decode_errors.get_or_create(&labels).inc();
        }
        failure
    }
}

/// An event that owns what it holds.
enum Known {
    Chunk(MelChunk),
    Envelope(Envelope),
}

impl From<Event<'_>> for Known {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Chunk(chunk) => Self::Chunk(chunk.quantize()),
            Event::Envelope(envelope) => Self::Envelope(Envelope {
                start_seconds: envelope.start_seconds,
                span_seconds: envelope.span_seconds,
                minima: envelope.minima,
                maxima: envelope.maxima,
            }),
        }
    }
}

enum DecodeFailure {
    /// With the codec, if it was known by then.
    Audio(FeatureError, Option<&'static str>),
    Panic,
}

/// Decodes on threads of its own: they sleep while they wait for the upload, which may take as long as the caller
/// likes, and must not take the runtime's blocking threads meanwhile. `turn` rests while they wait, and `place` is given
/// back when they end.
fn decode_on_thread(
    source: AudioSource,
    input: AudioInput,
    limits: Limits,
    events: mpsc::Sender<Known>,
    turn: Turn,
    place: Place,
) -> Result<oneshot::Receiver<Result<AudioSummary, DecodeFailure>>, Failure> {
    let (ended, end) = oneshot::channel();
    let turn = SharedTurn::from(turn);
    source.take_turns(turn.clone());
    let decode = move || {
        // The thread for features inherits this.
        give_way();
        let mut sink = |event: Event<'_>| match events.blocking_send(event.into()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let outcome = analyze_on_two_cores(&source, &input, &limits, &turn, &mut sink)
            .map_err(|error| DecodeFailure::Audio(error, source.codec()));
        drop((source, turn));
        drop(place);
        // Nobody listens if the stream has ended.
        let _ = ended.send(outcome);
    };
    let no_thread = |error: io::Error| Failure::new(Reason::Overloaded, format!("no thread for the decoder: {error}"));
    thread::Builder::new().name("decode".to_owned()).spawn(decode).map_err(no_thread)?;
    Ok(end)
}

async fn next_request(requests: &mut Streaming<AnalyzeRequest>) -> Result<Option<AnalyzeRequest>, Failure> {
    requests.message().await.map_err(|status| receive_failure(&status))
}

async fn receive_options(requests: &mut Streaming<AnalyzeRequest>) -> Result<AnalyzeOptions, Failure> {
    let first = next_request(requests).await?;
    let Some(Payload::Options(options)) = first.and_then(|request| request.payload) else {
        return Err(Failure::invalid("options", "expected `options` in the first message"));
    };
    let expected = contract::feature_id();
    if !options.feature_id.is_empty() && options.feature_id != expected {
        let message = format!(
            "the caller expects feature contract {:?}, this service computes {expected:?}: run the same release on both sides",
            options.feature_id
        );
        return Err(Failure::new(Reason::FeatureMismatch, message));
    }
    Ok(options)
}

/// Whose track it is: whom the gateway names, or else who is connected.
fn caller_of<T>(request: &Request<T>) -> Arc<str> {
    let named = request.metadata().get(CALLER).and_then(|caller| caller.to_str().ok());
    named.map_or_else(
        || format!("{:?}", request.extensions().get::<Peer>().and_then(|peer| peer.address)).into(),
        Into::into,
    )
}

fn caller_gone() -> Failure {
    Failure::new(Reason::Cancelled, "the caller went away before the end of the track")
}

/// Why the next message did not come.
fn receive_failure(status: &Status) -> Failure {
    match status.code() {
        Code::OutOfRange => Failure::limit(
            "max_message_bytes",
            MAX_MESSAGE_BYTES,
            format!("a message may hold {MAX_MESSAGE_BYTES} bytes; send the audio in smaller messages"),
        ),
        Code::Internal | Code::InvalidArgument | Code::Unimplemented => {
            Failure::invalid("payload", format!("expected an `AnalyzeRequest`: {}", status.message()))
        }
        _ => caller_gone(),
    }
}
