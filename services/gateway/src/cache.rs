//! The result cache: verdicts by what they depend on.
//!
//! A cache speeds a gateway up and never breaks it: whatever a backend does, a lookup ends within a bounded time and
//! without an error, and a value that this gateway could not have written is a miss.

mod breaker;
mod memory;
mod redis;
mod seal;
mod secret;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chorale_model::{embedding::is_track_embedding, labels::UNKNOWN};
use chorale_proto::v1::{PcmFormat, Verdict};
use futures::future::BoxFuture;
use prost::Message;

use self::{memory::MemoryCache, redis::RedisCache, seal::Seal};
use crate::{
    config::CacheConfig,
    error::GatewayError,
    metrics::{GatewayMetrics, LookupLabels, LookupResult, OperationLabels},
};

/// The largest value that is stored or read, in bytes: the segments of 12 hours that change genre all the time.
const MAX_VALUE_BYTES: usize = 2 * 1024 * 1024;

/// What a verdict depends on, hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey([u8; 32]);

/// What a verdict depends on beside the audio and the model.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms<'a> {
    /// How the audio is read, if it does not say so itself.
    pub(crate) pcm: Option<&'a PcmFormat>,
    /// Whose verdict it is, if others must not have it: that it is known tells that they have this track.
    pub(crate) tenant: Option<&'a str>,
    /// Whether it has an embedding.
    pub(crate) embedding: bool,
}

impl CacheKey {
    /// The key of the verdict over the audio with this `digest`.
    pub(crate) fn new(digest: &blake3::Hash, model_version: &str, feature_id: &str, terms: Terms<'_>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("chorale.v1 verdict cache key");
        hasher.update(digest.as_bytes());
        let pcm = terms.pcm.map(PcmFormat::encode_to_vec);
        let parts = [
            Some(model_version.as_bytes()),
            Some(feature_id.as_bytes()),
            pcm.as_deref(),
            terms.tenant.map(str::as_bytes),
        ];
        let embedding = terms.embedding.then_some(Some(b"embedding".as_slice()));
        for part in parts.into_iter().chain(embedding) {
            // Lengths first, so that no two different lists of parts run together into the same bytes.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hasher.update(&length.to_le_bytes()).update(part.unwrap_or_default());
        }
        Self(hasher.finalize().into())
    }

    #[cfg(test)]
    pub(crate) const fn of_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "chorale:verdict:{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What a backend could not do.
#[derive(Debug, thiserror::Error)]
enum BackendError {
    #[error(transparent)]
    Redis(#[from] ::redis::RedisError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("not asked, as it did not answer just now")]
    Open,
}

/// Where values are kept. An operation ends within a bounded time.
trait Backend: fmt::Debug + Send + Sync {
    /// Its name in metrics.
    fn name(&self) -> &'static str;

    /// The value of `key`, or its first `max_bytes + 1` bytes if it is longer than `max_bytes`.
    fn get(&self, key: CacheKey, max_bytes: usize) -> BoxFuture<'_, Result<Option<Bytes>, BackendError>>;

    /// Keeps `value` for the backend's time to live, or as long as there is room.
    fn put(&self, key: CacheKey, value: Bytes) -> BoxFuture<'_, Result<(), BackendError>>;
}

/// What a stored verdict must say to be the answer to a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) digest: &'a blake3::Hash,
    pub(crate) model_version: &'a str,
    pub(crate) feature_id: &'a str,
    pub(crate) labels: &'a [String],
    /// Whether it has an embedding.
    pub(crate) embedding: bool,
}

/// The result cache. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct VerdictCache {
    /// None if the cache is switched off.
    backend: Option<Arc<dyn Backend>>,
    seal: Seal,
    metrics: GatewayMetrics,
}

