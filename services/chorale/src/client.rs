//! What the command line says of a server, as the client wants it, and what becomes of each track.

use std::time::Duration;

use chorale_client::{
    BearerToken, ClassifyOptions, Client, ClientError, ClientOptions, Event, EventKind, Priority, Target, Verdict,
};

use crate::{cli::listener::CredentialFlags, paths::Track};

/// Why a track has no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrackError {
    /// What was named is not there, or is no audio.
    #[error("{0}")]
    Missing(String),
    /// There is a file, but no verdict.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl TrackError {
    /// The gRPC code's name, as in `--json`.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "NOT_FOUND",
            Self::Client(error) => error.code(),
        }
    }
}

/// The bearer token of `credentials`, or of the environment, if there is one.
pub(crate) fn token(credentials: &CredentialFlags) -> Result<Option<BearerToken>, ClientError> {
    BearerToken::find(credentials.token_file.as_deref())
}

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// In one attempt.
    pub(crate) timeout: Duration,
    /// As in [`ClientOptions::attempts`].
    pub(crate) attempts: usize,
}

impl From<Duration> for Patience {
    fn from(timeout: Duration) -> Self {
        Self { timeout, attempts: ClientOptions::default().attempts }
    }
}

/// Connects to `endpoint` as `credentials` say.
pub(crate) async fn connect(
    endpoint: &Target,
    credentials: &CredentialFlags,
    patience: Patience,
) -> Result<Client, ClientError> {
    let Patience { timeout, attempts } = patience;
    let options = ClientOptions { tls: credentials.tls(), token: token(credentials)?, timeout, attempts };
    Client::connect(endpoint, options).await
}

/// How tracks are classified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// As in [`ClassifyOptions::early_error_rate`].
    pub(crate) early_error_rate: f64,
    pub(crate) priority: Priority,
    pub(crate) want_embedding: bool,
}

/// Classifies one track. `on_seconds` hears how many seconds of it have been classified so far.
pub(crate) async fn classify(
    client: &Client,
    track: &Track,
    manner: Manner,
    on_seconds: impl Fn(f64) + Sync,
) -> Result<Verdict, TrackError> {
    let options = ClassifyOptions {
        events: vec![EventKind::Progress.into()],
        early_error_rate: manner.early_error_rate,
        priority: manner.priority.into(),
        want_embedding: manner.want_embedding,
        ..ClassifyOptions::default()
    };
    let on_event = |event| {
        if let Event::Progress(progress) = event {
            on_seconds(progress.seconds_heard);
        }
    };
    match track {
        Track::Missing(_, why) => Err(TrackError::Missing(why.clone())),
        Track::Stdin => Ok(client.classify_reader(tokio::io::stdin(), options, on_event).await?),
        Track::File(path) => Ok(client.classify_file(path, options, on_event).await?),
    }
}
