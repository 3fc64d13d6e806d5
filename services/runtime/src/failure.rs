//! The one table that maps every error to its gRPC code, and to its HTTP status.
//!
//! A crate's own errors become a [`Failure`] at its service boundary; a [`Failure`] becomes a [`Status`] with
//! `google.rpc` details, and comes back from one unchanged, so that a gateway hands on what a feature service said.

use std::{collections::HashMap, fmt, time::Duration};

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::{ErrorDetails, StatusExt};

/// The `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "chorale.v1";

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal => $code:ident, $http:literal, $retry_millis:expr;)*) => {
        /// Why a call failed. `proto/chorale/v1/classifier.proto` tells callers what to do about each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The `ErrorInfo.reason`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The gRPC status code.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }

            /// The HTTP status code.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $http,)* }
            }

            /// How long a caller should wait before it tries again; `None` if trying again will not help.
            #[must_use]
            pub const fn retry_after(self) -> Option<Duration> {
                let millis: u64 = match self { $(Self::$variant => $retry_millis,)* };
                if millis == 0 { None } else { Some(Duration::from_millis(millis)) }
            }
        }
    };
}

reasons! {
    /// No audio bytes came.
    AudioEmpty = "AUDIO_EMPTY" => InvalidArgument, 400, 0;
    /// No known container or codec.
    AudioUnsupported = "AUDIO_UNSUPPORTED" => InvalidArgument, 415, 0;
    /// Nothing in a known container can be decoded.
    AudioUnreadable = "AUDIO_UNREADABLE" => InvalidArgument, 422, 0;
    /// Less than one second of audio.
    AudioTooShort = "AUDIO_TOO_SHORT" => InvalidArgument, 422, 0;
    /// The audio is not what its digest promised.
    DigestMismatch = "DIGEST_MISMATCH" => InvalidArgument, 422, 0;
    /// The messages or options are not as the protocol describes.
    RequestInvalid = "REQUEST_INVALID" => InvalidArgument, 400, 0;
    /// The caller did not prove who it is.
    Unauthenticated = "UNAUTHENTICATED" => Unauthenticated, 401, 0;
    /// A limit was hit.
    LimitExceeded = "LIMIT_EXCEEDED" => ResourceExhausted, 413, 0;
    /// Load was shed.
    Overloaded = "OVERLOADED" => ResourceExhausted, 429, 500;
    /// The caller's deadline passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED" => DeadlineExceeded, 504, 0;
    /// Two parts of the cluster disagree on the feature contract.
    FeatureMismatch = "FEATURE_MISMATCH" => FailedPrecondition, 503, 0;
    /// A version of the model that is not served.
    ModelUnknown = "MODEL_UNKNOWN" => FailedPrecondition, 404, 0;
    /// A part of the cluster is away.
    DependencyUnavailable = "DEPENDENCY_UNAVAILABLE" => Unavailable, 503, 1_000;
    /// This replica is shutting down.
    Draining = "DRAINING" => Unavailable, 503, 100;
    /// The caller went away.
    Cancelled = "CANCELLED" => Cancelled, 499, 0;
    /// A bug.
    Internal = "INTERNAL" => Internal, 500, 0;
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A failed call, on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// What is wrong and what to do about it, in words.
    pub message: String,
    /// Facts for a program: a limit's name and value, a position.
    pub metadata: HashMap<String, String>,
    /// The field of the request that is wrong.
    pub field: Option<String>,
    /// How long to wait before trying again.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure with its reason's usual retry delay.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            field: None,
            retry_after: reason.retry_after(),
        }
    }

    /// A request that breaks the protocol in `field`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(Reason::RequestInvalid, message) }
    }

    /// A limit that was hit: its name as in `GetModelResponse.limits` or the configuration, and its value.
    pub fn limit(name: &str, value: impl fmt::Display, message: impl Into<String>) -> Self {
        Self::new(Reason::LimitExceeded, message).with("limit", name).with("value", value)
    }

    /// Adds a fact for a program.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// The HTTP status code: that of the reason, but a request that came too slowly is none that is too large.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        const REQUEST_TIMEOUT: u16 = 408;
        match self.metadata.get("limit").map(String::as_str) {
            Some("idle_timeout" | "min_upload_rate") => REQUEST_TIMEOUT,
            _ => self.reason.http_status(),
        }
    }

    /// The name of the gRPC code, as `INVALID_ARGUMENT`.
    #[must_use]
    pub fn code_name(&self) -> &'static str {
        match self.reason.code() {
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::Unauthenticated => "UNAUTHENTICATED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Unavailable => "UNAVAILABLE",
            Code::Cancelled => "CANCELLED",
            _ => "INTERNAL",
        }
    }

    /// Reads a status that another part of the cluster, or its transport, gave.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let reason = info
            .and_then(|info| Reason::ALL.iter().copied().find(|reason| reason.name() == info.reason))
            .unwrap_or_else(|| Self::reason_of_foreign(status.code()));
        Self {
            reason,
            message: status.message().to_owned(),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            field: details
                .bad_request()
                .and_then(|request| request.field_violations.first())
                .map(|violation| violation.field.clone()),
            retry_after: details.retry_info().and_then(|info| info.retry_delay).or(reason.retry_after()),
        }
    }

    /// Reads a status that a call of `peer` ended with. Without our details, codes that a broken connection has mean just
    /// that, whatever they blame: a process that dies resets its streams, one that drains closes its connections, and one that
    /// hung closes them as well, for too many calls that were given up meanwhile (`ENHANCE_YOUR_CALM`).
    #[must_use]
    pub fn from_peer(status: &Status, peer: &str) -> Self {
        // This side's transport says that the call's own deadline passed.
        if status.code() == Code::Cancelled && status.message() == TimeoutExpired(()).to_string() {
            return Self::new(Reason::DeadlineExceeded, "the deadline passed");
        }
        let breaks = [Code::Cancelled, Code::Unknown, Code::Internal, Code::Unavailable, Code::ResourceExhausted];
        if breaks.contains(&status.code()) && status.details().is_empty() {
            return Self::new(Reason::DependencyUnavailable, format!("{peer} broke off: {}", status.message()));
        }
        Self::from_status(status)
    }

    /// The status for this failure with another code than its reason's, for a protocol that is not ours.
    pub(crate) fn into_status_of(self, code: Code) -> Status {
        let mut details = ErrorDetails::with_error_info(self.reason.name(), DOMAIN, self.metadata);
        if let Some(field) = self.field {
            details.add_bad_request_violation(field, self.message.clone());
        }
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        Status::with_error_details(code, self.message, details)
    }

    /// A status without our details comes from a transport or a proxy.
    fn reason_of_foreign(code: Code) -> Reason {
        match code {
            Code::Cancelled => Reason::Cancelled,
            Code::DeadlineExceeded => Reason::DeadlineExceeded,
            Code::InvalidArgument => Reason::RequestInvalid,
            Code::Unauthenticated => Reason::Unauthenticated,
            Code::FailedPrecondition => Reason::FeatureMismatch,
            Code::ResourceExhausted | Code::OutOfRange => Reason::LimitExceeded,
            Code::Unavailable | Code::Unknown => Reason::DependencyUnavailable,
            _ => Reason::Internal,
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let code = failure.reason.code();
        failure.into_status_of(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_survives_the_wire() {
        for &reason in Reason::ALL {
            let sent = Failure { field: Some("options.pcm".to_owned()), ..Failure::new(reason, "what happened") }
                .with("limit", "max_audio_bytes");
            let status = Status::from(sent.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(Failure::from_status(&status), sent);
        }
    }

    #[test]
    fn over_http_a_failure_blames_the_same_side() {
        for &reason in Reason::ALL {
            let failure = Failure::new(reason, "what happened");
            let (status, code) = (failure.http_status(), reason.code());
            let ours = [Code::Unavailable, Code::Internal, Code::DeadlineExceeded].contains(&code);
            let ours = ours || reason == Reason::FeatureMismatch;
            assert_eq!(status >= 500, ours, "{reason}: {status}");
            assert_eq!(failure.code_name() == "INTERNAL", code == Code::Internal, "{reason}");
            // What a caller may send again says so by its status alone.
            assert_eq!(
                [429, 503].contains(&status),
                failure.retry_after.is_some() || reason == Reason::FeatureMismatch
            );
        }
        assert_eq!(Failure::limit("max_audio_bytes", 1, "").http_status(), 413);
        assert_eq!(Failure::limit("idle_timeout", 1, "").http_status(), 408);
    }

    #[test]
    fn a_foreign_status_keeps_its_meaning() {
        let failure = Failure::from_status(&Status::unavailable("connection refused"));
        assert_eq!(failure.reason, Reason::DependencyUnavailable);
        assert!(failure.retry_after.is_some());
        assert_eq!(Failure::from_status(&Status::data_loss("?")).reason, Reason::Internal);
    }

    #[test]
    fn what_a_peer_says_passes_and_what_its_connection_says_is_an_outage() {
        let said = Failure::new(Reason::AudioUnsupported, "no known container").with("byte", 0);
        assert_eq!(Failure::from_peer(&said.clone().into(), "feature"), said);
        for broken in [
            Status::cancelled("reset"),
            Status::unknown("eof"),
            Status::internal("h2"),
            Status::unavailable(""),
            // What tonic makes of ENHANCE_YOUR_CALM.
            Status::resource_exhausted("h2 protocol error"),
        ] {
            let failure = Failure::from_peer(&broken, "feature");
            assert_eq!(failure.reason, Reason::DependencyUnavailable, "{broken}");
            assert!(failure.retry_after.is_some() && failure.message.starts_with("feature broke off"));
        }
        for late in [Status::deadline_exceeded(""), Status::cancelled("Timeout expired")] {
            assert_eq!(Failure::from_peer(&late, "feature").reason, Reason::DeadlineExceeded, "{late}");
        }
    }

    #[test]
    fn callers_find_every_reason_in_the_public_protocol() {
        let protocol = include_str!("../../../proto/chorale/v1/classifier.proto");
        for reason in Reason::ALL {
            assert!(protocol.contains(reason.name()), "{reason} is not documented");
        }
    }
}
