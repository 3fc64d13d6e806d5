//! A chunk on its way to a device, and the way back for its answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chorale_proto::v1::Prediction;
use chorale_runtime::{
    failure::{Failure, Reason},
    overload::Urgency,
    trace,
};
use tokio::sync::mpsc::UnboundedSender;

use crate::{metrics::InferenceMetrics, models::LoadedModel};

/// What became of one chunk.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The tag of the request.
    pub(crate) tag: u64,
    /// What the model says, or why it does not.
    pub(crate) result: Result<Prediction, Failure>,
}

/// A chunk that waits for its answer.
#[derive(Debug)]
pub(crate) struct WaitingChunk {
    mel: Bytes,
    model: Arc<LoadedModel>,
    urgency: Urgency,
    received: Instant,
    deadline: Option<Instant>,
    wants_embedding: bool,
    reply: Reply,
}

impl WaitingChunk {
    /// A chunk for `model` that was received at `received`, and whose caller waits until `timeout` after that, or for ever.
    pub(crate) fn new(
        mel: Bytes,
        model: Arc<LoadedModel>,
        urgency: Urgency,
        received: Instant,
        timeout: Option<Duration>,
        reply: Reply,
    ) -> Self {
        // A timeout beyond what the clock can hold is no timeout.
        let deadline = timeout.and_then(|timeout| received.checked_add(timeout));
        Self { mel, model, urgency, received, deadline, wants_embedding: false, reply }
    }

    /// The same, answered with an embedding too, if `wanted`.
    pub(crate) fn with_embedding(self, wanted: bool) -> Self {
        Self { wants_embedding: wanted, ..self }
    }

    /// Whether it is to be answered with an embedding, too.
    pub(crate) fn wants_embedding(&self) -> bool {
        self.wants_embedding
    }

    /// The span that it is a part of.
    pub(crate) fn trace(&self) -> &trace::Context {
        &self.reply.trace
    }

    /// Whether somebody waits for its track.
    pub(crate) fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// The cells, row-major `[128 mel][96 frames]`.
    pub(crate) fn mel(&self) -> &[u8] {
        &self.mel
    }

    /// The model that is to answer.
    pub(crate) fn model(&self) -> &Arc<LoadedModel> {
        &self.model
    }

    /// When it was received.
    pub(crate) fn received(&self) -> Instant {
        self.received
    }

    /// Why nobody waits for the answer any more at `now`, if that is so.
    pub(crate) fn lapsed(&self, now: Instant) -> Option<Failure> {
        if self.reply.is_abandoned() {
            return Some(Failure::new(Reason::Cancelled, "the caller went away"));
        }
        let deadline = self.deadline.filter(|&deadline| deadline <= now)?;
        let allowed = deadline.duration_since(self.received);
        Some(Failure::new(Reason::DeadlineExceeded, format!("no device was free within the chunk's {allowed:?}")))
    }

    /// Sends the answer.
    pub(crate) fn answer(self, result: Result<Prediction, Failure>) {
        self.reply.send(result);
    }
}

/// The way back for one answer. One that is dropped without an answer says that this is a bug, so that no stream
/// waits for ever.
#[derive(Debug)]
pub(crate) struct Reply {
    tag: u64,
    since: Instant,
    trace: trace::Context,
    /// Unbounded, as a worker must not wait for a slow caller; the stream's limit of chunks in flight bounds it.
    stream: Option<UnboundedSender<Answer>>,
    metrics: Arc<InferenceMetrics>,
}

impl Reply {
    /// A way back to `stream`, for the request with `tag`.
    pub(crate) fn new(tag: u64, stream: UnboundedSender<Answer>, metrics: Arc<InferenceMetrics>) -> Self {
        Self { tag, since: Instant::now(), trace: trace::Context::default(), stream: Some(stream), metrics }
    }

    /// The same, to a part of a span.
    pub(crate) fn traced(mut self, trace: trace::Context) -> Self {
        self.trace = trace;
        self
    }

    fn is_abandoned(&self) -> bool {
        self.stream.as_ref().is_none_or(UnboundedSender::is_closed)
    }

    /// Sends the answer.
    pub(crate) fn send(mut self, result: Result<Prediction, Failure>) {
        self.send_once(result);
    }

    fn send_once(&mut self, result: Result<Prediction, Failure>) {
        let Some(stream) = self.stream.take() else { return };
        let failure = result.as_ref().err().map(|failure| failure.reason);
        // Counted first: who has the answer finds it in the metrics.
        let failure = if stream.is_closed() { Some(Reason::Cancelled) } else { failure };
        self.metrics.chunk(failure, self.since.elapsed(), &self.trace);
        // A failed send means that the caller went away.
        let _ = stream.send(Answer { tag: self.tag, result });
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.send_once(Err(Failure::new(Reason::Internal, "the chunk was lost")));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use chorale_runtime::metrics::Metrics;
    use tokio::sync::mpsc;

    use super::*;
    use crate::InferenceConfig;

    #[test]
    fn who_has_an_answer_finds_it_in_the_metrics() {
        const ANSWERS: u64 = 2_000;
        let process = Metrics::new();
        let metrics = Arc::new(
            process.register("inference", |registry| InferenceMetrics::new(registry, &InferenceConfig::default())),
        );
        let (sender, mut answers) = mpsc::unbounded_channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                for tag in 0..ANSWERS {
                    Reply::new(tag, sender.clone(), Arc::clone(&metrics)).send(Ok(Prediction::default()));
                    // Lets the other side look after each answer.
                    thread::yield_now();
                }
            });
            while let Some(answer) = answers.blocking_recv() {
                let text = process.encode();
                let counted = text
                    .lines()
                    .find_map(|line| line.strip_prefix("chorale_inference_chunks_total{result=\"OK\"} "))
                    .and_then(|count| count.parse::<u64>().ok());
                assert!(counted > Some(answer.tag), "answer {} came, {counted:?} were counted", answer.tag);
            }
        });
    }
}
