//! What every way into the gateway leads to: admission, and a classification that tells what it hears.

use std::sync::Arc;

use bytes::Bytes;
use chorale_model::contract::feature_id;
use chorale_proto::v1::{ClassifyOptions, GetModelResponse, Limits, Verdict, classify_stream_response::Event};
use chorale_runtime::{
    connections::Peer,
    failure::{Failure, Reason},
    shares::{Full, Place, Places},
    trace::Span,
};
use tokio::{
    sync::mpsc,
    time::{timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, metadata::MetadataMap};

use crate::{
    auth::{Authenticator, Caller},
    call::{Call, gone},
    classify::{Classification, Context, deadline_passed},
    config::LimitsConfig,
    deadline::Deadline,
    metrics::Rpc,
    open_calls::OpenCalls,
    request::{CheckedOptions, Incoming, Upload},
    told::{EventSender, Told},
};

/// Events that wait for a caller to read them.
const QUEUED_EVENTS: usize = 16;

/// Takes calls. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Classifier {
    context: Arc<Context>,
    authenticator: Authenticator,
    places: Places,
    /// For messages that are read before anybody knows what they ask for.
    reading: Places,
    open: OpenCalls,
    drain: CancellationToken,
}

/// A call that was not admitted.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) failure: Failure,
    /// What it is called in logs.
    pub(crate) request_id: String,
}

impl Classifier {
    /// Takes calls of those whom `authenticator` knows until `drain`.
    pub(crate) fn new(context: Context, authenticator: Authenticator, drain: CancellationToken) -> Self {
        let most = count(context.limits.max_concurrent_streams);
        let (places, reading) = (Places::new(most), Places::new(most));
        Self { context: Arc::new(context), authenticator, places, reading, open: OpenCalls::default(), drain }
    }

    /// The calls that are served now.
    pub(crate) fn open_calls(&self) -> OpenCalls {
        self.open.clone()
    }

    /// What one call may cost.
    pub(crate) fn limits(&self) -> &LimitsConfig {
        &self.context.limits
    }