impl VerdictCache {
    /// Sets the backend up that `config` names. Needs a runtime, but not that Redis is there.
    ///
    /// # Errors
    /// If the client for Redis cannot be made, or the secret cannot be read.
    pub(crate) fn new(config: &CacheConfig, metrics: GatewayMetrics) -> Result<Self, GatewayError> {
        let backend: Option<Arc<dyn Backend>> = match &config.url {
            _ if !config.enabled => None,
            None => Some(Arc::new(MemoryCache::new(config.memory_size.as_u64(), config.ttl))),
            Some(url) => Some(Arc::new(RedisCache::new(url, config, metrics.cache_breaker_open.clone())?)),
        };
        // What has not happened yet is 0: see `GatewayMetrics::register`.
        for (backend, result) in
            backend.iter().flat_map(|backend| LookupResult::ALL.map(|result| (backend.name(), result)))
        {
            drop(metrics.cache_lookups.get_or_create(&LookupLabels { backend, result }));
        }
        let seal = config.secret_file.as_deref().map_or(Ok(Seal::None), Seal::from_file)?;
        Ok(Self { backend, seal, metrics })
    }

    /// The verdict of `key`, if there is one and it is what `expected` says.
    pub(crate) async fn get(&self, key: CacheKey, expected: Expected<'_>) -> Option<Verdict> {
        let backend = self.backend.as_deref()?;
        let (result, verdict) = match self.timed(backend, "get", backend.get(key, MAX_VALUE_BYTES)).await {
            Ok(None) => (LookupResult::miss, None),
            Ok(Some(value)) => match self.decode(key, &value, expected) {
                Some(verdict) => (LookupResult::hit, Some(verdict)),
                None => {
                    tracing::warn!(backend = backend.name(), %key, bytes = value.len(), "cached value not usable");
                    (LookupResult::corrupt, None)
                }
            },
            Err(BackendError::Timeout(_)) => (LookupResult::timeout, None),
            Err(BackendError::Open) => (LookupResult::not_asked, None),
            Err(BackendError::Redis(_)) => (LookupResult::error, None),
        };
        self.metrics.cache_lookups.get_or_create(&LookupLabels { backend: backend.name(), result }).inc();
        verdict
    }

    /// Keeps `verdict`, which must hold all scores. Failing is not an error.
    pub(crate) async fn put(&self, key: CacheKey, verdict: &Verdict) {
        let Some(backend) = self.backend.as_deref() else { return };
        let value = self.encode(key, verdict);
        if value.len() > MAX_VALUE_BYTES {
            return;
        }
        if self.timed(backend, "put", backend.put(key, value)).await.is_err() {
            self.metrics.cache_failed_writes.inc();
        }
    }

    /// What is kept of `verdict`.
    pub(crate) fn encode(&self, key: CacheKey, verdict: &Verdict) -> Bytes {
        self.seal.wrap(key, &verdict.encode_to_vec())
    }

    /// The verdict that `value` holds, if it is what `expected` says.
    pub(crate) fn decode(&self, key: CacheKey, value: &[u8], expected: Expected<'_>) -> Option<Verdict> {
        if value.len() > MAX_VALUE_BYTES {
            return None;
        }
        Verdict::decode(self.seal.unwrap(key, value)?).ok().filter(|verdict| fits(verdict, expected))
    }

    async fn timed<T>(
        &self,
        backend: &dyn Backend,
        operation: &'static str,
        work: BoxFuture<'_, Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let began = Instant::now();
        let result = work.await;
        let labels = OperationLabels { backend: backend.name(), operation };
        self.metrics.cache_seconds.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
        if let Err(error) = &result {
            tracing::debug!(backend = backend.name(), operation, %error, "cache not usable");
        }
        result
    }
}

/// Whether `verdict` has the embedding of what was heard, which is none where that was nothing but silence.
pub(crate) fn has_embedding(verdict: &Verdict) -> bool {
    let silent = verdict.chunk_count == verdict.silent_chunk_count;
    if silent { verdict.embedding.is_empty() } else { is_track_embedding(&verdict.embedding) }
}

