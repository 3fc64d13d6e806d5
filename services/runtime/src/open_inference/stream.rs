//! One `ModelStreamInfer` call: requests in, an answer to each in their order.
//!
//! ```text
//!             the caller closed its side, or sent something broken      the last request was answered
//!   reading ─────────────────────────────────────────────────────▶ finishing ──────────────────▶ ended
//!      │     the role drains, or nobody used the stream for too long: it ends with an error        ▲
//!      └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Reading pauses while as many requests as allowed are worked on: the transport then slows the caller down. They are worked on
//! whether or not the caller reads: one that does not keeps its answers waiting, and nothing else.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chorale_proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse, infer_parameter::ParameterChoice,
};
use futures::{FutureExt, Stream, StreamExt, stream};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Code, Status};

use super::{Call, OpenModels, status_of_status};
use crate::{
    failure::{Failure, Reason},
    oversize::too_large,
};

/// Requests of one stream that are worked on at a time; no further one is read meanwhile.
const IN_FLIGHT: usize = 4;
/// Triton's streams say so of the last answer to a request. Ours have one answer each.
const FINAL_RESPONSE: &str = "triton_final_response";

/// The requests of a call, until it is over.
#[derive(Debug)]
pub(super) struct Requests<R> {
    requests: R,
    drain: CancellationToken,
    idle_timeout: Option<Duration>,
    work: Arc<Work>,
}

/// What goes on in a call.
#[derive(Debug, Default)]
struct Work {
    begun: AtomicUsize,
    finished: AtomicUsize,
}

impl<R: Stream<Item = Result<ModelInferRequest, Status>> + Send + Unpin> Requests<R> {
    /// Those of `requests` until `drain`, or until nothing goes on in the call for `idle_timeout`.
    pub(super) fn new(requests: R, drain: CancellationToken, idle_timeout: Option<Duration>) -> Self {
        Self { requests, drain, idle_timeout, work: Arc::default() }
    }

    /// The next one; none when the caller has closed its side. An error is the end, which the caller is told, so that it knows
    /// that what it sends after that is not read.
    async fn next(&mut self) -> Option<Result<ModelInferRequest, Status>> {
        loop {
            let finished = self.work.finished.load(Ordering::SeqCst);
            tokio::select! {
                biased;
                () = self.drain.cancelled() => {
                    return Some(Err(Failure::new(Reason::Draining, "this replica is shutting down").into()));
                }
                request = self.requests.next() => return request.map(|request| request.map_err(explained)),
                idle_timeout = pause(self.idle_timeout) => {
                    if finished == self.work.begun.load(Ordering::SeqCst) {
                        let message = format!("no request came within {idle_timeout:?}");
                        return Some(Err(Failure::limit("idle_timeout", format_args!("{idle_timeout:?}"), message).into()));
                    }
                }
            }
        }
    }

    fn into_stream(self) -> impl Stream<Item = Result<ModelInferRequest, Status>> + Send {
        stream::unfold(Some(self), |requests| async move {
            let mut requests = requests?;
            let request = requests.next().await?;
            let more = request.is_ok().then_some(requests);
            Some((request, more))
        })
    }
}

async fn pause(timeout: Option<Duration>) -> Duration {
    match timeout {
        None => pending().await,
        Some(timeout) => {
            sleep(timeout).await;
            timeout
        }
    }
}

