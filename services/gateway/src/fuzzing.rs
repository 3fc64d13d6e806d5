//! A way in for fuzz targets, which are another crate. It is no feature: the binary would then be built twice, with and
//! without.

use std::path::Path;

use bytes::Bytes;
use chorale_proto::v1::Verdict;
use prometheus_client::registry::Registry;

use crate::{
    cache::{CacheKey, Expected, Terms, VerdictCache},
    config::CacheConfig,
    metrics::GatewayMetrics,
};

const MODEL_VERSION: &str = "v1";
const FEATURE_ID: &str = "f1";

/// The result cache as it is between a gateway and its backend: values in, verdicts out, all of them about the audio `audio`,
/// and either with embeddings or without.
#[derive(Debug)]
pub struct CachedVerdicts {
    cache: VerdictCache,
    digest: blake3::Hash,
    labels: Vec<String>,
    embedding: bool,
}

impl CachedVerdicts {
    /// Of a gateway whose model has `labels`, for calls that want no embedding.
    ///
    /// # Panics
    /// If the secret cannot be read.
    #[must_use]
    #[allow(clippy::expect_used, reason = "no input reaches it")]
    pub fn new(secret_file: Option<&Path>, labels: &[&str]) -> Self {
        let config = CacheConfig { secret_file: secret_file.map(Path::to_owned), ..CacheConfig::default() };
        let metrics = GatewayMetrics::register(&mut Registry::default());
        let cache = VerdictCache::new(&config, metrics).expect("a secret");
        let labels = labels.iter().map(ToString::to_string).collect();
        Self { cache, digest: blake3::hash(b"audio"), labels, embedding: false }
    }

    /// The same for calls that want an embedding.
    #[must_use]
    pub fn with_embeddings(self) -> Self {
        Self { embedding: true, ..self }
    }

    /// The verdict in `value`, if it is one that this gateway could have written.
    #[must_use]
    pub fn read(&self, value: &[u8]) -> Option<Verdict> {
        let expected = Expected {
            digest: &self.digest,
            model_version: MODEL_VERSION,
            feature_id: FEATURE_ID,
            labels: &self.labels,
            embedding: self.embedding,
        };
        self.cache.decode(self.key(), value, expected)
    }

    /// The value of `verdict`.
    #[must_use]
    pub fn write(&self, verdict: &Verdict) -> Bytes {
        self.cache.encode(self.key(), verdict)
    }

    /// `verdict`, about the audio and the model that this is about.
    #[must_use]
    pub fn about_this(&self, verdict: Verdict) -> Verdict {
        let blake3_digest = self.digest.as_bytes().to_vec().into();
        Verdict { blake3_digest, model_version: MODEL_VERSION.to_owned(), feature_id: FEATURE_ID.to_owned(), ..verdict }
    }

    fn key(&self) -> CacheKey {
        let terms = Terms { embedding: self.embedding, ..Terms::default() };
        CacheKey::new(&self.digest, MODEL_VERSION, FEATURE_ID, terms)
    }
}
