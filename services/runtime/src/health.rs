//! Readiness: one state behind gRPC health and the admin port.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use tokio::sync::watch;
use tonic_health::server::HealthReporter;

/// The readiness of the services of one process. Cheap to clone.
///
/// A service is not ready from when it is registered until it says that it is. The process (the empty service name)
/// is always healthy while it answers: a liveness probe asks for that one.
#[derive(Debug, Clone)]
pub struct Readiness {
    services: Arc<watch::Sender<BTreeMap<&'static str, State>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotReady,
    Ready,
    /// Not ready, and never again: the service drains.
    Withdrawn,
}

impl Readiness {
    /// No services yet.
    #[must_use]
    pub fn new() -> Self {
        Self { services: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }

    /// Sets whether `service` may get traffic. Without effect once it was withdrawn.
    pub fn set(&self, service: &'static str, ready: bool) {
        self.change(service, if ready { State::Ready } else { State::NotReady });
    }

    /// Withdraws `service` for good: a service that drains must not become ready again.
    pub fn withdraw(&self, service: &'static str) {
        self.change(service, State::Withdrawn);
    }

    fn change(&self, service: &'static str, state: State) {
        let changed = self.services.send_if_modified(|services| match services.entry(service) {
            Entry::Vacant(vacant) => {
                vacant.insert(state);
                true
            }
            Entry::Occupied(mut occupied) => {
                let changed = *occupied.get() != state && *occupied.get() != State::Withdrawn;
                if changed {
                    occupied.insert(state);
                }
                changed
            }
        });
        if changed {
            tracing::info!(service, ready = state == State::Ready, "readiness");
        }
    }

    /// Every service and whether it is ready.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<&'static str, bool> {
        self.services.borrow().iter().map(|(&service, &state)| (service, state == State::Ready)).collect()
    }

    /// Whether `service` is ready.
    #[must_use]
    pub fn is_ready(&self, service: &str) -> bool {
        self.services.borrow().get(service) == Some(&State::Ready)
    }

    /// Waits until `service` is ready.
    pub async fn ready(&self, service: &'static str) {
        let mut services = self.services.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = services.wait_for(|services| services.get(service) == Some(&State::Ready)).await;
    }

    /// Copies every change of `service` to a gRPC health service, where it has all of these `names`, until the process ends.
    pub(crate) fn report(&self, service: &'static str, names: Vec<&'static str>, reporter: HealthReporter) {
        let mut services = self.services.subscribe();
        tokio::spawn(async move {
            loop {
                let ready = services.borrow_and_update().get(service) == Some(&State::Ready);
                let status =
                    if ready { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
                for name in &names {
                    reporter.set_service_status(name, status).await;
                }
                if services.changed().await.is_err() {
                    break;
                }
            }
        });
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_is_ready_when_it_says_so_and_never_after_it_was_withdrawn() {
        let readiness = Readiness::new();
        readiness.set("a", false);
        assert_eq!(readiness.snapshot(), BTreeMap::from([("a", false)]));
        readiness.set("a", true);
        readiness.ready("a").await;
        readiness.withdraw("a");
        readiness.set("a", true);
        assert_eq!(readiness.snapshot(), BTreeMap::from([("a", false)]));
    }
}
