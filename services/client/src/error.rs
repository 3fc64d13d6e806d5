//! What can go wrong between a caller and a verdict.

use std::{io, path::PathBuf, time::Duration};

use chorale_runtime::{
    failure::{Failure, Reason},
    replicas::{Target, TargetError},
    tls::TlsError,
};
use tonic::Code;
use tonic_types::StatusExt;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no server answers at {endpoint}; is `chorale up` running there? ({source})")]
    Connect {
        /// Where.
        endpoint: Target,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// That is no endpoint.
    #[error(transparent)]
    Endpoint(#[from] TargetError),
    /// The files that say whom to believe cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The bearer token cannot be read or sent.
    #[error("{place}: {why}")]
    Token {
        /// Where it was looked for.
        place: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The audio cannot be read.
    #[error("{}", describe_io(.0))]
    Read(#[from] io::Error),
    /// The server said no.
    #[error("{0}")]
    Server(#[from] Failure),
}

impl ClientError {
    /// The name of the gRPC code that stands for it, as in `--json` output: `NOT_FOUND`, `RESOURCE_EXHAUSTED` …
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read(error) if error.kind() == io::ErrorKind::PermissionDenied => "PERMISSION_DENIED",
            Self::Read(error) if error.kind() == io::ErrorKind::NotFound => "NOT_FOUND",
            Self::Read(_) => "UNKNOWN",
            Self::Connect { .. } => "UNAVAILABLE",
            Self::Endpoint(_) | Self::Tls(_) | Self::Token { .. } => "INVALID_ARGUMENT",
            Self::Server(failure) => code_name(failure.reason),
        }
    }

    /// How long to wait before the same is tried again; `None` if that would not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server(failure) => failure.retry_after,
            _ => None,
        }
    }

    pub(crate) fn of_status(status: &tonic::Status) -> Self {
        let mut failure = Failure::from_peer(status, "the server");
        // What carries details was said by somebody, who also says whether to come back.
        if !status.details().is_empty() {
            failure.retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        }
        failure.into()
    }

    pub(crate) fn unfinished() -> Self {
        Failure::new(Reason::Internal, "the server ended the stream without a verdict").into()
    }
}

fn describe_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied: this user may not read the file".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

fn code_name(reason: Reason) -> &'static str {
    match reason.code() {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Unavailable => "UNAVAILABLE",
        Code::Cancelled => "CANCELLED",
        Code::Unauthenticated => "UNAUTHENTICATED",
        _ => "INTERNAL",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic::Status;
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_broken_connection_and_who_asks_for_it_are_worth_another_attempt() {
        let retry_after = |status: &Status| ClientError::of_status(status).retry_after();
        for code in [Code::Unavailable, Code::Cancelled, Code::Internal, Code::Unknown, Code::ResourceExhausted] {
            assert!(retry_after(&Status::new(code, "reset")).is_some(), "{code}");
            let mut details = ErrorDetails::with_error_info("SOMETHING", "somebody.else", HashMap::new());
            assert_eq!(retry_after(&Status::with_error_details(code, "no", details.clone())), None, "{code}");
            details.set_retry_info(Some(Duration::from_secs(7)));
            let asks = Status::with_error_details(code, "later", details);
            assert_eq!(retry_after(&asks), Some(Duration::from_secs(7)), "{code}");
        }
        for code in [Code::InvalidArgument, Code::DeadlineExceeded, Code::Unauthenticated, Code::FailedPrecondition] {
            assert_eq!(retry_after(&Status::new(code, "no")), None, "{code}");
        }
    }
}
