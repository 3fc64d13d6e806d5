//! Any of the networks, on a device.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{
    Ensemble, ModelError, ModelFolder, Result, SeedCnn, contract::CHUNK_CELLS, kernels::Instructions,
    listener::Listener,
};

/// Chunks that go through a GPU at once: bounds memory.
const GPU_CHUNKS: usize = 64;

/// A network on a device, ready to listen.
pub(crate) enum Network {
    /// [`Architecture::Ensemble`](crate::Architecture::Ensemble) and [`Architecture::Small`](crate::Architecture::Small) on
    /// the CPU.
    Listener(Box<Listener>),
    /// The same elsewhere.
    Ensemble(Box<Ensemble>),
    /// [`Architecture::SeedCnn`](crate::Architecture::SeedCnn)
    SeedCnn {
        /// From chunks to logits.
        network: SeedCnn,
        /// Where it is.
        device: Device,
    },
}

impl Network {
    /// Puts the network of a model onto `device`.
    ///
    /// # Errors
    /// Where the device is out of memory.
    pub(crate) fn new(folder: &ModelFolder, device: &Device) -> Result<Self> {
        let (weights, labels) = (folder.weights(), folder.manifest().labels.len());
        Ok(match (folder.manifest().network()?.ensemble(), device) {
            (Some(shape), Device::Cpu) => {
                Self::Listener(Box::new(Listener::new(weights, shape, labels, Instructions::detect())?))
            }
            (Some(shape), _) => Self::Ensemble(Box::new(Ensemble::new(weights, shape, labels, device)?)),
            (None, _) => Self::SeedCnn { network: SeedCnn::new(weights, labels, device)?, device: device.clone() },
        })
    }

    /// The logits `[batch, labels]` of chunks of the feature contract, at least one: `[mel band][frame]`, one byte a cell. A
    /// network that can tell music from what is none has one more column, for that.
    ///
    /// # Errors
    /// [`ModelError::ChunkSize`], or [`ModelError::Compute`] where the device fails.
    pub(crate) fn logits(&self, chunks: &[&[u8]]) -> Result<Tensor> {
        if let Some((index, chunk)) = chunks.iter().enumerate().find(|(_, chunk)| chunk.len() != CHUNK_CELLS) {
            return Err(ModelError::ChunkSize { index, expected: CHUNK_CELLS, found: chunk.len() });
        }
        match self {
            Self::Listener(listener) => {
                // Cores share the chunks, and within a chunk what can be computed side by side.
                let logits: Vec<Vec<f32>> =
                    rayon::scope(|_| chunks.par_iter().map(|chunk| listener.listen(chunk)).collect());
                let columns = logits.first().map_or(0, Vec::len);
                Ok(Tensor::from_vec(logits.concat(), (chunks.len(), columns), &Device::Cpu)?)
            }
            Self::Ensemble(ensemble) => ensemble.listen(chunks),
            Self::SeedCnn { network, device } => {
                // A chunk's working set fits a core's cache: on the CPU, cores share the chunks, not the matrix products.
                let logits: Vec<Tensor> = match (device, chunks) {
                    (Device::Cpu, [_]) => vec![network.listen(chunks, device)?],
                    (Device::Cpu, _) => {
                        chunks.par_chunks(1).map(|chunk| network.listen(chunk, device)).collect::<Result<_>>()?
                    }
                    _ => {
                        chunks.chunks(GPU_CHUNKS).map(|chunks| network.listen(chunks, device)).collect::<Result<_>>()?
                    }
                };
                Ok(Tensor::cat(&logits, 0)?)
            }
        }
    }
}
