//! What the feature service measures, as `chorale_feature_*`.

use chorale_runtime::metrics::{Metrics, latency_buckets};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StreamEnd {
    /// `OK`, or the name of the failure's reason.
    pub(crate) code: &'static str,
}

/// What a chunk held.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ChunkKind {
    /// `voiced` or `silent`.
    pub(crate) kind: &'static str,
}

/// Why a chunk was sent again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RetryReason {
    /// `unavailable`, `lost` or `overloaded`.
    pub(crate) reason: &'static str,
}

/// What was wrong with audio.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DecodeErrorKind {
    /// The name of the failure's reason.
    pub(crate) kind: &'static str,
}

/// The metrics of one feature service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FeatureMetrics {
    pub(crate) streams: Family<StreamEnd, Counter>,
    pub(crate) open_streams: Gauge,
    pub(crate) audio_bytes: Counter,
    pub(crate) audio_seconds: Counter<f64>,
    pub(crate) chunks: Family<ChunkKind, Counter>,
    pub(crate) decode_seconds: Histogram,
    pub(crate) mel_seconds: Histogram,
    pub(crate) dispatch_retries: Family<RetryReason, Counter>,
    pub(crate) decode_errors: Family<DecodeErrorKind, Counter>,
}

impl FeatureMetrics {
    /// Registers everything under `chorale_feature_`.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let created = Self {
            streams: Family::default(),
            open_streams: Gauge::default(),
            audio_bytes: Counter::default(),
            audio_seconds: Counter::default(),
            chunks: Family::default(),
            decode_seconds: Histogram::new(latency_buckets()),
            mel_seconds: Histogram::new(latency_buckets()),
            dispatch_retries: Family::default(),
            decode_errors: Family::default(),
        };
        // OpenMetrics adds `_total` to the name of a counter.
        metrics.register("feature", |registry| {
            registry.register("streams", "Analyses that ended, by how", created.streams.clone());
            registry.register("open_streams", "Analyses that run now", created.open_streams.clone());
            registry.register("audio_bytes", "Bytes of audio received", created.audio_bytes.clone());
            registry.register("audio_seconds", "Seconds of audio decoded", created.audio_seconds.clone());
            registry.register("chunks", "Chunks computed, voiced or silent", created.chunks.clone());
            registry.register(
                "decode_seconds",
                "Time that a track took to decode, downmix and resample, in seconds",
                created.decode_seconds.clone(),
            );
            registry.register(
                "mel_seconds",
                "Time that the log-mel features of a track took, in seconds",
                created.mel_seconds.clone(),
            );
            registry.register(
                "dispatch_retries",
                "Chunks that were sent again, because their replica was not available, lost them, or was overloaded",
                created.dispatch_retries.clone(),
            );
            registry.register(
                "decode_errors",
                "Audio that could not be used, by what was wrong",
                created.decode_errors.clone(),
            );
        });
        created
    }
}
