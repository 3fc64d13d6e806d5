//! What a caller is told while its track is heard.

use std::{sync::Arc, time::Duration};

use chorale_proto::v1::classify_stream_response::Event;
use chorale_runtime::failure::Failure;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::call::gone;

/// At most four times a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Where events go.
pub(crate) type EventSender = mpsc::Sender<Result<Told, Failure>>;

/// What a caller is told, in whatever protocol it speaks.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) event: Event,
    /// The labels of the model, where the event has their probabilities.
    pub(crate) labels: Arc<[String]>,
}

impl Told {
    /// An event without probabilities.
    pub(crate) fn of(event: Event) -> Self {
        Self { event, labels: Arc::default() }
    }
}

/// Tells a caller what happens.
#[derive(Debug)]
pub(crate) struct Teller<'a> {
    /// None in a unary call: nobody is told.
    events: Option<&'a EventSender>,
    /// How long a caller may leave events unread.
    patience: Duration,
    next: Instant,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(events: Option<&'a EventSender>, patience: Duration) -> Self {
        Self { events, patience, next: Instant::now() }
    }

    /// # Errors
    /// If the caller is gone, or does not read.
    pub(crate) async fn tell(&self, told: Told) -> Result<(), Failure> {
        let Some(events) = self.events else { return Ok(()) };
        let patience = self.patience;
        match timeout(patience, events.send(Ok(told))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_closed)) => Err(gone()),
            Err(_elapsed) => {
                let message = format!("the responses were not read for more than {patience:?}");
                Err(Failure::limit("idle_timeout", format_args!("{patience:?}"), message))
            }
        }
    }

    /// Tells what can be missed, if it is time for it. A caller that does not keep up misses one.
    pub(crate) fn tell_now_and_then(&mut self, event: impl FnOnce() -> Event) {
        let now = Instant::now();
        let Some(events) = self.events.filter(|_| now >= self.next) else { return };
        self.next = now + INTERVAL;
        let _ = events.try_send(Ok(Told::of(event())));
    }
}