/// The answers to `requests`, in their order.
pub(super) fn answers<M: OpenModels>(
    models: Arc<M>,
    call: Call,
    requests: Requests<impl Stream<Item = Result<ModelInferRequest, Status>> + Send + Unpin>,
) -> impl Stream<Item = Result<ModelStreamInferResponse, Status>> + Send {
    let (call, work) = (Arc::new(call), Arc::clone(&requests.work));
    let answer = move |request: Result<ModelInferRequest, Status>| {
        let (models, call, work) = (Arc::clone(&models), Arc::clone(&call), Arc::clone(&work));
        work.begun.fetch_add(1, Ordering::SeqCst);
        // A task of its own, as this stream is polled only while the caller reads.
        let task = tokio::spawn(async move {
            let request = request?;
            let id = request.id.clone();
            let answer = match models.infer(&call, request).await {
                Ok(response) => answered(response.into_inner()),
                Err(status) => failed(id, &status_of_status(status)),
            };
            work.finished.fetch_add(1, Ordering::SeqCst);
            Ok(answer)
        });
        let stopped =
            |error| Err(Failure::new(Reason::Internal, format!("a request was not finished: {error}")).into());
        AbortOnDropHandle::new(task).map(move |answer| answer.unwrap_or_else(stopped))
    };
    requests.into_stream().map(answer).buffered(IN_FLIGHT)
}

/// What ends a stream, in our words.
fn explained(status: Status) -> Status {
    if status.code() == Code::OutOfRange { too_large(status.message()).into() } else { status }
}

