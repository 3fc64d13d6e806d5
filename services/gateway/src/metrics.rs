//! What a gateway measures.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use chorale_model::labels::UNKNOWN;
use chorale_proto::v1::ChunkVote;
use chorale_runtime::{
    failure::{Failure, Reason},
    metrics::{RegistryExt, TracedLatencies, latency_buckets, traced_latencies},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// The RPC of a call that classifies, or what is one over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Rpc {
    ClassifyStream,
    Classify,
    HttpClassify,
    /// Takes as long as its audio is made.
    HttpLive,
}

impl Rpc {
    pub(crate) const ALL: [Self; 4] = [Self::ClassifyStream, Self::Classify, Self::HttpClassify, Self::HttpLive];

    /// `package.Service/Method`, or method and path.
    pub(crate) const fn full_name(self) -> &'static str {
        match self {
            Self::ClassifyStream => "chorale.v1.ClassifierService/ClassifyStream",
            Self::Classify => "chorale.v1.ClassifierService/Classify",
            Self::HttpClassify => "POST /v1/classify",
            Self::HttpLive => "GET /v1/classify/live",
        }
    }
}

/// How a cache lookup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are label values")]
pub(crate) enum LookupResult {
    hit,
    miss,
    /// The value was there, but not one that this gateway could have written.
    corrupt,
    timeout,
    /// The backend did not answer just before.
    not_asked,
    error,
}

