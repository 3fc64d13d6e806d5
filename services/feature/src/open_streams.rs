//! The analyses that run now, for people.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokio::time::Instant;

/// All of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenStreams {
    streams: Arc<Mutex<Streams>>,
}

#[derive(Debug, Default)]
struct Streams {
    /// How many there were.
    count: u64,
    open: BTreeMap<u64, OpenStream>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct OpenStream {
    pub(crate) request_id: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) caller: Arc<str>,
    pub(crate) began: Instant,
}

/// It is among them until this is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    streams: OpenStreams,
    number: u64,
}

/// What the view `feature.calls` shows of one.
#[derive(Debug, Serialize)]
pub(crate) struct StreamState {
    request_id: Option<String>,
    trace_id: Option<String>,
    caller: String,
    seconds: f64,
}

impl OpenStreams {
    /// Adds one.
    pub(crate) fn add(&self, stream: OpenStream) -> Listed {
        let mut streams = self.lock();
        streams.count += 1;
        let number = streams.count;
        streams.open.insert(number, stream);
        drop(streams);
        Listed { streams: self.clone(), number }
    }

    /// All of them, the oldest first.
    pub(crate) fn describe(&self) -> Vec<StreamState> {
        let describe = |stream: &OpenStream| StreamState {
            request_id: stream.request_id.clone(),
            trace_id: stream.trace_id.clone(),
            caller: stream.caller.to_string(),
            seconds: stream.began.elapsed().as_secs_f64(),
        };
        self.lock().open.values().map(describe).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.streams.lock().open.remove(&self.number);
    }
}