/// Whether this gateway could have given `verdict`.
fn fits(verdict: &Verdict, expected: Expected<'_>) -> bool {
    let is_label = |genre: &String| expected.labels.contains(genre);
    let is_share = |value: f64| (0.0..=1.0).contains(&value);
    let is_time = |seconds: f64| seconds.is_finite() && seconds >= 0.0;
    let about_this_audio = verdict.blake3_digest == expected.digest.as_bytes().as_slice()
        && verdict.model_version == expected.model_version
        && verdict.feature_id == expected.feature_id;
    // Nothing but silence has no scores, what is like no label has all of them.
    let unknown = verdict.genre == UNKNOWN;
    let scores_fit = (verdict.scores.len() == expected.labels.len() || (unknown && verdict.scores.is_empty()))
        && verdict.scores.first().is_none_or(|best| unknown || best.genre == verdict.genre)
        && verdict
            .scores
            .iter()
            .all(|score| is_label(&score.genre) && is_share(score.probability) && is_share(score.dispersion));
    let segments_fit = verdict.segments.iter().all(|segment| {
        (is_label(&segment.genre) || segment.genre == UNKNOWN)
            && is_share(segment.confidence)
            && is_time(segment.start_seconds)
            && is_time(segment.end_seconds)
    });
    let embedding_fits = if expected.embedding { has_embedding(verdict) } else { verdict.embedding.is_empty() };
    about_this_audio
        && embedding_fits
        && scores_fit
        && segments_fit
        && !verdict.cached
        && verdict.chunk_count > 0
        && is_share(verdict.confidence)
        && is_time(verdict.duration_seconds)
}

#[cfg(test)]
mod tests {
    use chorale_model::embedding::MAX_EMBEDDING;
    use chorale_proto::v1::{GenreScore, SampleFormat, Segment};
    use prometheus_client::registry::Registry;

    use super::*;

    fn labels() -> Vec<String> {
        ["jazz", "rock"].map(str::to_owned).to_vec()
    }

    fn verdict(digest: &blake3::Hash) -> Verdict {
        let score =
            |genre: &str, probability| GenreScore { genre: genre.to_owned(), probability, ..GenreScore::default() };
        Verdict {
            genre: "rock".to_owned(),
            confidence: 0.75,
            scores: vec![score("rock", 0.75), score("jazz", 0.25)],
            segments: vec![Segment { genre: "rock".to_owned(), end_seconds: 4.0, ..Segment::default() }],
            chunk_count: 1,
            model_version: "v1".to_owned(),
            feature_id: "f1".to_owned(),
            blake3_digest: digest.as_bytes().to_vec().into(),
            ..Verdict::default()
        }
    }

    fn expected<'a>(digest: &'a blake3::Hash, labels: &'a [String]) -> Expected<'a> {
        Expected { digest, model_version: "v1", feature_id: "f1", labels, embedding: false }
    }

    fn cache_over(memory: &Arc<MemoryCache>) -> VerdictCache {
        let metrics = GatewayMetrics::register(&mut Registry::default());
        VerdictCache { backend: Some(Arc::clone(memory) as Arc<dyn Backend>), seal: Seal::None, metrics }
    }

    fn value_of(key: CacheKey, verdict: &Verdict) -> Vec<u8> {
        Seal::None.wrap(key, &verdict.encode_to_vec()).to_vec()
    }

