//! What the inference role measures: `chorale_inference_*`.

use std::{sync::atomic::AtomicU64, time::Duration};

use chorale_model::DeviceSpec;
use chorale_runtime::{
    failure::Reason,
    metrics::{Label, RegistryExt, TracedHistogram, TracedLatencies, exemplar},
    overload::Urgency,
    trace::Context,
};
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{InferenceConfig, queue::Release};

/// The `result` of a chunk that was classified; every other one is a [`Reason`].
const CLASSIFIED: &str = "OK";

type ByDevice = [(&'static str, String); 1];
type ByModel = [(&'static str, String); 2];

/// What became of a serving set that was to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// It is served.
    Switched,
    /// It says what is served already.
    Unchanged,
    /// The one before serves on.
    Refused,
}

impl Load {
    const ALL: [Self; 3] = [Self::Switched, Self::Unchanged, Self::Refused];

    const fn name(self) -> &'static str {
        match self {
            Self::Switched => "switched",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// The metrics of the role.
#[derive(Debug)]
pub(crate) struct InferenceMetrics {
    chunks: Family<Label, Counter>,
    chunk_seconds: TracedLatencies<Label>,
    batches: Family<Label, Counter>,
    batch_size: Histogram,
    queue_depth: Gauge,
    queue_limit: Gauge,
    queue_wait: TracedLatencies<Label>,
    forward: Histogram,
    forward_failures: Family<ByDevice, Counter>,
    device_busy: Family<ByDevice, Counter<f64, AtomicU64>>,
    devices_serving: Gauge,
    device_memory: Family<ByDevice, Gauge>,
    model_info: Family<ByModel, Gauge>,
    model_loads: Family<Label, Counter>,
}

impl InferenceMetrics {
    /// Registers every metric.
    pub(crate) fn new(registry: &mut Registry, config: &InferenceConfig) -> Self {
        let metrics = Self {
            chunks: registry.add(
                "chunks",
                "Chunks received, by OK or the reason why there is no answer",
                Family::default(),
            ),
            chunk_seconds: registry.add(
                "chunk_seconds",
                "From a chunk's receipt to its answer, by OK or the reason why there is none",
                Family::new_with_constructor(|| TracedHistogram::new(device_buckets())),
            ),
            batches: registry.add(
                "batches",
                "Batches sent to a device, by why they were not held back any longer",
                Family::default(),
            ),
            // 1 to 1024 chunks, the largest batch that can be configured.
            batch_size: registry.add(
                "batch_size_chunks",
                "Chunks in a batch",
                Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            ),
            queue_depth: registry.add("queue_depth_chunks", "Chunks that wait for a device", Gauge::default()),
            queue_limit: registry.add(
                "queue_limit_chunks",
                "Chunks that may wait for a device now: fewer than are configured after long waits",
                Gauge::default(),
            ),
            queue_wait: registry.add(
                "queue_wait_seconds",
                "From a chunk's receipt to the start of its batch's forward pass, by priority",
                Family::new_with_constructor(|| TracedHistogram::new(device_buckets())),
            ),
            forward: registry.add(
                "forward_seconds",
                "One forward pass over a batch, both copies between host and device included",
                Histogram::new(device_buckets()),
            ),
            forward_failures: registry.add(
                "forward_failures",
                "Forward passes that failed, warm-up and probes included",
                Family::default(),
            ),
            device_busy: registry.add(
                "device_busy_seconds",
                "Time that a device spent in forward passes",
                Family::default(),
            ),
            device_memory: registry.add(
                "device_memory_bytes",
                "Memory of a GPU that is in use, by anybody",
                Family::default(),
            ),
            devices_serving: registry.add("serving_devices", "Devices that take batches", Gauge::default()),
            model_info: registry.add(
                "model_info",
                "The models that are loaded, by their weight; 0 for one that answers only who names it",
                Family::default(),
            ),
            model_loads: registry.add(
                "model_loads",
                "Serving sets that were found in the models folder, by what became of them",
                Family::default(),
            ),
        };
        // Every label value that can come is there from the start, at zero.
        for result in Reason::ALL.iter().map(|reason| reason.name()).chain([CLASSIFIED]) {
            drop(metrics.chunks.get_or_create(&[("result", result)]));
        }
        drop(metrics.chunk_seconds.get_or_create(&[("result", CLASSIFIED)]));
        for release in Release::ALL {
            drop(metrics.batches.get_or_create(&[("release", release.name())]));
        }
        for load in Load::ALL {
            drop(metrics.model_loads.get_or_create(&[("result", load.name())]));
        }
        for urgency in Urgency::ALL {
            drop(metrics.queue_wait.get_or_create(&[("priority", urgency.name())]));
        }
        for &device in &config.devices {
            drop(metrics.forward_failures.get_or_create(&by_device(device)));
            drop(metrics.device_busy.get_or_create(&by_device(device)));
        }
        metrics
    }

    /// One chunk of `trace` got its answer `after` its receipt, or never will.
    pub(crate) fn chunk(&self, failure: Option<Reason>, after: Duration, trace: &Context) {
        let labels = [("result", failure.map_or(CLASSIFIED, Reason::name))];
        self.chunks.get_or_create(&labels).inc();
        self.chunk_seconds.get_or_create(&labels).observe(after.as_secs_f64(), exemplar(trace), None);
    }

    /// A batch left the queue.
    pub(crate) fn batch(&self, release: Release, chunks: usize) {
        self.batches.get_or_create(&[("release", release.name())]).inc();
        self.batch_size.observe(chunks as f64);
    }

    /// The number of chunks that wait now.
    pub(crate) fn queue_depth(&self, chunks: usize) {
        self.queue_depth.set(i64::try_from(chunks).unwrap_or(i64::MAX));
    }

    /// The number of chunks that may wait now.
    pub(crate) fn queue_limit(&self, chunks: usize) {
        self.queue_limit.set(i64::try_from(chunks).unwrap_or(i64::MAX));
    }

    /// The wait of a chunk of `trace` ended, as its batch starts.
    pub(crate) fn queue_wait(&self, urgency: Urgency, wait: Duration, trace: &Context) {
        let labels = [("priority", urgency.name())];
        self.queue_wait.get_or_create(&labels).observe(wait.as_secs_f64(), exemplar(trace), None);
    }

    /// A forward pass ended, well or not.
    pub(crate) fn forward(&self, device: DeviceSpec, elapsed: Duration, failed: bool) {
        self.forward.observe(elapsed.as_secs_f64());
        self.device_busy.get_or_create(&by_device(device)).inc_by(elapsed.as_secs_f64());
        if failed {
            self.forward_failures.get_or_create(&by_device(device)).inc();
        }
    }

    /// So many bytes of the device's own memory are in use.
    pub(crate) fn device_memory(&self, device: DeviceSpec, bytes: u64) {
        self.device_memory.get_or_create(&by_device(device)).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The number of devices that take batches now.
    pub(crate) fn devices_serving(&self, devices: usize) {
        self.devices_serving.set(i64::try_from(devices).unwrap_or(i64::MAX));
    }

    /// A model is loaded, and has this weight from now on.
    pub(crate) fn model(&self, name: &str, version: &str, weight: u32) {
        self.model_info.get_or_create(&by_model(name, version)).set(weight.into());
    }

    /// A model is not there any more under this name.
    pub(crate) fn model_gone(&self, name: &str, version: &str) {
        self.model_info.remove(&by_model(name, version));
    }

    /// A serving set was found, and this became of it.
    pub(crate) fn model_load(&self, load: Load) {
        self.model_loads.get_or_create(&[("result", load.name())]).inc();
    }
}

fn by_model(name: &str, version: &str) -> ByModel {
    [("name", name.to_owned()), ("version", version.to_owned())]
}

fn by_device(device: DeviceSpec) -> ByDevice {
    [("device", device.to_string())]
}

/// Upper bounds from 0.1 ms to 13 s: a GPU's batch takes a fraction of a millisecond, a CPU's full one a second.
fn device_buckets() -> impl Iterator<Item = f64> {
    exponential_buckets(0.000_1, 2.0, 18)
}

#[cfg(test)]
mod tests {
    use chorale_runtime::metrics::Metrics;

    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_counts() {
        let process = Metrics::new();
        let metrics =
            process.register("inference", |registry| InferenceMetrics::new(registry, &InferenceConfig::default()));
        let text = process.encode();
        assert!(text.contains("chorale_inference_chunks_total{result=\"OVERLOADED\"} 0"), "{text}");

        metrics.chunk(None, Duration::from_millis(3), &Context::default());
        metrics.chunk(Some(Reason::Overloaded), Duration::ZERO, &Context::default());
        metrics.batch(Release::Full, 32);
        metrics.queue_wait(Urgency::Bulk, Duration::from_millis(3), &Context::default());
        metrics.forward(DeviceSpec::Cpu, Duration::from_millis(1_500), true);
        metrics.queue_depth(7);
        metrics.queue_limit(9);
        metrics.devices_serving(1);
        metrics.model("one", "v1", 5);
        metrics.model("other", "v2", 1);
        metrics.model_gone("other", "v2");
        metrics.model_load(Load::Refused);
        let text = process.encode();
        for line in [
            "chorale_inference_chunks_total{result=\"OK\"} 1",
            "chorale_inference_chunks_total{result=\"OVERLOADED\"} 1",
            "chorale_inference_chunk_seconds_sum{result=\"OK\"} 0.003",
            "chorale_inference_batches_total{release=\"full\"} 1",
            "chorale_inference_batches_total{release=\"delay\"} 0",
            "chorale_inference_batch_size_chunks_sum 32.0",
            "chorale_inference_queue_limit_chunks 9",
            "chorale_inference_queue_wait_seconds_count{priority=\"bulk\"} 1",
            "chorale_inference_queue_wait_seconds_count{priority=\"interactive\"} 0",
            "chorale_inference_forward_seconds_sum 1.5",
            "chorale_inference_forward_failures_total{device=\"cpu\"} 1",
            "chorale_inference_device_busy_seconds_total{device=\"cpu\"} 1.5",
            "chorale_inference_queue_depth_chunks 7",
            "chorale_inference_serving_devices 1",
            "chorale_inference_model_info{name=\"one\",version=\"v1\"} 5",
            "chorale_inference_model_loads_total{result=\"refused\"} 1",
            "chorale_inference_model_loads_total{result=\"switched\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("v2"), "what is gone is not in\n{text}");
    }
}
