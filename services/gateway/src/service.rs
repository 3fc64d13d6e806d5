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
    deadline::timeout_of,
    failure::{Failure, Reason},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    classify::{Classification, Context, EventSender, deadline_passed},
    deadline::Deadline,
    metrics::{CallLabels, GatewayMetrics, GenreLabels, Rpc},
    request::{CheckedOptions, Upload},
};

/// Events that wait for a caller to read them.
const QUEUED_EVENTS: usize = 16;

/// The public service.
#[derive(Debug, Clone)]
pub(crate) struct Classifier {
    context: Arc<Context>,
    permits: Arc<Semaphore>,
    drain: CancellationToken,
}

impl Classifier {
    /// Takes calls until `drain`.
    pub(crate) fn new(context: Context, drain: CancellationToken) -> Self {
        let streams = usize::try_from(context.limits.max_concurrent_streams).unwrap_or(Semaphore::MAX_PERMITS);
        Self { context: Arc::new(context), permits: Arc::new(Semaphore::new(streams)), drain }
    }

    /// Admits a call, before any work is done for it.
    fn admit(&self, rpc: Rpc) -> Result<Call, Status> {
        let mut call = Call::new(rpc, self.context.metrics.clone());
        let refused = if self.drain.is_cancelled() {
            Failure::new(Reason::Draining, "this replica is shutting down")
        } else {
            match Arc::clone(&self.permits).try_acquire_owned() {
                Ok(permit) => {
                    call.permit = Some(permit);
                    return Ok(call);
                }
                Err(_) => {
                    let limit = self.context.limits.max_concurrent_streams;
                    let message = format!("this replica serves {limit} streams already");
                    Failure::new(Reason::Overloaded, message)
                        .with("limit", "max_concurrent_streams")
                        .with("value", limit)
                }
            }
        };
        call.end(Err(&refused));
        Err(refused.into())
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
        Classification::new(&self.context, &call.request_id, options, deadline, Some(events), &call.bytes)
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
        let mut call = self.admit(Rpc::ClassifyStream)?;
        let deadline = timeout_of(request.metadata()).and_then(Deadline::after);
        let (events, responses) = mpsc::channel(QUEUED_EVENTS);
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
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn classify(&self, request: Request<ClassifyRequest>) -> Result<Response<ClassifyResponse>, Status> {
        let mut call = self.admit(Rpc::Classify)?;
        let deadline = timeout_of(request.metadata()).and_then(Deadline::after);
        let ClassifyRequest { options, audio } = request.into_inner();
        let outcome = match CheckedOptions::new(options.unwrap_or_default(), feature_id()) {
            Err(failure) => Err(failure),
            Ok(options) => {
                let Call { request_id, bytes, .. } = &call;
                let classification = Classification::new(&self.context, request_id, options, deadline, None, bytes);
                classification.run(Upload::Whole(audio)).await
            }
        };
        call.end(outcome.as_ref());
        Ok(Response::new(ClassifyResponse { verdict: Some(outcome?) }))
    }

    async fn get_model(&self, _request: Request<GetModelRequest>) -> Result<Response<GetModelResponse>, Status> {
        let known = self.context.models.get()?;
        let limits = &self.context.limits;
        let limits = Limits {
            max_audio_bytes: limits.max_audio_bytes.as_u64(),
            max_message_bytes: limits.max_message_bytes.as_u64(),
            max_duration_seconds: limits.max_duration.as_secs_f64(),
            max_concurrent_streams: limits.max_concurrent_streams,
            idle_timeout: limits.idle_timeout.try_into().ok(),
        };
        let (model, models) = (Some(known.heaviest()), known.served());
        Ok(Response::new(GetModelResponse { model, limits: Some(limits), models }))
    }
}

/// One call, for the log and the metrics. Dropped without an end, its caller went away.
struct Call {
    request_id: String,
    rpc: Rpc,
    began: Instant,
    bytes: AtomicU64,
    metrics: GatewayMetrics,
    ended: bool,
    /// Its share of `max_concurrent_streams`, once it is admitted.
    permit: Option<OwnedSemaphorePermit>,
}

impl Call {
    fn new(rpc: Rpc, metrics: GatewayMetrics) -> Self {
        metrics.open_streams.inc();
        let request_id = format!("{:032x}", rand::random::<u128>());
        Self { request_id, rpc, began: Instant::now(), bytes: AtomicU64::new(0), metrics, ended: false, permit: None }
    }

    fn end(&mut self, outcome: Result<&Verdict, &Failure>) {
        self.ended = true;
        let elapsed = self.began.elapsed().as_secs_f64();
        let code = outcome.map_or_else(|failure| failure.reason.name(), |_| "OK");
        let labels = CallLabels { rpc: self.rpc, code };
        self.metrics.calls.get_or_create(&labels).inc();
        self.metrics.call_seconds.get_or_create(&labels).observe(elapsed);
        let (request_id, rpc, bytes) = (&self.request_id, self.rpc, self.bytes.load(Ordering::Relaxed));
        match outcome {
            Ok(verdict) => {
                self.metrics.verdicts.get_or_create(&GenreLabels { genre: verdict.genre.clone() }).inc();
                self.metrics.model_verdicts.count(&verdict.model_version);
                tracing::info!(
                    request_id,
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
            Err(failure) => tracing::info!(request_id, ?rpc, code, message = %failure, bytes, elapsed, "call"),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Err(&gone()));
        }
        self.metrics.open_streams.dec();
    }
}

fn gone() -> Failure {
    Failure::new(Reason::Cancelled, "the caller went away")
}
