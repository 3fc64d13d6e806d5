//! What callers saw, call by call.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How a call ended for its caller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seen {
    /// With what a gateway said: `OK`, or a reason of `classifier.proto`.
    Said(String),
    /// With the deadline, before the gateway had said so.
    Late,
    /// With its connection.
    Broken,
    /// Before it began: nobody takes connections.
    NotConnected,
    /// The caller left.
    Left,
}

impl Seen {
    pub(crate) fn ok() -> Self {
        Self::Said("OK".to_owned())
    }

    pub(crate) fn of(status: &Status) -> Self {
        match status.get_details_error_info() {
            Some(info) if info.domain == "chorale.v1" => Self::Said(info.reason),
            // The caller's own transport says the latter, of a call that has no answer yet.
            _ if status.code() == Code::DeadlineExceeded || status.message() == "Timeout expired" => Self::Late,
            _ if is_about_connecting(status) => Self::NotConnected,
            _ => Self::Broken,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Said(code) => code,
            Self::Late => "deadline passed on the way",
            Self::Broken => "connection broke",
            Self::NotConnected => "not connected",
            Self::Left => "caller left",
        })
    }
}

fn is_about_connecting(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// One call to one gateway.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) gateway: usize,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) seen: Seen,
}

/// All calls, and counts of whatever else callers notice.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Mutex<Vec<Entry>>,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Ledger {
    pub(crate) fn enter(&self, gateway: usize, began: Instant, seen: Seen) {
        let entry = Entry { gateway, began, ended: Instant::now(), seen };
        lock(&self.entries).push(entry);
    }

    pub(crate) fn count(&self, what: impl Into<String>) {
        *lock(&self.counts).entry(what.into()).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        lock(&self.counts).clone()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    /// Calls by how they ended.
    pub(crate) fn by_end(&self) -> BTreeMap<Seen, u64> {
        let mut counts = BTreeMap::new();
        for entry in lock(&self.entries).iter() {
            *counts.entry(entry.seen.clone()).or_default() += 1;
        }
        counts
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
