//! One `Infer` call: tagged chunks in, tagged answers out.
//!
//! ```text
//!             the caller closed its side, or the role drains         the last chunk was answered
//!   reading ──────────────────────────────────────────────▶ finishing ──────────────────────────▶ ended
//!      │ the stream broke, or a tag came twice                                                      ▲
//!      └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Reading pauses while as many chunks as allowed are in flight, and while the caller does not take its answers: the
//! transport then slows the caller down. When the caller goes away all of this is dropped, which its chunks in the
//! queue notice.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use chorale_model::contract::{self, CHUNK_CELLS};
use chorale_proto::v1::{ChunkError, InferRequest, InferResponse, infer_response};
use chorale_runtime::{
    failure::{Failure, Reason},
    trace,
};
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    batcher::Intake,
    metrics::InferenceMetrics,
    models::{LoadedModel, Models},
    service::InferenceService,
    waiting::{Answer, Reply, WaitingChunk},
};

/// The state of one call.
#[derive(Debug)]
pub(crate) struct ChunkStream<Requests> {
    requests: Requests,
    reading: bool,
    /// The tags of the chunks without an answer.
    in_flight: HashSet<u64>,
    max_in_flight: usize,
    /// Handed to every chunk, as the way back.
    answer_sender: UnboundedSender<Answer>,
    answers: UnboundedReceiver<Answer>,
    intake: Arc<Intake>,
    metrics: Arc<InferenceMetrics>,
    models: Arc<Models>,
    drain: CancellationToken,
    summary: Summary,
}

/// The responses of a call, in completion order.
pub(crate) fn answers<Requests>(call: ChunkStream<Requests>) -> impl Stream<Item = Result<InferResponse, Status>>
where
    Requests: Stream<Item = Result<InferRequest, Status>> + Unpin,
{
    chunk_answers(call).map(|answer| answer.map(response))
}

/// What became of the chunks of a call, in completion order.
pub(crate) fn chunk_answers<Requests>(call: ChunkStream<Requests>) -> impl Stream<Item = Result<Answer, Status>>
where
    Requests: Stream<Item = Result<InferRequest, Status>> + Unpin,
{
    stream::unfold(call, |mut call| async move { call.next().await.map(|answer| (answer, call)) })
}

impl<Requests> ChunkStream<Requests>
where
    Requests: Stream<Item = Result<InferRequest, Status>> + Unpin,
{
    /// A call of `service`.
    pub(crate) fn new(requests: Requests, service: &InferenceService) -> Self {
        let (answer_sender, answers) = mpsc::unbounded_channel();
        Self {
            requests,
            reading: true,
            in_flight: HashSet::new(),
            max_in_flight: service.max_in_flight,
            answer_sender,
            answers,
            intake: Arc::clone(&service.intake),
            metrics: Arc::clone(&service.metrics),
            models: Arc::clone(&service.models),
            drain: service.drain.clone(),
            summary: Summary::new(),
        }
    }

    /// The same for the chunks of one request, at most `window` of which are in flight. All of them are read, also while the
    /// role drains: the request was accepted as a whole.
    pub(crate) fn of_request(self, window: usize) -> Self {
        let max_in_flight = window.min(self.max_in_flight);
        Self { max_in_flight, drain: CancellationToken::new(), ..self }
    }

    /// The next answer; none when the call has ended.
    async fn next(&mut self) -> Option<Result<Answer, Status>> {
        while self.reading || !self.in_flight.is_empty() {
            tokio::select! {
                () = self.drain.cancelled(), if self.reading => self.reading = false,
                request = self.requests.next(), if self.reading && self.in_flight.len() < self.max_in_flight => {
                    let accepted = match request {
                        Some(Ok(request)) => self.accept(request).map_err(Status::from),
                        Some(Err(status)) => Err(status),
                        None => {
                            self.reading = false;
                            Ok(())
                        }
                    };
                    if let Err(status) = accepted {
                        self.reading = false;
                        self.in_flight.clear();
                        return Some(Err(status));
                    }
                }
                // The sender lives in `self`, so that the channel never ends.
                Some(answer) = self.answers.recv() => {
                    self.in_flight.remove(&answer.tag);
                    self.summary.answered(&answer);
                    return Some(Ok(answer));
                }
            }
        }
        None
    }

    /// Takes a chunk in: from here on it gets an answer.
    ///
    /// # Errors
    /// If an answer could not be told from another one's.
    fn accept(&mut self, request: InferRequest) -> Result<(), Failure> {
        let received = Instant::now();
        let urgency = request.priority().into();
        let InferRequest { tag, mel, feature_id, timeout_millis, model_version, traceparent, want_embedding, .. } =
            request;
        if !self.in_flight.insert(tag) {
            return Err(Failure::invalid("tag", format!("tag {tag} is in flight on this stream already")));
        }
        self.summary.chunks += 1;
        let timeout = (timeout_millis > 0).then(|| Duration::from_millis(timeout_millis.into()));
        let reply = Reply::new(tag, self.answer_sender.clone(), Arc::clone(&self.metrics))
            .traced(trace::Context::of_traceparent(&traceparent));
        match self.model_for(&feature_id, mel.len(), &model_version) {
            Ok(model) => {
                let chunk = WaitingChunk::new(mel, model, urgency, received, timeout, reply);
                self.intake.submit(chunk.with_embedding(want_embedding));
            }
            Err(failure) => reply.send(Err(failure)),
        }
        Ok(())
    }

    /// The model for a chunk, which must be as the network expects it.
    fn model_for(&self, feature_id: &str, mel_bytes: usize, model_version: &str) -> Result<Arc<LoadedModel>, Failure> {
        let expected = contract::feature_id();
        if feature_id != expected {
            let message = format!("expected chunks of the feature contract `{expected}`, found {feature_id:?}");
            return Err(Failure::new(Reason::FeatureMismatch, message));
        }
        if mel_bytes != CHUNK_CELLS {
            let message = format!("expected a chunk of {CHUNK_CELLS} bytes, found {mel_bytes}");
            return Err(Failure::invalid("mel", message));
        }
        self.models.find(model_version)
    }
}

