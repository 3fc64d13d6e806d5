//! What the unit tests share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chorale_model::{Answer as Said, DeviceSpec, ModelError, contract::CHUNK_CELLS};
use chorale_proto::v1::Model;
use chorale_runtime::overload::Urgency;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::{
    InferenceConfig,
    metrics::InferenceMetrics,
    models::{LoadedModel, Served},
    network::{Forward, Network},
    queue::BatchPolicy,
    waiting::{Answer, Reply, WaitingChunk},
};

pub(crate) const POLICY: BatchPolicy = BatchPolicy {
    max_batch: 4,
    max_queue_delay: Duration::from_millis(10),
    queue_capacity: 8,
    target_wait: Duration::from_secs(1),
};

/// Metrics that nobody reads.
pub(crate) fn metrics() -> Arc<InferenceMetrics> {
    Arc::new(InferenceMetrics::new(&mut Registry::default(), &InferenceConfig::default()))
}

/// Says nothing of any chunk.
struct Mute;

impl Forward for Mute {
    fn forward(&self, _: &[&[u8]], _: bool) -> Result<Vec<Said>, ModelError> {
        Ok(Vec::new())
    }

    fn batch_sizes(&self, most: usize) -> Vec<usize> {
        vec![most]
    }
}

/// A version of a model whose network is `network`, on the CPU.
pub(crate) fn served_with(version: &str, weight: u32, labels: usize, network: impl Forward + 'static) -> Served {
    served_on(DeviceSpec::Cpu, version, weight, labels, network)
}

/// The same on `device`.
pub(crate) fn served_on(
    device: DeviceSpec,
    version: &str,
    weight: u32,
    labels: usize,
    network: impl Forward + 'static,
) -> Served {
    let description = Model { name: format!("model {version}"), version: version.to_owned(), ..Model::default() };
    let networks = vec![Network::new(device, labels, network)];
    Served { description, weight, loaded: Arc::new(LoadedModel::new(version.to_owned(), networks)) }
}

/// A version of a model that is asked nothing.
pub(crate) fn served(version: &str, weight: u32) -> Served {
    served_with(version, weight, 0, Mute)
}

/// A caller without a stream: makes chunks for one model, and receives their answers.
pub(crate) struct Caller {
    sender: UnboundedSender<Answer>,
    answers: UnboundedReceiver<Answer>,
    metrics: Arc<InferenceMetrics>,
    model: Arc<LoadedModel>,
}

impl Caller {
    pub(crate) fn new() -> Self {
        Self::of(served("v1", 1).loaded)
    }

    /// One whose chunks are for `model`.
    pub(crate) fn of(model: Arc<LoadedModel>) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        Self { sender, answers, metrics: metrics(), model }
    }

    /// A chunk whose every cell is `tag`, received at `received`.
    pub(crate) fn chunk(&self, tag: u64, received: Instant, timeout: Option<Duration>) -> WaitingChunk {
        self.chunk_of(Urgency::Interactive, tag, received, timeout)
    }

    /// The same for which nobody waits.
    pub(crate) fn bulk(&self, tag: u64, received: Instant) -> WaitingChunk {
        self.chunk_of(Urgency::Bulk, tag, received, None)
    }

    fn chunk_of(&self, urgency: Urgency, tag: u64, received: Instant, timeout: Option<Duration>) -> WaitingChunk {
        let reply = Reply::new(tag, self.sender.clone(), Arc::clone(&self.metrics));
        let (mel, model) = (Bytes::from(vec![tag as u8; CHUNK_CELLS]), Arc::clone(&self.model));
        WaitingChunk::new(mel, model, urgency, received, timeout, reply)
    }

    /// The next answer that is there: its tag, and the name of the reason if it is a failure.
    pub(crate) fn answered(&mut self) -> Option<(u64, Option<&'static str>)> {
        self.answers.try_recv().ok().map(|answer| outcome(&answer))
    }

    /// Waits for the next answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.answers.recv().await.unwrap()
    }
}

/// The tag of an answer, and the name of the reason if it is a failure.
pub(crate) fn outcome(answer: &Answer) -> (u64, Option<&'static str>) {
    (answer.tag, answer.result.as_ref().err().map(|failure| failure.reason.name()))
}
