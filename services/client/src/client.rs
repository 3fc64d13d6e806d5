//! The caller's side of `ClassifyStream`: digest, upload while the verdict forms, try again where that helps.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use chorale_proto::v1::{
    ClassifyOptions, ClassifyStreamRequest, GetModelRequest, GetModelResponse, Verdict,
    classifier_service_client::ClassifierServiceClient, classify_stream_request::Payload,
    classify_stream_response::Event,
};
use chorale_runtime::{connector::Connector, replicas::Target, tls::ClientTlsConfig};
use tokio::{io::AsyncRead, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, transport::Channel};

use crate::{BearerToken, ClientError, upload};

/// Messages read ahead of the network.
const MESSAGES_AHEAD: usize = 4;

/// How a client calls.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// How a server at an `https://` endpoint is believed. Default: by the authorities that this system trusts.
    pub tls: ClientTlsConfig,
    /// Who calls. Default: nobody in particular.
    pub token: Option<BearerToken>,
    /// When to give up on a file or another call, all attempts together. The cluster stops its work then. Default: one hour.
    pub timeout: Duration,
    /// How often a file is tried at most, where trying again helps. Default: 5.
    pub attempts: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { tls: ClientTlsConfig::default(), token: None, timeout: Duration::from_secs(3600), attempts: 5 }
    }
}

/// A connection to a gateway. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    classifier: ClassifierServiceClient<Channel>,
    token: Option<BearerToken>,
    timeout: Duration,
    attempts: usize,
}

impl Client {
    /// Connects to `endpoint`.
    ///
    /// # Errors
    /// If nobody answers there, or it is not whom it should be.
    pub async fn connect(endpoint: &Target, options: ClientOptions) -> Result<Self, ClientError> {
        let ClientOptions { tls, token, timeout, attempts } = options;
        let connector = Connector::new(std::slice::from_ref(endpoint), &tls)?;
        let connected = connector.connect(endpoint).await;
        let channel = connected.map_err(|source| ClientError::Connect { endpoint: endpoint.clone(), source })?;
        Ok(Self { classifier: ClassifierServiceClient::new(channel), token, timeout, attempts })
    }

    /// The models that answer, and the limits of a call.
    ///
    /// # Errors
    /// If the server does not say.
    pub async fn model(&self) -> Result<GetModelResponse, ClientError> {
        let answer = self.classifier.clone().get_model(self.request(self.timeout, GetModelRequest {})).await;
        Ok(answer.map_err(|status| ClientError::of_status(&status))?.into_inner())
    }

    /// Classifies a file. It is sent only if its verdict is in no cache: it is digested first, unless `options` have its
    /// digest. It is sent again if the connection broke, or the server asks for that, no earlier than it says. `on_event` hears
    /// the events that `options` want; they begin again with each attempt.
    ///
    /// # Errors
    /// If the file cannot be read, or the server says no; after `attempts`, or before `timeout` would pass, if it may be tried
    /// again.
    pub async fn classify_file(
        &self,
        path: &Path,
        options: ClassifyOptions,
        on_event: impl Fn(Event) + Sync,
    ) -> Result<Verdict, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut options = options;
        if options.content_type.is_empty() {
            options.content_type = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        }
        if options.blake3_digest.is_empty() {
            options.blake3_digest = upload::digest(path).await?;
        }
        let attempt = || async {
            let file = tokio::fs::File::open(path).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            self.classify_within(left, file, options.clone(), &on_event).await
        };
        attempt
            .retry(ExponentialBuilder::default().with_jitter().with_max_times(self.attempts.saturating_sub(1)))
            .when(|error| error.retry_after().is_some())
            .adjust(|error, planned| {
                let delay = planned?.max(error.retry_after()?);
                (Instant::now() + delay < deadline).then_some(delay)
            })
            .await
    }

    /// Classifies audio that can be read once only: a pipe, a microphone. There is one attempt.
    ///
    /// # Errors
    /// If the audio cannot be read, or the server says no.
    pub async fn classify_reader(
        &self,
        audio: impl AsyncRead + Unpin + Send + 'static,
        options: ClassifyOptions,
        on_event: impl Fn(Event) + Sync,
    ) -> Result<Verdict, ClientError> {
        self.classify_within(self.timeout, audio, options, on_event).await
    }

    async fn classify_within(
        &self,
        timeout: Duration,
        audio: impl AsyncRead + Unpin + Send + 'static,
        options: ClassifyOptions,
        on_event: impl Fn(Event) + Sync,
    ) -> Result<Verdict, ClientError> {
        let failed = |status: tonic::Status| ClientError::of_status(&status);
        let (requests, outgoing) = mpsc::channel(MESSAGES_AHEAD);
        // The channel is empty and its receiver is alive: this neither waits nor fails.
        let _ = requests.send(ClassifyStreamRequest { payload: Some(Payload::Options(options)) }).await;
        let request = self.request(timeout, ReceiverStream::new(outgoing));
        let mut events = self.classifier.clone().classify_stream(request).await.map_err(failed)?.into_inner();
        let mut pending = Some((requests, audio));
        let mut upload = None;
        while let Some(response) = events.message().await.map_err(failed)? {
            match response.event {
                Some(Event::Accepted(accepted)) => {
                    if let Some((requests, audio)) = pending.take().filter(|_| accepted.audio_wanted) {
                        upload = Some(tokio::spawn(upload::send(audio, requests)));
                    }
                    on_event(Event::Accepted(accepted));
                }
                Some(Event::Verdict(verdict)) => {
                    if let Some(upload) = upload.take().filter(JoinHandle::is_finished) {
                        upload.await.map_err(io::Error::other)??;
                    }
                    return Ok(verdict);
                }
                Some(event) => on_event(event),
                None => {}
            }
        }
        Err(ClientError::unfinished())
    }

    fn request<T>(&self, timeout: Duration, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        if let Some(token) = &self.token {
            token.sign(&mut request);
        }
        request
    }
}
