//! The Open Inference Protocol, version 2, for whatever a role serves: tensors and parameters are read and written here, the
//! service answers, and a role says what its models are and how they infer.
//!
//! ```text
//!   ModelInfer        ────────────▶ infer ──▶ answer, or a status with details as all of ours
//!   ModelStreamInfer  ──▶ allow ──▶ infer ──▶ answer, or `error_message`     in the order of the requests, a few at a time
//! ```

mod outputs;
mod parameters;
mod service;
mod spec;
mod stream;
mod tensor;
#[cfg(test)]
mod testing;

use std::time::{Duration, Instant};

use chorale_proto::inference::{ModelInferRequest, ModelInferResponse, ModelMetadataResponse};
use tonic::{Code, Extensions, Response, Status, metadata::MetadataMap};

pub use self::{
    outputs::{Output, Values, WantedOutputs},
    parameters::Parameters,
    service::OpenInference,
    spec::{Datatype, TensorSpec},
    tensor::{RowLimit, take_texts, take_uint8},
};
use crate::{
    deadline::{LONGEST_TIMEOUT, timeout_of},
    failure::{Failure, Reason},
};

/// So much of a caller's text is repeated in an error, in characters.
const MAX_QUOTE: usize = 80;

/// What a role serves over the protocol.
pub trait OpenModels: Send + Sync + 'static {
    /// Whether who calls may know what is served, and open a stream.
    ///
    /// # Errors
    /// If not.
    fn allow(&self, call: &Call) -> Result<(), Failure>;

    /// What the model `name` takes and gives: its version `version`, or if that is empty the one that answers who names none.
    ///
    /// # Errors
    /// `MODEL_UNKNOWN` if it is not served.
    fn describe(&self, name: &str, version: &str) -> Result<ModelMetadataResponse, Failure>;

    /// One inference. To drop it is to give up.
    ///
    /// # Errors
    /// If who calls is not allowed to ask, and as the role's own calls.
    fn infer(
        &self,
        call: &Call,
        request: ModelInferRequest,
    ) -> impl Future<Output = Result<Response<ModelInferResponse>, Status>> + Send;
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub struct Call {
    metadata: MetadataMap,
    extensions: Extensions,
    /// When the whole call must have ended.
    deadline: Option<Instant>,
}

impl Call {
    /// A call that comes in now.
    fn begin(metadata: MetadataMap, extensions: Extensions) -> Self {
        let deadline = timeout_of(&metadata).and_then(|timeout| Instant::now().checked_add(timeout));
        Self { metadata, extensions, deadline }
    }

    /// What the caller sent with it.
    #[must_use]
    pub fn metadata(&self) -> &MetadataMap {
        &self.metadata
    }

    /// What the connection knows of the caller.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// When a request that comes now must be answered, if its own `timeout` says so, or the call's.
    #[must_use]
    pub fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        let own = timeout.filter(|timeout| *timeout <= LONGEST_TIMEOUT);
        let own = own.and_then(|timeout| Instant::now().checked_add(timeout));
        own.into_iter().chain(self.deadline).min()
    }
}

/// The status for `failure`: as elsewhere, but that this protocol has its own code for a model that is not there.
#[must_use]
pub fn status_of(failure: Failure) -> Status {
    let code = match failure.reason {
        Reason::ModelUnknown => Code::NotFound,
        reason => reason.code(),
    };
    failure.into_status_of(code)
}

/// What a call of ours ended with, as this protocol says it.
#[must_use]
pub fn status_of_status(status: Status) -> Status {
    let failure = Failure::from_status(&status);
    if failure.reason != Reason::ModelUnknown {
        return status;
    }
    let mut translated = status_of(failure);
    *translated.metadata_mut() = status.metadata().clone();
    translated
}

/// The failure of a request for a model that is not among `served`.
#[must_use]
pub fn unknown_model(name: &str, version: &str, served: &str) -> Failure {
    let of_version = if version.is_empty() { String::new() } else { format!(" in version {}", quoted(version)) };
    let found = quoted(name) + &of_version;
    Failure::new(Reason::ModelUnknown, format!("expected a model that is served, {served}; found {found}"))
}

/// A text of a caller as an error repeats it: in quotes, and no longer than a name should be, as errors travel in headers.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut start: String = text.chars().take(MAX_QUOTE).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_not_there_is_not_found_with_the_details_of_ours() {
        let failure = unknown_model("x", "7", "chorale in version v1");
        let mut ours = Status::from(failure.clone());
        assert_eq!(ours.code(), Code::FailedPrecondition);
        ours.metadata_mut().insert("x-request-id", "1".parse().unwrap());
        let translated = status_of_status(ours);
        assert_eq!((translated.code(), translated.metadata().len()), (Code::NotFound, 1));
        assert_eq!(Failure::from_status(&translated), failure);
        let other = Failure::new(Reason::Overloaded, "later");
        assert_eq!(status_of_status(other.clone().into()).code(), Code::ResourceExhausted);
        assert_eq!(status_of(other).code(), Code::ResourceExhausted);
    }

    #[test]
    fn an_error_repeats_no_more_of_a_text_than_a_name_should_have() {
        let failure = unknown_model(&"x".repeat(1_000_000), "", "none");
        assert!(failure.message.len() < 200 && failure.message.contains("xx…\""), "{}", failure.message.len());
    }

    #[test]
    fn a_request_ends_with_its_own_time_or_with_the_call() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let mut metadata = MetadataMap::new();
        assert_eq!(Call::begin(metadata.clone(), Extensions::new()).deadline(None), None);
        metadata.insert("grpc-timeout", "30S".parse().unwrap());
        let call = Call::begin(metadata, Extensions::new());
        let of_call = call.deadline(None).unwrap();
        assert!(call.deadline(Some(second)).unwrap() < of_call);
        assert_eq!(call.deadline(Some(minute)), Some(of_call));
        assert_eq!(call.deadline(Some(Duration::MAX)), Some(of_call));
    }
}
