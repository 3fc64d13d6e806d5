//! One call of the feature service, on a replica that admits it.

use std::time::Duration;

use chorale_proto::v1::{
    AnalyzeOptions, AnalyzeRequest, AnalyzeResponse, analyze_request, feature_service_client::FeatureServiceClient,
};
use chorale_runtime::{
    CALLER, REQUEST_ID,
    failure::{Failure, Reason},
    replicas::{Assigned, Replicas},
    trace::Span,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, metadata::MetadataValue};

use crate::{classify::Origin, metrics::GatewayMetrics};

/// Replicas that are asked before a call fails.
const MAX_ATTEMPTS: u32 = 3;
/// How long a replica may take to admit a call: it has only seen the options.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Pieces of audio that wait for the replica. With the pieces' size, this bounds the memory of a stream.
const QUEUED_PIECES: usize = 4;
/// How long the end of a call that has said everything may take.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A call that a replica admitted. Dropping it cancels the call.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// Takes the audio; `None` after the last piece.
    pub(crate) requests: Option<mpsc::Sender<AnalyzeRequest>>,
    /// Gives the results.
    pub(crate) responses: Streaming<AnalyzeResponse>,
    replica: Assigned,
    /// Ends with the call.
    _span: Span,
}

impl Analysis {
    /// Asks replicas, one after the other, until one admits the call; no audio has been sent then.
    ///
    /// # Errors
    /// What the last replica said if none did.
    pub(crate) async fn open(
        replicas: &Replicas,
        options: &AnalyzeOptions,
        origin: Origin<'_>,
        remaining: Option<Duration>,
        metrics: &GatewayMetrics,
    ) -> Result<Self, Failure> {
        let mut attempt = 1;
        loop {
            let failure = match Self::ask(replicas, options, origin, remaining).await {
                Ok(analysis) => return Ok(analysis),
                Err(failure) => failure,
            };
            if !another_may_admit(&failure) || attempt == MAX_ATTEMPTS {
                return Err(failure);
            }
            attempt += 1;
            metrics.feature_retries.inc();
        }
    }

    async fn ask(
        replicas: &Replicas,
        options: &AnalyzeOptions,
        origin: Origin<'_>,
        remaining: Option<Duration>,
    ) -> Result<Self, Failure> {
        let away = |message: &str| Failure::new(Reason::DependencyUnavailable, message);
        let replica = replicas.pick().ok_or_else(|| away("no replica of the feature service is known"))?;
        let (requests, queued) = mpsc::channel(QUEUED_PIECES);
        let first = AnalyzeRequest { payload: Some(analyze_request::Payload::Options(options.clone())) };
        // The channel is empty and its receiver is here, so there is room.
        let _ = requests.try_send(first);

        let span = origin.trace.call("chorale.v1.FeatureService/Analyze");
        span.set("server.address", replica.address().to_string());
        let mut request = Request::new(ReceiverStream::new(queued));
        span.context().inject(request.metadata_mut());
        if let Some(remaining) = remaining {
            request.set_timeout(remaining);
        }
        for (name, value) in [(REQUEST_ID, origin.request_id), (CALLER, &origin.caller.pseudonym())] {
            if let Ok(value) = MetadataValue::try_from(value) {
                request.metadata_mut().insert(name, value);
            }
        }
        let mut client = FeatureServiceClient::new(replica.channel());
        let failure = match timeout(ADMISSION_TIMEOUT, client.analyze(request)).await {
            Ok(Ok(response)) => {
                replica.answered();
                let responses = response.into_inner();
                return Ok(Self { requests: Some(requests), responses, replica, _span: span });
            }
            Ok(Err(status)) => feature_failure(&status),
            Err(_elapsed) => away("the feature service does not answer"),
        };
        span.fail(failure.to_string());
        tracing::debug!(address = %replica.address(), %failure, "feature call not admitted");
        if another_may_admit(&failure) {
            replica.failed();
        }
        Err(failure)
    }

    /// Lets the call end by itself, as it has said everything: dropped, it would count as one that was given up.
    pub(crate) fn end(mut self) {
        self.requests = None;
        tokio::spawn(timeout(END_TIMEOUT, async move {
            let _end = self.responses.message().await;
        }));
    }

    /// Reads a status that ended the call, and says so to the balancer if the replica broke off.
    pub(crate) fn broke_off(&self, status: &Status) -> Failure {
        let failure = feature_failure(status);
        if another_may_admit(&failure) {
            tracing::warn!(address = %self.replica.address(), %failure, "feature call broke off");
            self.replica.failed();
        }
        failure
    }
}

fn another_may_admit(failure: &Failure) -> bool {
    matches!(failure.reason, Reason::DependencyUnavailable | Reason::Draining | Reason::Overloaded)
}

/// Whether it helps to send the audio of a call that `failure` ended again, where so many replicas are known.
pub(crate) fn another_may_serve(failure: &Failure, replicas: usize) -> bool {
    // A replica that is away may be back already; one that is overloaded is not helped by the same once more.
    another_may_admit(failure) && (failure.reason != Reason::Overloaded || replicas > 1)
}

/// What a status of the feature service means to our caller.
pub(crate) fn feature_failure(status: &Status) -> Failure {
    Failure::from_peer(status, "the feature service")
}
