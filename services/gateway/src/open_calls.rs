//! The calls that a gateway serves now, for people.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::Serialize;

use crate::metrics::Rpc;

/// All of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenCalls {
    calls: Arc<Mutex<BTreeMap<String, OpenCall>>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct OpenCall {
    pub(crate) caller: Arc<str>,
    pub(crate) rpc: Rpc,
    pub(crate) trace_id: Option<String>,
    pub(crate) began: Instant,
    pub(crate) bytes: Arc<AtomicU64>,
}

/// What the view `gateway.calls` shows of one.
#[derive(Debug, Serialize)]
pub(crate) struct CallState {
    request_id: String,
    trace_id: Option<String>,
    caller: String,
    rpc: &'static str,
    seconds: f64,
    bytes_received: u64,
}

impl OpenCalls {
    /// Adds the call `request_id`.
    pub(crate) fn add(&self, request_id: String, call: OpenCall) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).insert(request_id, call);
    }

    /// Removes it.
    pub(crate) fn remove(&self, request_id: &str) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(request_id);
    }

    /// All of them, the oldest first.
    pub(crate) fn describe(&self) -> Vec<CallState> {
        let describe = |(request_id, call): (&String, &OpenCall)| CallState {
            request_id: request_id.clone(),
            trace_id: call.trace_id.clone(),
            caller: call.caller.to_string(),
            rpc: call.rpc.full_name(),
            seconds: call.began.elapsed().as_secs_f64(),
            bytes_received: call.bytes.load(Ordering::Relaxed),
        };
        let mut calls: Vec<_> =
            self.calls.lock().unwrap_or_else(PoisonError::into_inner).iter().map(describe).collect();
        calls.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        calls
    }
}
