//! A network on a device: a forward pass that gives each chunk its answer, or one error, whatever goes wrong.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use chorale_model::{Answer, Classifier, DeviceSpec, ModelError, contract::CHUNK_CELLS};

use crate::{InferenceError, metrics::InferenceMetrics};

/// What a network does. It is loaded and warmed up by one thread, and then used by the one that owns its device.
pub(crate) trait Forward: Send + Sync {
    /// The answer to every chunk of the batch, in order, with embeddings only if they are wanted.
    fn forward(&self, chunks: &[&[u8]], want_embeddings: bool) -> Result<Vec<Answer>, ModelError>;

    /// Which batches of up to `most` chunks are to be run before the first caller comes.
    fn batch_sizes(&self, most: usize) -> Vec<usize>;
}

impl Forward for Classifier {
    fn forward(&self, chunks: &[&[u8]], want_embeddings: bool) -> Result<Vec<Answer>, ModelError> {
        self.answers(chunks, want_embeddings)
    }

    fn batch_sizes(&self, most: usize) -> Vec<usize> {
        self.batch_sizes(most)
    }
}

/// A network on a device, and how many labels it has.
pub(crate) struct Network {
    device: DeviceSpec,
    labels: usize,
    network: Box<dyn Forward>,
}

impl Network {
    /// A network for so many labels that is on `device`.
    pub(crate) fn new(device: DeviceSpec, labels: usize, network: impl Forward + 'static) -> Self {
        Self { device, labels, network: Box::new(network) }
    }

    /// Where it is.
    pub(crate) fn device(&self) -> DeviceSpec {
        self.device
    }

    /// Runs a batch of every kind that there can be, so that no caller pays for what a device does once, and one that does not
    /// fit is noticed before it is used.
    pub(crate) fn warm_up(&self, max_batch: usize, metrics: &InferenceMetrics) -> Result<(), InferenceError> {
        let silence = vec![0; CHUNK_CELLS];
        for size in self.network.batch_sizes(max_batch) {
            self.forward(&vec![silence.as_slice(); size], true, metrics)?;
        }
        Ok(())
    }

    /// One forward pass over a batch: a finite probability of every label for every chunk, and embeddings if they are
    /// wanted.
    pub(crate) fn forward(
        &self,
        chunks: &[&[u8]],
        want_embeddings: bool,
        metrics: &InferenceMetrics,
    ) -> Result<Vec<Answer>, InferenceError> {
        let started = Instant::now();
        // The network is only read, so that a panic leaves nothing half done behind.
        let result = catch_unwind(AssertUnwindSafe(|| self.network.forward(chunks, want_embeddings)));
        let (device, chunk_count) = (self.device, chunks.len());
        let checked = match result {
            Ok(Ok(answers)) => self.check(chunk_count, answers),
            Ok(Err(source)) => Err(InferenceError::Forward { device, chunks: chunk_count, source }),
            Err(panic) => {
                Err(InferenceError::Panicked { device, chunks: chunk_count, message: panic_message(panic.as_ref()) })
            }
        };
        metrics.forward(device, started.elapsed(), checked.is_err());
        checked
    }

    fn check(&self, chunks: usize, answers: Vec<Answer>) -> Result<Vec<Answer>, InferenceError> {
        let labels = self.labels;
        let output = |found| InferenceError::Output { device: self.device, chunks, labels, found };
        if answers.len() != chunks {
            return Err(output(format!("answers for {}", answers.len())));
        }
        for values in answers.iter().map(|answer| &answer.probabilities) {
            if values.len() != labels {
                return Err(output(format!("{} values", values.len())));
            }
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(output(format!("the value {value}")));
            }
        }
        Ok(answers)
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
