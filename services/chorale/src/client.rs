//! The caller's side of `ClassifyStream`: digest, upload while the verdict forms, retry when asked to.

use std::{fs::File, io, path::Path, time::Duration};

use anyhow::Context;
use backon::{ExponentialBuilder, Retryable};
use bytes::BytesMut;
use chorale_proto::v1::{
    ClassifyOptions, ClassifyStreamRequest, EventKind, Priority, Verdict,
    classifier_service_client::ClassifierServiceClient, classify_stream_request::Payload,
    classify_stream_response::Event,
};
use chorale_runtime::{
    connector::Connector,
    failure::{Failure, Reason},
    replicas::Target,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::{
    cli::{ClassifyArguments, CredentialFlags},
    paths::Track,
};

const MESSAGE_BYTES: usize = 64 * 1024;
/// Messages read ahead of the network.
const MESSAGES_AHEAD: usize = 4;
/// The environment variable with the bearer token.
const TOKEN_VARIABLE: &str = "CHORALE_TOKEN";
const ATTEMPTS: usize = 5;

/// Why a track has no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The file cannot be read.
    #[error("{}", describe_io(.0))]
    File(#[from] io::Error),
    /// What was named is not there, or is no audio.
    #[error("{0}")]
    Missing(String),
    /// The server said no.
    #[error("{0}")]
    Server(#[from] Failure),
}

impl ClientError {
    /// The gRPC code's name, as in `--json`.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::File(error) if error.kind() == io::ErrorKind::PermissionDenied => "PERMISSION_DENIED",
            Self::File(error) if error.kind() == io::ErrorKind::NotFound => "NOT_FOUND",
            Self::File(_) => "UNKNOWN",
            Self::Missing(_) => "NOT_FOUND",
            Self::Server(failure) => code_name(failure.reason),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server(failure) => failure.retry_after,
            Self::File(_) | Self::Missing(_) => None,
        }
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
    use tonic::Code;
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

fn bearer_token(credentials: &CredentialFlags) -> anyhow::Result<Option<String>> {
    let token = match &credentials.token_file {
        Some(path) => Some(std::fs::read_to_string(path).with_context(|| format!("--token-file {}", path.display()))?),
        None => std::env::var(TOKEN_VARIABLE).ok(),
    };
    Ok(token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()))
}

/// What a call says of who calls.
pub(crate) type Authorization = MetadataValue<Ascii>;

/// The bearer token of `credentials`, or of the environment, if there is one.
pub(crate) fn authorization(credentials: &CredentialFlags) -> anyhow::Result<Option<Authorization>> {
    let Some(token) = bearer_token(credentials)? else { return Ok(None) };
    // The error would repeat the token.
    let mut value: Authorization = format!("Bearer {token}")
        .parse()
        .map_err(|_| anyhow::anyhow!("the token holds characters that a header cannot carry; is it the right file?"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// A connection to a gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    classifier: ClassifierServiceClient<Channel>,
    authorization: Option<Authorization>,
    timeout: Duration,
    early_error_rate: f64,
    priority: Priority,
}

impl Client {
    /// Connects to `endpoint`, to classify as `arguments` say.
    pub(crate) async fn connect(endpoint: &Target, arguments: &ClassifyArguments) -> anyhow::Result<Self> {
        let connector = Connector::new(std::slice::from_ref(endpoint), &arguments.credentials.tls())?;
        let channel = connector.connect(endpoint).await.map_err(|error| {
            anyhow::anyhow!("no server answers at {endpoint}; is `chorale up` running there? ({error})")
        })?;
        let authorization = authorization(&arguments.credentials)?;
        let single = matches!(arguments.paths.as_slice(), [path] if !path.is_dir());
        Ok(Self {
            classifier: ClassifierServiceClient::new(channel),
            authorization,
            timeout: arguments.timeout,
            early_error_rate: arguments.early.unwrap_or_default(),
            priority: if single { Priority::Interactive } else { Priority::Bulk },
        })
    }

    /// Classifies one track. `on_seconds` hears how many seconds of it have been classified so far.
    pub(crate) async fn classify(
        &self,
        track: &Track,
        on_seconds: impl Fn(f64) + Sync,
    ) -> Result<Verdict, ClientError> {
        match track {
            Track::Missing(_, why) => Err(ClientError::Missing(why.clone())),
            // Standard input can be read once only.
            Track::Stdin => self.attempt(tokio::io::stdin(), ClassifyOptions::default(), &on_seconds).await,
            Track::File(path) => {
                let options = ClassifyOptions {
                    content_type: path.extension().unwrap_or_default().to_string_lossy().into_owned(),
                    blake3_digest: digest(path).await?,
                    ..ClassifyOptions::default()
                };
                let attempt =
                    || async { self.attempt(tokio::fs::File::open(path).await?, options.clone(), &on_seconds).await };
                attempt
                    .retry(ExponentialBuilder::default().with_jitter().with_max_times(ATTEMPTS - 1))
                    .when(|error| error.retry_after().is_some())
                    .adjust(|error, planned| planned.map(|delay| delay.max(error.retry_after().unwrap_or_default())))
                    .await
            }
        }
    }

    async fn attempt(
        &self,
        audio: impl AsyncRead + Unpin + Send + 'static,
        options: ClassifyOptions,
        on_seconds: &impl Fn(f64),
    ) -> Result<Verdict, ClientError> {
        let options = ClassifyOptions {
            events: vec![EventKind::Progress.into()],
            early_error_rate: self.early_error_rate,
            priority: self.priority.into(),
            ..options
        };
        let (requests, outgoing) = mpsc::channel(MESSAGES_AHEAD);
        // The channel is empty and its receiver is alive: this neither waits nor fails.
        let _ = requests.send(ClassifyStreamRequest { payload: Some(Payload::Options(options)) }).await;
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request.set_timeout(self.timeout);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }

        let failed = |status: tonic::Status| ClientError::from(Failure::from_peer(&status, "the server"));
        let mut events = self.classifier.clone().classify_stream(request).await.map_err(failed)?.into_inner();
        let mut pending = Some((requests, audio));
        let mut upload = None;
        while let Some(response) = events.message().await.map_err(failed)? {
            match response.event {
                Some(Event::Accepted(accepted)) => {
                    if let Some((requests, audio)) = pending.take().filter(|_| accepted.audio_wanted) {
                        upload = Some(tokio::spawn(send(audio, requests)));
                    }
                }
                Some(Event::Progress(progress)) => on_seconds(progress.seconds_heard),
                Some(Event::Verdict(verdict)) => {
                    if let Some(upload) = upload.take().filter(tokio::task::JoinHandle::is_finished) {
                        upload.await.map_err(io::Error::other)??;
                    }
                    return Ok(verdict);
                }
                Some(Event::ChunkVote(_)) | None => {}
            }
        }
        Err(Failure::new(Reason::Internal, "the server ended the stream without a verdict").into())
    }
}

/// Sends all of `audio`. Ends early, without an error, if the server wants no more of it.
async fn send(mut audio: impl AsyncRead + Unpin, requests: mpsc::Sender<ClassifyStreamRequest>) -> io::Result<()> {
    loop {
        let mut message = BytesMut::with_capacity(MESSAGE_BYTES);
        while message.len() < MESSAGE_BYTES {
            if audio.read_buf(&mut message).await? == 0 {
                break;
            }
        }
        if message.is_empty() {
            return Ok(());
        }
        let payload = Some(Payload::Audio(message.freeze()));
        if requests.send(ClassifyStreamRequest { payload }).await.is_err() {
            return Ok(());
        }
    }
}

async fn digest(path: &Path) -> io::Result<bytes::Bytes> {
    let path = path.to_owned();
    let hashing = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(bytes::Bytes::copy_from_slice(hasher.finalize().as_bytes()))
    });
    hashing.await.map_err(io::Error::other)?
}
