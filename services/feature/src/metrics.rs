//! What the feature service measures, as `chorale_feature_*`.

use chorale_runtime::{
    failure::Reason,
    metrics::{Label, Metrics, RegistryExt, TracedLatencies, latency_buckets, traced_latencies},
};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};

/// Two labels of a metric.
type Labels = [(&'static str, &'static str); 2];
type Latencies<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of one feature service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FeatureMetrics {
    /// By `code`: `OK`, or the name of the failure's reason.
    pub(crate) calls: Family<Labels, Counter>,
    /// The same.
    pub(crate) call_seconds: TracedLatencies<Labels>,
    pub(crate) open_streams: Gauge,
    pub(crate) audio_bytes: Counter,
    pub(crate) audio_seconds: Counter<f64>,
    /// By `kind`: `voiced` or `silent`.
    pub(crate) chunks: Family<Label, Counter>,
    /// By `priority`: `interactive` or `bulk`.
    pub(crate) turn_wait_seconds: Latencies<Label>,
    pub(crate) turn_limit: Gauge,
    pub(crate) decode_seconds: Histogram,
    pub(crate) mel_seconds: Histogram,
    /// By `reason`: `unavailable`, `lost`, `overloaded` or `lacking`.
    pub(crate) dispatch_retries: Family<Label, Counter>,
    /// By `codec`, `unknown` if it failed before that was known, and by `kind`: the name of the failure's reason.
    pub(crate) decode_errors: Family<Labels, Counter>,
}

impl FeatureMetrics {
    /// Registers everything under `chorale_feature_`.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        fn latencies() -> Histogram {
            Histogram::new(latency_buckets())
        }
        let metrics = metrics.register("feature", |registry| Self {
            calls: registry.add("calls", "Calls that ended, by RPC and code", Family::default()),
            call_seconds: registry.add(
                "call_seconds",
                "Duration of calls, by RPC and code, in seconds",
                traced_latencies(),
            ),
            open_streams: registry.add("open_streams", "Analyses that run now", Gauge::default()),
            audio_bytes: registry.add("audio_bytes", "Bytes of audio received", Counter::default()),
            audio_seconds: registry.add("audio_seconds", "Seconds of audio decoded", Counter::default()),
            chunks: registry.add("chunks", "Chunks computed, voiced or silent", Family::default()),
            turn_wait_seconds: registry.add(
                "turn_wait_seconds",
                "Time that a track waited for a core, from its first bytes on, by priority, in seconds",
                Family::new_with_constructor(latencies),
            ),
            turn_limit: registry.add(
                "turn_limit_streams",
                "Tracks that may wait for a core now: fewer than are configured after long waits",
                Gauge::default(),
            ),
            decode_seconds: registry.add(
                "decode_seconds",
                "Time that a track took to decode, downmix and resample, in seconds",
                latencies(),
            ),
            mel_seconds: registry.add(
                "mel_seconds",
                "Time that the log-mel features of a track took, in seconds",
                latencies(),
            ),
            dispatch_retries: registry.add(
                "dispatch_retries",
                "Chunks that were sent again, because their replica was not available, lost them, was overloaded, or lacked \
                 the version of the model",
                Family::default(),
            ),
            decode_errors: registry.add(
                "decode_errors",
                "Audio that could not be used, by codec and by what was wrong",
                Family::default(),
            ),
        });
        // What has not happened yet is 0: a counter that is born at 1 hides its first step from `rate`.
        for code in std::iter::once("OK").chain(Reason::ALL.iter().map(|reason| reason.name())) {
            drop(metrics.calls.get_or_create(&[("rpc", "Analyze"), ("code", code)]));
        }
        // A decoder that panics says no codec. There is an alert for the first.
        drop(metrics.decode_errors.get_or_create(&[("codec", "unknown"), ("kind", Reason::Internal.name())]));
        for reason in ["unavailable", "lost", "overloaded", "lacking"] {
            drop(metrics.dispatch_retries.get_or_create(&[("reason", reason)]));
        }
        metrics
    }
}