    #[test]
    fn everything_that_changes_the_answer_changes_the_key() {
        let (one, other) = (blake3::hash(b"one"), blake3::hash(b"other"));
        let pcm = |channels| PcmFormat { sample_format: SampleFormat::S16le.into(), sample_rate: 8_000, channels };
        let keys = [
            CacheKey::new(&one, "v1", "f1", Terms::default()),
            CacheKey::new(&other, "v1", "f1", Terms::default()),
            CacheKey::new(&one, "v2", "f1", Terms::default()),
            CacheKey::new(&one, "v1f", "1", Terms::default()),
            CacheKey::new(&one, "v1", "f1", Terms { pcm: Some(&pcm(1)), ..Terms::default() }),
            CacheKey::new(&one, "v1", "f1", Terms { pcm: Some(&pcm(2)), ..Terms::default() }),
            CacheKey::new(&one, "v1", "f1", Terms { tenant: Some("studio"), ..Terms::default() }),
            CacheKey::new(&one, "v1", "f1", Terms { tenant: Some(""), ..Terms::default() }),
            CacheKey::new(&one, "v1", "f1", Terms { embedding: true, ..Terms::default() }),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], CacheKey::new(&one, "v1", "f1", Terms::default()));
    }

    #[tokio::test]
    async fn a_corrupt_value_is_a_miss() {
        let digest = blake3::hash(b"audio");
        let labels = labels();
        let expected = expected(&digest, &labels);
        let good = verdict(&digest);
        let memory = Arc::new(MemoryCache::new(1 << 20, Duration::from_secs(60)));
        let cache = cache_over(&memory);
        let key = CacheKey::new(&digest, "v1", "f1", Terms::default());

        assert_eq!(cache.get(key, expected).await, None);
        cache.put(key, &good).await;
        assert_eq!(cache.get(key, expected).await, Some(good.clone()));
        let unknown = Verdict { genre: UNKNOWN.to_owned(), ..good.clone() };
        cache.put(key, &unknown).await;
        assert_eq!(cache.get(key, expected).await, Some(unknown));

        let changed = |change: fn(&mut Verdict)| {
            let mut verdict = good.clone();
            change(&mut verdict);
            value_of(key, &verdict)
        };
        let truncated = value_of(key, &good).split_last().unwrap().1.to_vec();
        let corrupt = [
            Vec::new(),
            vec![1],
            vec![9; 40],
            truncated,
            vec![1; MAX_VALUE_BYTES + 1],
            changed(|verdict| verdict.blake3_digest = vec![1; 32].into()),
            changed(|verdict| verdict.model_version = "v2".to_owned()),
            changed(|verdict| verdict.genre = "polka".to_owned()),
            changed(|verdict| verdict.confidence = f64::NAN),
            changed(|verdict| verdict.scores[0].probability = 2.0),
            changed(|verdict| verdict.scores.truncate(1)),
            changed(|verdict| verdict.segments[0].genre = "polka".to_owned()),
            changed(|verdict| verdict.segments[0].end_seconds = f64::INFINITY),
            changed(|verdict| verdict.cached = true),
            changed(|verdict| verdict.embedding = vec![1.0]),
        ];
        for value in corrupt {
            memory.put(key, value.clone().into()).await.unwrap();
            assert_eq!(cache.get(key, expected).await, None, "{value:?}");
        }
        let labels = LookupLabels { backend: "memory", result: LookupResult::corrupt };
        assert_eq!(cache.metrics.cache_lookups.get_or_create(&labels).get(), 15);
    }

    #[tokio::test]
    async fn an_embedding_that_no_track_has_is_a_miss() {
        let (digest, labels) = (blake3::hash(b"audio"), labels());
        let expected = Expected { embedding: true, ..expected(&digest, &labels) };
        let memory = Arc::new(MemoryCache::new(1 << 20, Duration::from_secs(60)));
        let cache = cache_over(&memory);
        let key = CacheKey::new(&digest, "v1", "f1", Terms { embedding: true, ..Terms::default() });
        let with = |embedding: &[f32]| Verdict { embedding: embedding.to_vec(), ..verdict(&digest) };
        let silent = Verdict { genre: UNKNOWN.to_owned(), silent_chunk_count: 1, scores: Vec::new(), ..with(&[]) };
        for good in [with(&[0.6, -0.8]), with(&[1.0]), silent] {
            memory.put(key, value_of(key, &good).into()).await.unwrap();
            assert_eq!(cache.get(key, expected).await, Some(good));
        }
        let long = [(MAX_EMBEDDING as f32 + 1.0).sqrt().recip(); MAX_EMBEDDING + 1];
        let poisoned: [&[f32]; 7] = [&[], &[0.0, 0.0], &[0.6, 0.9], &[f32::NAN, 1.0], &[f32::INFINITY], &[1e30], &long];
        for embedding in poisoned {
            memory.put(key, value_of(key, &with(embedding)).into()).await.unwrap();
            assert_eq!(cache.get(key, expected).await, None, "{:?}", &embedding[..embedding.len().min(3)]);
        }
    }

    #[tokio::test]
    async fn a_cache_that_is_switched_off_keeps_nothing() {
        let metrics = GatewayMetrics::register(&mut Registry::default());
        let cache = VerdictCache::new(&CacheConfig { enabled: false, ..CacheConfig::default() }, metrics).unwrap();
        let digest = blake3::hash(b"audio");
        let labels = labels();
        let key = CacheKey::new(&digest, "v1", "f1", Terms::default());
        cache.put(key, &verdict(&digest)).await;
        let expected = expected(&digest, &labels);
        assert_eq!(cache.get(key, expected).await, None);
    }
}