    /// Admits a call with these headers, over a connection with these extensions, before any work is done for it.
    pub(crate) fn admit(
        &self,
        rpc: Rpc,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Call, Box<Refusal>> {
        let stranger = Caller::of_peer(extensions.get::<Peer>());
        let span = Span::serve(rpc.full_name(), metadata);
        let mut call = Call::new(rpc, stranger, span, self.context.metrics.clone());
        match self.place(metadata, extensions, &mut call) {
            Ok(()) => {
                call.open(&self.open);
                Ok(call)
            }
            Err(failure) => {
                call.end(Err(&failure));
                Err(Box::new(Refusal { failure, request_id: call.request_id().to_owned() }))
            }
        }
    }

    /// Finds out whose call it is, and takes a place for it.
    fn place(&self, metadata: &MetadataMap, extensions: &Extensions, call: &mut Call) -> Result<(), Failure> {
        call.caller = self.authenticator.identify(metadata, extensions)?;
        if self.drain.is_cancelled() {
            return Err(Failure::new(Reason::Draining, "this replica is shutting down"));
        }
        call.place = Some(self.take(&self.places, &call.caller)?);
        Ok(())
    }

    /// Takes a place for the message of a call with these headers, over a connection with these extensions. Who has no good
    /// token is refused later, by the service.
    pub(crate) fn place_to_read(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Place, Failure> {
        let caller = self.authenticator.identify(metadata, extensions);
        let caller = caller.unwrap_or_else(|_| Caller::of_peer(extensions.get::<Peer>()));
        self.take(&self.reading, &caller).inspect_err(|failure| self.context.metrics.count_limit(failure))
    }

    fn take(&self, places: &Places, caller: &Caller) -> Result<Place, Failure> {
        let LimitsConfig { max_concurrent_streams, .. } = self.context.limits;
        let most = self.most_streams(caller);
        let (limit, value, message) = match places.take(&caller.key, count(most)) {
            Ok(place) => return Ok(place),
            Err(Full::Share(open)) => {
                ("max_streams_per_caller", most, format!("this caller has {open} calls open already"))
            }
            Err(Full::Taken) => {
                let open = max_concurrent_streams;
                ("max_concurrent_streams", open, format!("this replica serves {open} streams already"))
            }
        };
        Err(Failure::new(Reason::Overloaded, message).with("limit", limit).with("value", value))
    }

    /// Counts a call that failed before it was one.
    pub(crate) fn count_limit(&self, failure: &Failure) {
        self.context.metrics.count_limit(failure);
    }

    /// Calls that `caller` may have at a time.
    fn most_streams(&self, caller: &Caller) -> u32 {
        caller.max_streams.unwrap_or(self.context.limits.max_streams_per_caller)
    }

    /// Serves a call that was admitted: gives what its caller is to be told, the verdict or a failure at last. To drop that is
    /// to cancel the call.
    ///
    /// `incoming` may take as long as an upload may pause; `deadline` is what is known of it by then.
    pub(crate) fn begin<I>(
        &self,
        mut call: Call,
        incoming: I,
        deadline: Option<Deadline>,
    ) -> mpsc::Receiver<Result<Told, Failure>>
    where
        I: Future<Output = Result<Incoming, Failure>> + Send + 'static,
    {
        let (events, told) = mpsc::channel(QUEUED_EVENTS);
        let classifier = self.clone();
        // A task of its own, so that deadlines and pauses are noticed also while the caller reads nothing.
        tokio::spawn(async move {
            let outcome = tokio::select! {
                biased;
                () = events.closed() => Err(gone()),
                outcome = classifier.serve(incoming, deadline, &events, &call) => outcome,
            };
            call.end(outcome.as_ref());
            let last = outcome.map(|verdict| Told::of(Event::Verdict(verdict)));
            // A caller that is gone, or that reads nothing for so long, gets nothing.
            let _ = timeout(classifier.context.limits.idle_timeout, events.send(last)).await;
        });
        told
    }

    async fn serve(
        &self,
        incoming: impl Future<Output = Result<Incoming, Failure>> + Send,
        deadline: Option<Deadline>,
        events: &EventSender,
        call: &Call,
    ) -> Result<Verdict, Failure> {
        let idle_timeout = self.context.limits.idle_timeout;
        let incoming = timeout(idle_timeout, incoming);
        let incoming = match deadline {
            None => incoming.await,
            Some(deadline) => {
                timeout_at(deadline.answer_by(false), incoming).await.map_err(|_elapsed| deadline_passed())?
            }
        };
        let Incoming { options, deadline, upload } = incoming.unwrap_or_else(|_elapsed| {
            let message = format!("no options came within {idle_timeout:?}");
            Err(Failure::limit("idle_timeout", format_args!("{idle_timeout:?}"), message))
        })?;
        let options = CheckedOptions::new(options, feature_id())?;
        Classification::new(&self.context, call.origin(), options, deadline, Some(events), &call.bytes)
            .run(upload)
            .await
    }

    /// Serves a call that was admitted, and that brought the whole of its audio.
    pub(crate) async fn classify_whole(
        &self,
        call: &mut Call,
        options: ClassifyOptions,
        audio: Bytes,
        deadline: Option<Deadline>,
    ) -> Result<Verdict, Failure> {
        let outcome = match CheckedOptions::new(options, feature_id()) {
            Err(failure) => Err(failure),
            Ok(options) => {
                let (origin, bytes) = (call.origin(), &call.bytes);
                let classification = Classification::new(&self.context, origin, options, deadline, None, bytes);
                classification.run(Upload::Whole(audio)).await
            }
        };
        call.end(outcome.as_ref());
        outcome
    }

    /// Describes the models, and the limits of who asks.
    pub(crate) fn describe(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<GetModelResponse, Failure> {
        let caller = self.authenticator.identify(metadata, extensions)?;
        let known = self.context.models.get()?;
        let limits = &self.context.limits;
        let limits = Limits {
            max_audio_bytes: limits.max_audio_bytes.as_u64(),
            max_message_bytes: limits.max_message_bytes.as_u64(),
            max_duration_seconds: limits.max_duration.as_secs_f64(),
            max_concurrent_streams: limits.max_concurrent_streams,
            idle_timeout: limits.idle_timeout.try_into().ok(),
            max_streams_per_caller: self.most_streams(&caller),
            min_upload_rate: limits.min_upload_rate.as_u64(),
        };
        let (model, models) = (Some(known.heaviest()), known.served());
        Ok(GetModelResponse { model, limits: Some(limits), models })
    }
}

fn count(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
