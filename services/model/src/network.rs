//! Any of the networks, on a device.

use candle_core::Device;
use rayon::prelude::*;

use crate::{
    Ensemble, ModelError, ModelFolder, Result, SeedCnn, batches::Batches, contract::CHUNK_CELLS, heard::Heard,
    kernels::Instructions, listener::Listener,
};

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
        network: Box<SeedCnn>,
        /// The way there.
        batches: Box<Batches>,
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
            (None, _) => Self::SeedCnn {
                network: Box::new(SeedCnn::new(weights, labels, device)?),
                batches: Box::new(Batches::new(device)?),
            },
        })
    }

    /// The sizes of all batches of up to `most` chunks, or the smallest and the largest where every number is one.
    pub(crate) fn batch_sizes(&self, most: usize) -> Vec<usize> {
        match self {
            Self::Listener(_) => vec![1, most],
            Self::Ensemble(ensemble) => ensemble.batches().sizes(most),
            Self::SeedCnn { batches, .. } => batches.sizes(most),
        }
    }

    /// What the network makes of each of these chunks of the feature contract, at least one: `[mel band][frame]`, one byte a
    /// cell.
    ///
    /// # Errors
    /// [`ModelError::ChunkSize`], or [`ModelError::Compute`] where the device fails.
    pub(crate) fn hear(&self, chunks: &[&[u8]], want_embeddings: bool) -> Result<Vec<Heard>> {
        if let Some((index, chunk)) = chunks.iter().enumerate().find(|(_, chunk)| chunk.len() != CHUNK_CELLS) {
            return Err(ModelError::ChunkSize { index, expected: CHUNK_CELLS, found: chunk.len() });
        }
        match self {
            Self::Listener(listener) => {
                // Cores share the chunks, and within a chunk what can be computed side by side.
                let listen = |chunk: &&[u8]| listener.listen(chunk, want_embeddings);
                Ok(rayon::scope(|_| chunks.par_iter().map(listen).collect()))
            }
            Self::Ensemble(ensemble) => ensemble.listen(chunks, want_embeddings),
            Self::SeedCnn { network, batches } => {
                let listen =
                    |chunks: &[&[u8]]| batches.listen(chunks, |decibels| network.listen(decibels, want_embeddings));
                if chunks.len() == 1 || !batches.on_cpu() {
                    return listen(chunks);
                }
                // A chunk's working set fits a core's cache: on the CPU, cores share the chunks, not the matrix products.
                let heard: Vec<Vec<Heard>> = chunks.par_chunks(1).map(listen).collect::<Result<_>>()?;
                Ok(heard.into_iter().flatten().collect())
            }
        }
    }
}
