//! What can go wrong between a caller and a verdict.

use std::{io, path::PathBuf, time::Duration};

use chorale_runtime::{
    failure::{Failure, Reason},
    replicas::{Target, TargetError},
    tls::TlsError,
};
use tonic::Code;

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
        Failure::from_peer(status, "the server").into()
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