fn response(answer: Answer) -> InferResponse {
    let result = match answer.result {
        Ok(prediction) => infer_response::Result::Prediction(prediction),
        Err(failure) => infer_response::Result::Error(ChunkError {
            code: failure.reason.code().into(),
            reason: failure.reason.name().to_owned(),
            message: failure.message,
        }),
    };
    InferResponse { tag: answer.tag, result: Some(result) }
}

/// What a call did, logged when it ends, however it does.
#[derive(Debug)]
struct Summary {
    started: Instant,
    chunks: u64,
    classified: u64,
    failed: u64,
}

impl Summary {
    fn new() -> Self {
        Self { started: Instant::now(), chunks: 0, classified: 0, failed: 0 }
    }

    fn answered(&mut self, answer: &Answer) {
        match answer.result {
            Ok(_) => self.classified += 1,
            Err(_) => self.failed += 1,
        }
    }
}

impl Drop for Summary {
    fn drop(&mut self) {
        let Self { started, chunks, classified, failed } = *self;
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(chunks, classified, failed, unanswered = chunks - classified - failed, seconds, "infer stream");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream::BoxStream;
    use tokio_stream::wrappers::UnboundedReceiverStream;
    use tonic::Code;

    use super::*;
    use crate::{
        batcher::{Batcher, Serving},
        testing::{POLICY, metrics, served},
    };

    const MAX_IN_FLIGHT: usize = 3;

    /// A call to a service whose worker is the test.
    struct Call {
        requests: Option<UnboundedSender<Result<InferRequest, Status>>>,
        responses: BoxStream<'static, Result<InferResponse, Status>>,
        batcher: Arc<Batcher>,
        _serving: Serving,
        drain: CancellationToken,
    }

    impl Call {
        fn new() -> Self {
            let intake = Arc::new(Intake::new(POLICY, metrics()));
            let batcher = intake.batcher();
            let serving = batcher.join();
            let drain = CancellationToken::new();
            let service = InferenceService {
                intake,
                metrics: metrics(),
                models: Arc::new(Models::new(vec![served("v1", 1), served("v2", 1)], metrics())),
                max_in_flight: MAX_IN_FLIGHT,
                devices: Vec::new(),
                max_batch: POLICY.max_batch,
                drain: drain.clone(),
            };
            let (requests, received) = mpsc::unbounded_channel();
            let stream = ChunkStream::new(UnboundedReceiverStream::new(received), &service);
            Self { requests: Some(requests), responses: answers(stream).boxed(), batcher, _serving: serving, drain }
        }

        fn send(&self, request: InferRequest) {
            self.requests.as_ref().unwrap().send(Ok(request)).unwrap();
        }

        /// Lets the call read what it may, which must not bring a response.
        async fn read(&mut self) {
            let polled = futures::poll!(self.responses.next());
            assert!(polled.is_pending(), "found {polled:?}");
        }

        /// Answers the chunks of the next batch, and says how many they are.
        fn answer_batch(&self) -> usize {
            let batch = self.batcher.next_batch().unwrap();
            let size = batch.chunks.len();
            for chunk in batch.chunks {
                chunk.answer(Ok(Default::default()));
            }
            size
        }

        /// The next response: its tag, and the reason if it is an error.
        async fn response(&mut self) -> Option<(u64, Option<String>)> {
            let response = self.responses.next().await?.unwrap();
            Some(match response.result.unwrap() {
                infer_response::Result::Prediction(_) => (response.tag, None),
                infer_response::Result::Error(error) => (response.tag, Some(error.reason)),
            })
        }
    }

    fn request(tag: u64) -> InferRequest {
        InferRequest {
            tag,
            mel: Bytes::from(vec![0; CHUNK_CELLS]),
            feature_id: contract::feature_id().to_owned(),
            ..InferRequest::default()
        }
    }

    #[tokio::test]
    async fn a_wrong_chunk_gets_an_error_of_its_own_and_the_stream_goes_on() {
        let mut call = Call::new();
        call.send(InferRequest { feature_id: "another".to_owned(), ..request(1) });
        assert_eq!(call.response().await, Some((1, Some("FEATURE_MISMATCH".to_owned()))));
        for length in [0, CHUNK_CELLS - 1, CHUNK_CELLS + 1] {
            call.send(InferRequest { mel: Bytes::from(vec![0; length]), ..request(2) });
            assert_eq!(call.response().await, Some((2, Some("REQUEST_INVALID".to_owned()))));
        }
        call.send(InferRequest { model_version: "v3".to_owned(), ..request(3) });
        assert_eq!(call.response().await, Some((3, Some("MODEL_UNKNOWN".to_owned()))));
        call.send(request(4));
        call.requests = None;
        call.read().await;
        assert_eq!(call.answer_batch(), 1);
        assert_eq!(call.response().await, Some((4, None)));
        assert_eq!(call.response().await, None);
    }

    #[tokio::test]
    async fn a_chunk_takes_the_model_along_that_it_names() {
        let mut call = Call::new();
        for (tag, version) in (0..).zip(["v2", "", "v1"]) {
            call.send(InferRequest { model_version: version.to_owned(), ..request(tag) });
        }
        call.read().await;
        let batch = call.batcher.next_batch().unwrap();
        assert_eq!(batch.chunks.iter().map(|chunk| chunk.model().version()).collect::<Vec<_>>(), ["v2", "v1", "v1"]);
    }

    #[tokio::test]
    async fn a_tag_that_is_in_flight_ends_the_stream_and_one_that_was_answered_does_not() {
        let mut call = Call::new();
        for _ in 0..2 {
            call.send(request(1));
            call.read().await;
            call.answer_batch();
            assert_eq!(call.response().await, Some((1, None)));
        }
        call.send(request(2));
        call.send(request(2));
        let status = call.responses.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(Failure::from_status(&status).field.as_deref(), Some("tag"));
        assert_eq!(call.response().await, None);
    }

    #[tokio::test]
    async fn reading_pauses_while_enough_chunks_are_in_flight() {
        let mut call = Call::new();
        for tag in 0..5 {
            call.send(request(tag));
        }
        call.read().await;
        assert_eq!(call.answer_batch(), MAX_IN_FLIGHT);
        for tag in 0..MAX_IN_FLIGHT as u64 {
            assert_eq!(call.response().await, Some((tag, None)));
        }
        call.read().await;
        assert_eq!(call.answer_batch(), 2);
    }

    #[tokio::test]
    async fn a_drain_answers_what_was_accepted_and_reads_no_more() {
        let mut call = Call::new();
        call.send(request(1));
        call.send(request(2));
        call.read().await;
        call.drain.cancel();
        call.read().await;
        call.send(request(3));
        assert_eq!(call.answer_batch(), 2);
        assert_eq!(call.response().await, Some((1, None)));
        assert_eq!(call.response().await, Some((2, None)));
        assert_eq!(call.response().await, None);
    }

    #[tokio::test]
    async fn chunks_of_a_caller_that_went_away_never_reach_a_device() {
        let mut call = Call::new();
        call.send(request(1));
        call.read().await;
        let Call { responses, batcher, _serving, .. } = call;
        // The last stream holds the last way into the queue: the worker finds it closed, and empty.
        drop(responses);
        assert!(batcher.next_batch().is_none());
    }

    #[tokio::test]
    async fn a_broken_request_ends_the_stream_with_its_status() {
        let mut call = Call::new();
        call.requests.as_ref().unwrap().send(Err(Status::out_of_range("too long"))).unwrap();
        assert_eq!(call.responses.next().await.unwrap().unwrap_err().code(), Code::OutOfRange);
        assert_eq!(call.response().await, None);
    }
}
