//! What a gateway reads from Redis.

use std::sync::LazyLock;

use chorale_gateway::fuzzing::CachedVerdicts;
use chorale_model::{embedding::is_track_embedding, labels::UNKNOWN};
use chorale_proto::v1::Verdict;

use crate::scratch::Scratch;

pub(crate) const LABELS: [&str; 2] = ["jazz", "rock"];

/// A value in the cache, with and without a secret, and with an embedding.
pub fn cached_verdict(input: &[u8]) {
    static PLAIN: LazyLock<CachedVerdicts> = LazyLock::new(|| CachedVerdicts::new(None, &LABELS));
    static SEALED: LazyLock<CachedVerdicts> = LazyLock::new(|| {
        let scratch = Scratch::new();
        CachedVerdicts::new(Some(&scratch.write("secret", &[b'x'; 64])), &LABELS)
    });
    static EMBEDDED: LazyLock<CachedVerdicts> = LazyLock::new(|| CachedVerdicts::new(None, &LABELS).with_embeddings());
    assert!(SEALED.read(input).is_none(), "a value that was not sealed was believed");
    for cached in [&PLAIN, &EMBEDDED] {
        if let Some(verdict) = cached.read(input) {
            check(&verdict);
            assert_eq!(cached.read(&cached.write(&verdict)), Some(verdict));
        }
    }
}

/// What callers rely on.
fn check(verdict: &Verdict) {
    let known = |genre: &str| LABELS.contains(&genre) || genre == UNKNOWN;
    assert!(known(&verdict.genre) && (0.0..=1.0).contains(&verdict.confidence));
    assert!(verdict.duration_seconds.is_finite() && verdict.scores.len() <= LABELS.len());
    assert!(verdict.embedding.is_empty() || is_track_embedding(&verdict.embedding));
    for score in &verdict.scores {
        assert!(known(&score.genre) && (0.0..=1.0).contains(&score.probability));
    }
    for segment in &verdict.segments {
        assert!(known(&segment.genre) && segment.start_seconds.is_finite() && segment.end_seconds.is_finite());
    }
}
