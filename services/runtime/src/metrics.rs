//! The process's metrics: one registry, and what every role measures.
//!
//! Each crate keeps its metrics in one file of this name and registers them here, as `chorale_<role>_<what>_<unit>`.

use std::{
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    metrics::{exemplar::HistogramWithExemplars, family::Family, info::Info},
    registry::{Metric, Registry},
};

use crate::trace;

/// The commit that was built, where the build says.
pub const REVISION: &str = match option_env!("CHORALE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The registry of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// A registry that holds `chorale_build_info`.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("chorale");
        registry.register(
            "build",
            "The running build",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("revision", REVISION)]),
        );
        Self { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Registers a role's metrics under `chorale_<role>_`.
    pub fn register<T>(&self, role: &'static str, register: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        register(registry.sub_registry_with_prefix(role))
    }

    /// Everything, as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing to a string fails only if a metric's own encoder does, and then what came before still stands.
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::error!(%error, "metrics were not encoded");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A histogram of latencies for every set of labels.
pub type TracedLatencies<L> = Family<L, TracedHistogram, fn() -> TracedHistogram>;
/// A histogram whose exemplars name a trace that somebody follows.
pub type TracedHistogram = HistogramWithExemplars<ExemplarLabels>;
/// The labels of an exemplar.
pub type ExemplarLabels = Vec<(String, String)>;

/// Such a histogram, empty.
#[must_use]
pub fn traced_latencies<L: Clone + Hash + Eq>() -> TracedLatencies<L> {
    Family::new_with_constructor(|| TracedHistogram::new(latency_buckets()))
}

/// The exemplar of what happened in `trace`, if somebody follows it.
#[must_use]
pub fn exemplar(trace: &trace::Context) -> Option<ExemplarLabels> {
    let trace_id = trace.is_sampled().then(|| trace.trace_id()).flatten();
    trace_id.map(|trace_id| vec![("trace_id".to_owned(), trace_id)])
}

/// One label of a metric: its name and its value, from a closed set.
pub type Label = [(&'static str, &'static str); 1];

/// Creates a metric where it is registered, so that its name and its help stand in one place.
pub trait RegistryExt {
    /// Registers `metric`, without a suffix that OpenMetrics adds (`_total` for a counter), and hands it back.
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M;
}

impl RegistryExt for Registry {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.register(name, help, metric.clone());
        metric
    }
}

/// Upper bounds of latency histograms, in seconds: 1 ms to about two minutes.
pub fn latency_buckets() -> impl Iterator<Item = f64> {
    prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 18)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn what_a_role_adds_is_counted_under_its_name() {
        let metrics = Metrics::new();
        let calls: Counter = metrics.register("gateway", |registry| registry.add("calls", "Calls", Counter::default()));
        calls.inc();
        let text = metrics.encode();
        assert!(text.contains("chorale_gateway_calls_total 1\n"), "{text}");
        assert!(text.contains("chorale_build_info{version="), "{text}");
    }
}
