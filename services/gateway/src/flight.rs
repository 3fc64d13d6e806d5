//! Single flight: of equal calls that run at the same time, one computes the verdict and the others share it.
//!
//! ```text
//!            join (first)                 land (verdict)
//!   absent ───────────────▶ in the air ───────────────────▶ landed
//!     ▲                       │     │ take_over               │
//!     └── leader dropped ─────┘     └─▶ in the air, new leader│
//!     └── leader dropped ─────────────────────────────────────┘
//! ```
//!
//! A leader that is dropped without landing (it failed, its caller left, its audio was not what it claimed) wakes its
//! followers empty-handed; the first to join again leads. A verdict lands only under a key that was computed from the
//! audio here, so a false claim can delay its followers, never mislead them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use chorale_proto::v1::Verdict;
use tokio::sync::watch;

use crate::cache::CacheKey;

/// The flights of one gateway. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flights {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<HashMap<CacheKey, Flight>>,
    next_id: AtomicU64,
}

#[derive(Debug)]
struct Flight {
    id: u64,
    landed: watch::Receiver<Option<Arc<Verdict>>>,
}

/// What a call is to others with its key.
#[derive(Debug)]
pub(crate) enum Place {
    /// The first: it computes.
    Lead(Leader),
    /// A later one: it may wait.
    Follow(Follower),
}

/// The call that computes. Dropping it ends the flight.
#[derive(Debug)]
pub(crate) struct Leader {
    shared: Arc<Shared>,
    key: CacheKey,
    id: u64,
    landing: watch::Sender<Option<Arc<Verdict>>>,
}

/// A call that waits for the leader.
#[derive(Debug)]
pub(crate) struct Follower {
    shared: Arc<Shared>,
    key: CacheKey,
    id: u64,
    landed: watch::Receiver<Option<Arc<Verdict>>>,
}

impl Flights {
    /// Leads the flight of `key` if there is none, else follows it.
    pub(crate) fn join(&self, key: CacheKey) -> Place {
        match self.shared.table().entry(key) {
            Entry::Occupied(entry) => {
                let Flight { id, landed } = entry.get();
                Place::Follow(Follower { shared: Arc::clone(&self.shared), key, id: *id, landed: landed.clone() })
            }
            Entry::Vacant(entry) => {
                let (leader, flight) = self.shared.take_off(key);
                entry.insert(flight);
                Place::Lead(leader)
            }
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, HashMap<CacheKey, Flight>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_off(self: &Arc<Self>, key: CacheKey) -> (Leader, Flight) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (landing, landed) = watch::channel(None);
        (Leader { shared: Arc::clone(self), key, id, landing }, Flight { id, landed })
    }
}

impl Leader {
    /// The key of the flight.
    pub(crate) fn key(&self) -> CacheKey {
        self.key
    }

    /// Hands the verdict to every follower, and to whoever joins until the leader is dropped.
    pub(crate) fn land(&self, verdict: Arc<Verdict>) {
        self.landing.send_replace(Some(verdict));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if let Entry::Occupied(entry) = self.shared.table().entry(self.key)
            && entry.get().id == self.id
        {
            entry.remove();
        }
    }
}

impl Follower {
    /// Waits for the leader: its verdict, or `None` if it gave up. May be dropped and called again.
    pub(crate) async fn landed(&mut self) -> Option<Arc<Verdict>> {
        match self.landed.wait_for(Option::is_some).await {
            Ok(verdict) => verdict.clone(),
            Err(_leader_dropped) => None,
        }
    }

    /// Leads instead of a leader that takes too long, so that later calls follow this one. `None` if another call
    /// was quicker.
    pub(crate) fn take_over(self) -> Option<Leader> {
        let mut table = self.shared.table();
        if table.get(&self.key).is_some_and(|flight| flight.id != self.id) {
            return None;
        }
        let (leader, flight) = self.shared.take_off(self.key);
        table.insert(self.key, flight);
        Some(leader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CacheKey = CacheKey::of_bytes([7; 32]);

    fn lead(flights: &Flights) -> Leader {
        match flights.join(KEY) {
            Place::Lead(leader) => leader,
            Place::Follow(_) => panic!("expected to lead"),
        }
    }

    fn follow(flights: &Flights) -> Follower {
        match flights.join(KEY) {
            Place::Follow(follower) => follower,
            Place::Lead(_) => panic!("expected to follow"),
        }
    }

    fn verdict() -> Arc<Verdict> {
        Arc::new(Verdict { genre: "jazz".to_owned(), ..Verdict::default() })
    }

    #[tokio::test]
    async fn followers_share_what_lands_until_the_leader_is_gone() {
        let flights = Flights::default();
        let leader = lead(&flights);
        let mut early = follow(&flights);
        leader.land(verdict());
        let mut late = follow(&flights);
        drop(leader);
        assert_eq!(early.landed().await, Some(verdict()));
        assert_eq!(late.landed().await, Some(verdict()));
        assert!(flights.shared.table().is_empty());
    }

    #[tokio::test]
    async fn a_leader_that_gives_up_wakes_its_followers_and_the_next_one_leads() {
        let flights = Flights::default();
        let leader = lead(&flights);
        let mut follower = follow(&flights);
        drop(leader);
        assert_eq!(follower.landed().await, None);
        drop(lead(&flights));
        assert!(flights.shared.table().is_empty());
    }

    #[tokio::test]
    async fn one_follower_takes_over_from_a_leader_that_takes_too_long() {
        let flights = Flights::default();
        let slow = lead(&flights);
        let (first, second) = (follow(&flights), follow(&flights));
        let new_leader = first.take_over().unwrap();
        assert!(second.take_over().is_none());
        let mut later = follow(&flights);
        drop(slow);
        new_leader.land(verdict());
        assert_eq!(later.landed().await, Some(verdict()));
    }
}
