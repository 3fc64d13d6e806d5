//! Which inference replicas said lately that they do not have a version of the model: while a new version is rolled out, some
//! have it before others.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A replica is asked again after this long.
const MEMORY: Duration = Duration::from_secs(1);

/// What replicas lack.
#[derive(Debug, Default)]
pub(crate) struct Lacking {
    by_version: Mutex<HashMap<String, HashMap<SocketAddr, Instant>>>,
}

impl Lacking {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<SocketAddr, Instant>>> {
        self.by_version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the replica at `address` does not have `version`, as it said at `now`.
    pub(crate) fn note(&self, version: &str, address: SocketAddr, now: Instant) {
        let mut by_version = self.lock();
        // What is forgotten takes no memory.
        by_version.retain(|_, said| {
            said.retain(|_, at| is_known(*at, now));
            !said.is_empty()
        });
        by_version.entry(version.to_owned()).or_default().insert(address, now);
    }

    /// The replicas that do not have `version`, as far as is known at `now`.
    pub(crate) fn of(&self, version: &str, now: Instant) -> HashSet<SocketAddr> {
        let by_version = self.lock();
        let said = by_version.get(version).into_iter().flatten();
        said.filter(|(_, at)| is_known(**at, now)).map(|(address, _)| *address).collect()
    }
}

fn is_known(said_at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(said_at) < MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_replica_lacks_is_known_for_a_moment() {
        let (lacking, address) = (Lacking::default(), |port| SocketAddr::from(([127, 0, 0, 1], port)));
        let now = Instant::now();
        lacking.note("v2", address(1), now);
        lacking.note("v2", address(2), now);
        lacking.note("v3", address(1), now);
        assert_eq!(lacking.of("v2", now), HashSet::from([address(1), address(2)]));
        assert_eq!((lacking.of("v3", now), lacking.of("v4", now)), (HashSet::from([address(1)]), HashSet::new()));
        assert!(lacking.of("v2", now + MEMORY).is_empty());
        lacking.note("v4", address(1), now + MEMORY);
        assert_eq!(lacking.lock().len(), 1, "nothing else is kept");
    }
}
