//! One call, whatever protocol it came by, for the log and the metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use chorale_proto::v1::Verdict;
use chorale_runtime::{
    failure::{Failure, Reason},
    metrics::exemplar,
    shares::Place,
    trace::{self, Span},
};

use crate::{
    auth::Caller,
    classify::Origin,
    metrics::{CallLabels, GatewayMetrics, GenreLabels, Rpc},
    open_calls::{OpenCall, OpenCalls},
};

/// One call. Dropped without an end, its caller went away.
pub(crate) struct Call {
    request_id: String,
    span: Span,
    trace: trace::Context,
    pub(crate) caller: Caller,
    rpc: Rpc,
    began: Instant,
    pub(crate) bytes: Arc<AtomicU64>,
    metrics: GatewayMetrics,
    ended: bool,
    /// Where it is among the open ones, if it was admitted.
    open: Option<OpenCalls>,
    /// Held while it is served.
    pub(crate) place: Option<Place>,
}

impl Call {
    /// A call of `rpc` that has just come in.
    pub(crate) fn new(rpc: Rpc, caller: Caller, span: Span, metrics: GatewayMetrics) -> Self {
        metrics.open_streams.inc();
        let request_id = format!("{:032x}", rand::random::<u128>());
        span.set("chorale.request_id", request_id.clone());
        let (began, bytes) = (Instant::now(), Arc::default());
        let trace = span.context();
        Self { request_id, span, trace, caller, rpc, began, bytes, metrics, ended: false, open: None, place: None }
    }

    /// Counts it among the `open` ones until it ends.
    pub(crate) fn open(&mut self, open: &OpenCalls) {
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

    /// What it is called in logs.
    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    pub(crate) fn origin(&self) -> Origin<'_> {
        Origin { request_id: &self.request_id, caller: &self.caller, trace: &self.trace }
    }

    /// Counts and logs how it ended.
    pub(crate) fn end(&mut self, outcome: Result<&Verdict, &Failure>) {
        self.ended = true;
        let elapsed = self.began.elapsed().as_secs_f64();
        let code = outcome.map_or_else(|failure| failure.reason.name(), |_| "OK");
        let labels = CallLabels { rpc: self.rpc, code };
        self.metrics.calls.get_or_create(&labels).inc();
        self.metrics.call_seconds.get_or_create(&labels).observe(elapsed, exemplar(&self.trace), None);
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
                self.metrics.count_limit(failure);
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

/// Why a call ends whose caller does not wait for the answer.
pub(crate) fn gone() -> Failure {
    Failure::new(Reason::Cancelled, "the caller went away")
}
