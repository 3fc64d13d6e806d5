//! What did not hold.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
};

use futures::FutureExt;
use tokio::task::JoinError;

/// All of it. A run without findings has passed.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    found: Mutex<Vec<String>>,
}

impl Findings {
    pub(crate) fn add(&self, what: impl Into<String>) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    pub(crate) fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.add(what());
        }
    }

    /// Lets `work` run to its end, or to where it fails.
    pub(crate) async fn noting(&self, work: impl Future<Output = ()>) {
        if let Err(said) = AssertUnwindSafe(work).catch_unwind().await {
            self.add_said(&said);
        }
    }

    /// What a task said as it failed; nothing if it was stopped.
    pub(crate) fn add_panic(&self, error: JoinError) {
        if let Ok(said) = error.try_into_panic() {
            self.add_said(&said);
        }
    }

    fn add_said(&self, said: &Box<dyn Any + Send>) {
        let text = said.downcast_ref::<String>().cloned();
        let text = text.or_else(|| said.downcast_ref::<&str>().map(ToString::to_string));
        self.add(text.unwrap_or_else(|| "a task failed".to_owned()));
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
