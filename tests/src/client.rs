//! A caller that uploads at the pace of a test.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use chorale_proto::v1::{
    Accepted, ClassifyOptions, ClassifyStreamRequest, ClassifyStreamResponse, Verdict,
    classifier_service_client::ClassifierServiceClient, classify_stream_request::Payload,
    classify_stream_response::Event,
};
use futures::future::{Either, select};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tonic_types::StatusExt;

const MESSAGE_BYTES: usize = 64 * 1024;

/// A caller of the public service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    /// The generated client, for the calls that this one does not wrap.
    pub rpc: ClassifierServiceClient<Channel>,
    token: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// A caller on `channel`.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { rpc: ClassifierServiceClient::new(channel), token: None }
    }

    /// The same caller, who proves who it is.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self { token: Some(format!("Bearer {token}").parse().expect("a header can carry the token")), ..self }
    }

    /// Streams a whole track, as fast as it is taken, and returns its verdict.
    ///
    /// # Errors
    /// What the server says.
    pub async fn classify(&self, audio: impl Into<Bytes>) -> Result<Verdict, Status> {
        self.classify_with(audio, ClassifyOptions::default()).await
    }

    /// The same, with options.
    ///
    /// # Errors
    /// What the server says.
    pub async fn classify_with(&self, audio: impl Into<Bytes>, options: ClassifyOptions) -> Result<Verdict, Status> {
        let audio = audio.into();
        let messages = (0..audio.len()).step_by(MESSAGE_BYTES);
        let messages: Vec<Bytes> =
            messages.map(|start| audio.slice(start..audio.len().min(start + MESSAGE_BYTES))).collect();
        self.classify_messages(messages, options).await
    }

    /// Streams messages of audio, as fast as they are taken, and returns the verdict.
    ///
    /// # Errors
    /// What the server says.
    pub async fn classify_messages<I>(&self, messages: I, options: ClassifyOptions) -> Result<Verdict, Status>
    where
        I: IntoIterator<Item = Bytes, IntoIter: Send + 'static>,
    {
        let mut upload = self.upload(options).await?;
        let requests = upload.requests.take();
        let messages = messages.into_iter();
        // In this future, so that who drops it stops sending: that is how a caller goes away.
        let sending = async move {
            let Some(requests) = requests else { return };
            for message in messages {
                // The server may end the call before it has read everything.
                if requests.send(audio_request(message)).await.is_err() {
                    return;
                }
            }
        };
        let (sending, answer) = (pin!(sending), pin!(upload.verdict()));
        match select(answer, sending).await {
            Either::Left((verdict, _)) => verdict,
            Either::Right(((), answer)) => answer.await,
        }
    }

    /// Begins an upload that the test feeds itself.
    ///
    /// # Errors
    /// What the server says.
    pub async fn upload(&self, options: ClassifyOptions) -> Result<Upload, Status> {
        self.upload_within(options, None).await
    }

    /// The same with a deadline, which the server hears of, and this side does not keep.
    ///
    /// # Errors
    /// What the server says.
    pub async fn upload_within(&self, options: ClassifyOptions, deadline: Option<Duration>) -> Result<Upload, Status> {
        let (requests, outgoing) = mpsc::channel(1);
        let first = ClassifyStreamRequest { payload: Some(Payload::Options(options)) };
        requests.send(first).await.expect("the receiver is alive");
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        let events = self.rpc.clone().classify_stream(request).await?.into_inner();
        Ok(Upload { requests: Some(requests), events })
    }
}

fn audio_request(audio: Bytes) -> ClassifyStreamRequest {
    ClassifyStreamRequest { payload: Some(Payload::Audio(audio)) }
}

/// The server has ended the call.
#[derive(Debug)]
pub struct Ended;

/// A `ClassifyStream` call in progress. Dropping it cancels the call.
#[derive(Debug)]
pub struct Upload {
    requests: Option<mpsc::Sender<ClassifyStreamRequest>>,
    events: Streaming<ClassifyStreamResponse>,
}

impl Upload {
    /// Sends the next bytes; waits while the server is behind.
    pub async fn send(&mut self, audio: impl Into<Bytes>) {
        let requests = self.requests.as_ref().expect("the upload is open");
        requests.send(audio_request(audio.into())).await.expect("the server takes audio");
    }

    /// Sends the next bytes, unless the server has ended the call.
    ///
    /// # Errors
    /// If it has.
    pub async fn try_send(&mut self, audio: impl Into<Bytes>) -> Result<(), Ended> {
        let requests = self.requests.as_ref().expect("the upload is open");
        requests.send(audio_request(audio.into())).await.map_err(|_| Ended)
    }

    /// Says that the audio is complete.
    pub fn close(&mut self) {
        self.requests = None;
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// What the server says.
    pub async fn event(&mut self) -> Result<Option<Event>, Status> {
        Ok(self.events.message().await?.and_then(|response| response.event))
    }

    /// The first event, which says whether the audio is wanted.
    ///
    /// # Errors
    /// What the server says.
    pub async fn accepted(&mut self) -> Result<Accepted, Status> {
        match self.event().await? {
            Some(Event::Accepted(accepted)) => Ok(accepted),
            other => panic!("expected Accepted as the first event, found {other:?}"),
        }
    }

    /// Closes the upload, and returns the verdict that ends the stream.
    ///
    /// # Errors
    /// What the server says.
    pub async fn verdict(mut self) -> Result<Verdict, Status> {
        self.close();
        while let Some(event) = self.event().await? {
            if let Event::Verdict(verdict) = event {
                assert_eq!(self.event().await?, None, "the verdict is the last event");
                return Ok(verdict);
            }
        }
        panic!("the stream ended without a verdict");
    }
}

/// The reason that an error's details carry; empty if it has none.
#[must_use]
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
