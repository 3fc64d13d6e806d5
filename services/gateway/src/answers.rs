//! Answers that need no computing: kept in the cache, or about to land.

use std::{sync::Arc, time::Duration};

use chorale_proto::v1::Verdict;
use tokio::time::{Instant, timeout_at};

use crate::{
    cache::{CacheKey, Expected, Terms, VerdictCache, has_embedding},
    flight::{Flights, Follower, Leader, Place},
    metrics::GatewayMetrics,
    model::KnownModel,
};

/// What is known about the answer to a call.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// The answer.
    Known(Arc<Verdict>),
    /// Nothing: this call computes it, for others too.
    Lead(Leader),
    /// An equal call is computing it.
    Follow(Follower),
}

/// How a wait for an answer ended.
#[derive(Debug)]
pub(crate) enum Settled {
    /// With the answer.
    Known(Arc<Verdict>),
    /// This call computes it, for others too.
    Lead(Leader),
    /// This call computes it for itself: the others took too long.
    Alone,
}

/// The cache and the flights of one gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    cache: VerdictCache,
    flights: Flights,
    metrics: GatewayMetrics,
}

impl Answers {
    /// Nothing known beyond what `cache` holds.
    pub(crate) fn new(cache: VerdictCache, metrics: GatewayMetrics) -> Self {
        Self { cache, flights: Flights::default(), metrics }
    }

    /// Looks for the verdict over the audio with this `digest`.
    pub(crate) async fn look_up(&self, digest: &blake3::Hash, model: &KnownModel, terms: Terms<'_>) -> Lookup {
        let (model_version, feature_id) = (&model.model.version, &model.model.feature_id);
        let key = CacheKey::new(digest, model_version, feature_id, terms);
        // The flight is joined first: a verdict is in the cache before its flight ends, so that none is missed between.
        let leader = match self.flights.join(key) {
            Place::Follow(follower) => return Lookup::Follow(follower),
            Place::Lead(leader) => leader,
        };
        let Terms { embedding, .. } = terms;
        let expected = Expected { digest, model_version, feature_id, labels: &model.labels, embedding };
        match self.cache.get(key, expected).await {
            None => Lookup::Lead(leader),
            Some(verdict) => {
                let verdict = Arc::new(verdict);
                leader.land(Arc::clone(&verdict));
                Lookup::Known(verdict)
            }
        }
    }

    /// Looks, and waits for an equal call, and for the next one if that one fails, for at most `wait` in all.
    pub(crate) async fn settle(
        &self,
        digest: &blake3::Hash,
        model: &KnownModel,
        terms: Terms<'_>,
        wait: Duration,
    ) -> Settled {
        let until = Instant::now() + wait;
        loop {
            let mut follower = match self.look_up(digest, model, terms).await {
                Lookup::Known(verdict) => return Settled::Known(verdict),
                Lookup::Lead(leader) => return Settled::Lead(leader),
                Lookup::Follow(follower) => follower,
            };
            match timeout_at(until, follower.landed()).await {
                Ok(Some(verdict)) => {
                    self.metrics.flights_shared.inc();
                    return Settled::Known(verdict);
                }
                Ok(None) => {}
                Err(_elapsed) => return follower.take_over().map_or(Settled::Alone, Settled::Lead),
            }
        }
    }

    /// Shares a verdict that was computed on these `terms` over the audio with this `digest` with those who wait for it, and
    /// keeps it. One with an embedding is also kept without it, for those who want none. The caller does not wait for the
    /// cache.
    pub(crate) fn keep(
        &self,
        digest: &blake3::Hash,
        model: &KnownModel,
        terms: Terms<'_>,
        leader: Option<Leader>,
        verdict: &Verdict,
    ) {
        let key = |terms| CacheKey::new(digest, &model.model.version, &model.model.feature_id, terms);
        let leader = leader.filter(|leader| leader.key() == key(terms));
        let shared = Arc::new(verdict.clone());
        if let Some(leader) = &leader {
            leader.land(Arc::clone(&shared));
        }
        if terms.embedding {
            let without = Verdict { embedding: Vec::new(), ..verdict.clone() };
            self.put(key(Terms { embedding: false, ..terms }), None, Arc::new(without));
        }
        // From replicas of an older release, the embedding that is wanted does not come.
        if !terms.embedding || has_embedding(verdict) {
            self.put(key(terms), leader, shared);
        }
    }

    fn put(&self, key: CacheKey, leader: Option<Leader>, verdict: Arc<Verdict>) {
        let cache = self.cache.clone();
        tokio::spawn(async move {
            cache.put(key, &verdict).await;
            drop(leader);
        });
    }
}