impl LookupResult {
    pub(crate) const ALL: [Self; 6] =
        [Self::hit, Self::miss, Self::corrupt, Self::timeout, Self::not_asked, Self::error];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CallLabels {
    pub(crate) rpc: Rpc,
    /// `OK`, or a reason of `classifier.proto`.
    pub(crate) code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LookupLabels {
    pub(crate) backend: &'static str,
    pub(crate) result: LookupResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OperationLabels {
    pub(crate) backend: &'static str,
    pub(crate) operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct GenreLabels {
    pub(crate) genre: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LimitLabels {
    /// As in the metadata of the error, and mostly as in the configuration.
    pub(crate) limit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    version: String,
}

/// So many versions are counted at a time.
const MAX_VERSIONS: usize = 32;

/// Counts by version of a model. Versions come and go: that which came first makes room.
#[derive(Debug, Clone, Default)]
pub(crate) struct ByVersion {
    counters: Family<VersionLabels, Counter>,
    versions: Arc<Mutex<VecDeque<String>>>,
}

impl ByVersion {
    /// Counts one more of `version`.
    pub(crate) fn count(&self, version: &str) {
        let labels = |version: &str| VersionLabels { version: version.to_owned() };
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if !versions.iter().any(|known| known == version) {
            versions.push_back(version.to_owned());
            if versions.len() > MAX_VERSIONS
                && let Some(first) = versions.pop_front()
            {
                self.counters.remove(&labels(&first));
            }
        }
        self.counters.get_or_create(&labels(version)).inc();
    }
}

type Latencies<L> = Family<L, Histogram, fn() -> Histogram>;

fn latencies<L: Clone + std::hash::Hash + Eq>() -> Latencies<L> {
    Family::new_with_constructor(|| Histogram::new(latency_buckets()))
}

/// The limits that calls are known to fail at.
const LIMITS: [&str; 8] = [
    "idle_timeout",
    "max_audio_bytes",
    "max_concurrent_streams",
    "max_duration",
    "max_duration_seconds",
    "max_message_bytes",
    "max_streams_per_caller",
    "min_upload_rate",
];
/// What a silent chunk votes for, in metrics.
const SILENT: &str = "silent";

/// The metrics of one gateway, `chorale_gateway_*`.
#[derive(Debug, Clone)]
pub(crate) struct GatewayMetrics {
    pub(crate) calls: Family<CallLabels, Counter>,
    pub(crate) call_seconds: TracedLatencies<CallLabels>,
    pub(crate) open_streams: Gauge,
    pub(crate) audio_bytes: Counter,
    pub(crate) cache_lookups: Family<LookupLabels, Counter>,
    pub(crate) cache_failed_writes: Counter,
    pub(crate) cache_breaker_open: Gauge,
    pub(crate) cache_seconds: Latencies<OperationLabels>,
    pub(crate) flights_shared: Counter,
    pub(crate) chunk_votes: Family<GenreLabels, Counter>,
    pub(crate) verdicts: Family<GenreLabels, Counter>,
    pub(crate) model_verdicts: ByVersion,
    pub(crate) feature_retries: Counter,
    pub(crate) replays: Counter,
    pub(crate) early_verdicts: Counter,
    pub(crate) limits_hit: Family<LimitLabels, Counter>,
}

impl GatewayMetrics {
    /// Counts the limit that a call failed at, if that is why it failed.
    pub(crate) fn count_limit(&self, failure: &Failure) {
        if let Some(limit) = failure.metadata.get("limit") {
            self.limits_hit.get_or_create(&LimitLabels { limit: limit.clone() }).inc();
        }
    }

    /// Chunks may vote for each of these genres from now on: none has yet is 0. What is born later is missing from averages of
    /// the days before, which drift is measured against.
    pub(crate) fn expect_votes<'a>(&self, genres: impl Iterator<Item = &'a str>) {
        for genre in genres.chain([SILENT, UNKNOWN]) {
            drop(self.chunk_votes.get_or_create(&GenreLabels { genre: genre.to_owned() }));
        }
    }

    /// Counts what a chunk votes for.
    pub(crate) fn count_vote(&self, vote: &ChunkVote) {
        let genre = if vote.silent { SILENT } else { &*vote.genre };
        self.chunk_votes.get_or_create(&GenreLabels { genre: genre.to_owned() }).inc();
    }

    /// Registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let model_verdicts = ByVersion::default();
        registry.register("model_verdicts", "Verdicts given, by version of the model", model_verdicts.counters.clone());
        let mut counter = |name, help| registry.add(name, help, Counter::default());
        let metrics = Self {
            audio_bytes: counter("audio_bytes", "Bytes of audio received"),
            cache_failed_writes: counter("cache_failed_writes", "Verdicts that the result cache did not take"),
            flights_shared: counter("flights_shared", "Calls answered by an equal call that ran at the same time"),
            feature_retries: counter("feature_retries", "Feature calls that another replica was asked for"),
            replays: counter(
                "replays",
                "Tracks that were sent again, as the feature replica that heard them went away",
            ),
            early_verdicts: counter(
                "early_verdicts",
                "Verdicts given before the end of the track, as the caller allowed",
            ),
            calls: registry.add("calls", "Calls that ended, by RPC and code", Family::default()),
            call_seconds: registry.add("call_seconds", "Duration of calls, by RPC and code", traced_latencies()),
            open_streams: registry.add("open_streams", "Calls that are being classified", Gauge::default()),
            cache_lookups: registry.add("cache_lookups", "Lookups in the result cache, by result", Family::default()),
            cache_breaker_open: registry.add(
                "cache_breaker_open",
                "1 while the result cache is not asked, as it did not answer",
                Gauge::default(),
            ),
            cache_seconds: registry.add("cache_seconds", "Duration of cache operations", latencies()),
            limits_hit: registry.add("limits_hit", "Calls that failed at a limit, by limit", Family::default()),
            chunk_votes: registry.add(
                "chunk_votes",
                "Chunks heard, by the genre that they vote for",
                Family::default(),
            ),
            verdicts: registry.add("verdicts", "Verdicts given, by genre", Family::default()),
            model_verdicts,
        };
        // What has not happened yet is 0: a counter that is born at 1 hides its first step from `rate`.
        for rpc in Rpc::ALL {
            for code in std::iter::once("OK").chain(Reason::ALL.iter().map(|reason| reason.name())) {
                drop(metrics.calls.get_or_create(&CallLabels { rpc, code }));
            }
        }
        for limit in LIMITS {
            drop(metrics.limits_hit.get_or_create(&LimitLabels { limit: limit.to_owned() }));
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_come_and_go_do_not_add_up() {
        let mut registry = Registry::default();
        let metrics = GatewayMetrics::register(&mut registry);
        for version in 0..=MAX_VERSIONS {
            metrics.model_verdicts.count(&format!("v{version}"));
            metrics.model_verdicts.count("v1");
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let series: Vec<_> = text.lines().filter(|line| line.starts_with("model_verdicts_total{")).collect();
        assert_eq!(series.len(), MAX_VERSIONS, "{text}");
        assert!(!text.contains("\"v0\"") && text.contains(&format!("version=\"v{MAX_VERSIONS}\"}} 1")), "{text}");
    }
}