fn answered(mut response: ModelInferResponse) -> ModelStreamInferResponse {
    response.parameters.insert(FINAL_RESPONSE.to_owned(), parameter(ParameterChoice::BoolParam(true)));
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

/// What a request gets that failed: the message, as the protocol has it, and in parameters what a status says beside it.
fn failed(id: String, status: &Status) -> ModelStreamInferResponse {
    let failure = Failure::from_status(status);
    let mut response = ModelInferResponse { id, ..ModelInferResponse::default() };
    let mut say = |name: &str, value| response.parameters.insert(name.to_owned(), parameter(value));
    say(FINAL_RESPONSE, ParameterChoice::BoolParam(true));
    say("code", ParameterChoice::Int64Param(i64::from(i32::from(status.code()))));
    say("reason", ParameterChoice::StringParam(failure.reason.name().to_owned()));
    if let Some(pause) = failure.retry_after {
        let millis = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        say("retry_after_millis", ParameterChoice::Int64Param(millis));
    }
    // An empty message would say that all went well.
    let error_message = if failure.message.is_empty() { failure.reason.name().to_owned() } else { failure.message };
    ModelStreamInferResponse { error_message, infer_response: Some(response) }
}

fn parameter(value: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(value) }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;
    use tonic::{Extensions, metadata::MetadataMap};

    use super::*;
    use crate::open_inference::testing::Echo;

    fn forever<R: Stream<Item = Result<ModelInferRequest, Status>> + Send + Unpin>(requests: R) -> Requests<R> {
        Requests::new(requests, CancellationToken::new(), None)
    }

    fn call() -> Call {
        Call::begin(MetadataMap::new(), Extensions::new())
    }

    fn request(id: usize, model: &str) -> Result<ModelInferRequest, Status> {
        Ok(ModelInferRequest { id: id.to_string(), model_name: model.to_owned(), ..ModelInferRequest::default() })
    }

    fn id(response: &ModelStreamInferResponse) -> &str {
        &response.infer_response.as_ref().unwrap().id
    }

    #[tokio::test]
    async fn a_request_that_fails_is_answered_in_its_turn_and_the_stream_goes_on() {
        let requests = stream::iter([request(0, "echo"), request(1, "other"), request(2, "echo")]);
        let answers: Vec<_> = answers(Arc::new(Echo::new(1)), call(), forever(requests)).collect().await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().map(id).collect::<Vec<_>>(), ["0", "1", "2"]);
        assert!(answers[0].error_message.is_empty() && answers[2].error_message.is_empty());
        assert!(answers[1].error_message.contains("\"other\""), "{}", answers[1].error_message);
        let said = |name: &str| answers[1].infer_response.as_ref().unwrap().parameters[name].parameter_choice.clone();
        assert_eq!(said("code"), Some(ParameterChoice::Int64Param(5)));
        assert_eq!(said("reason"), Some(ParameterChoice::StringParam("MODEL_UNKNOWN".to_owned())));
    }

    #[tokio::test]
    async fn a_few_requests_are_worked_on_and_no_more_are_read() {
        let models = Arc::new(Echo::new(0));
        let (sender, requests) = mpsc::unbounded();
        for index in 0..3 * IN_FLIGHT {
            sender.unbounded_send(request(index, "echo")).unwrap();
        }
        drop(sender);
        let mut answers = Box::pin(answers(Arc::clone(&models), call(), forever(requests)));
        assert!(futures::poll!(answers.next()).is_pending());
        models.wait_working(IN_FLIGHT).await;
        models.let_go.add_permits(1);
        assert_eq!(answers.count().await, 3 * IN_FLIGHT);
        assert_eq!(models.most.load(Ordering::SeqCst), IN_FLIGHT);
    }

    #[tokio::test]
    async fn a_drain_answers_what_was_read_and_says_that_the_rest_was_not() {
        let (models, drain) = (Arc::new(Echo::new(0)), CancellationToken::new());
        let (sender, requests) = mpsc::unbounded();
        sender.unbounded_send(request(0, "echo")).unwrap();
        let mut answers = Box::pin(answers(Arc::clone(&models), call(), Requests::new(requests, drain.clone(), None)));
        assert!(futures::poll!(answers.next()).is_pending());
        drain.cancel();
        sender.unbounded_send(request(1, "echo")).unwrap();
        models.let_go.add_permits(1);
        assert_eq!(id(&answers.next().await.unwrap().unwrap()), "0");
        let refusal = answers.next().await.unwrap().unwrap_err();
        assert_eq!((refusal.code(), Failure::from_status(&refusal).reason), (Code::Unavailable, Reason::Draining));
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn what_a_caller_does_not_read_is_worked_on_and_what_it_left_is_not() {
        let models = Arc::new(Echo::new(0));
        let (sender, requests) = mpsc::unbounded();
        for index in 0..IN_FLIGHT {
            sender.unbounded_send(request(index, "echo")).unwrap();
        }
        let mut unread = Box::pin(answers(Arc::clone(&models), call(), forever(requests)));
        assert!(futures::poll!(unread.next()).is_pending());
        models.wait_working(IN_FLIGHT).await;
        // Nobody polls the answers.
        models.let_go.add_permits(1);
        models.wait_working(0).await;
        models.let_go.acquire().await.unwrap().forget();

        sender.unbounded_send(request(0, "echo")).unwrap();
        assert!(unread.next().await.unwrap().is_ok());
        assert!(futures::poll!(unread.next()).is_ready());
        models.wait_working(1).await;
        drop(unread);
        models.wait_working(0).await;
    }

    #[tokio::test]
    async fn a_broken_stream_ends_with_what_broke_it() {
        let requests = stream::iter([request(0, "echo"), Err(Status::out_of_range("too long")), request(1, "echo")]);
        let mut answers = Box::pin(answers(Arc::new(Echo::new(1)), call(), forever(requests)));
        assert!(answers.next().await.unwrap().is_ok());
        let status = answers.next().await.unwrap().unwrap_err();
        assert_eq!(Failure::from_status(&status).metadata["limit"], "max_message_bytes");
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_nobody_uses_ends_and_one_that_works_does_not() {
        const IDLE: Duration = Duration::from_millis(20);
        let models = Arc::new(Echo::new(0));
        let (sender, requests) = mpsc::unbounded();
        let requests = Requests::new(requests, CancellationToken::new(), Some(IDLE));
        let mut answers = Box::pin(answers(Arc::clone(&models), call(), requests));
        sender.unbounded_send(request(0, "echo")).unwrap();
        // However long a request is worked on.
        assert!(tokio::time::timeout(5 * IDLE, answers.next()).await.is_err());
        models.let_go.add_permits(1);
        assert_eq!(id(&answers.next().await.unwrap().unwrap()), "0");
        let failure = Failure::from_status(&answers.next().await.unwrap().unwrap_err());
        assert_eq!((failure.reason, &*failure.metadata["limit"]), (Reason::LimitExceeded, "idle_timeout"));
        assert!(answers.next().await.is_none());
    }
}
