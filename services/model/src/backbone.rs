//! From mel chunks to pooled features: MusiCNN's front end, its layers in the middle, and the pooling over time.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{
    ModelError, POOLED_FEATURES, Result, Weights,
    architecture::{self, MID_CHANNELS, MID_LAYERS, SHORT_TIME},
    contract::CHUNK_CELLS,
    filter_bank::{Filter, FilterBank},
    front::{Front, FrontSteps, filters, unfold},
};

/// Chunks that go through a GPU at once. One of them takes about 5 MiB on the way.
const GPU_CHUNKS: usize = 64;

/// The frozen part of the network, on one device.
pub struct Backbone {
    front: Front,
    mid: [FilterBank; MID_LAYERS],
}

impl Backbone {
    /// Puts the backbone of `weights` onto `device`.
    ///
    /// # Errors
    /// Where a tensor is missing or has a wrong shape, or the device is out of memory.
    pub fn new(weights: &Weights, device: &Device) -> Result<Self> {
        let [first, second, third] =
            std::array::from_fn(|layer| FilterBank::new(&mid_filters(weights, layer)?, device));
        Ok(Self { front: Front::new(weights, FrontSteps::ALL, device)?, mid: [first?, second?, third?] })
    }

    /// The pooled features `[batch, POOLED_FEATURES]` of chunks of the feature contract, `[mel band][frame]`, one byte a
    /// cell. Features of a chunk do not depend on the other chunks of the batch.
    ///
    /// # Errors
    /// [`ModelError::ChunkSize`], or [`ModelError::Compute`] where the device fails.
    pub fn pooled(&self, chunks: &[&[u8]]) -> Result<Tensor> {
        if let Some((index, chunk)) = chunks.iter().enumerate().find(|(_, chunk)| chunk.len() != CHUNK_CELLS) {
            return Err(ModelError::ChunkSize { index, expected: CHUNK_CELLS, found: chunk.len() });
        }
        let device = self.front.device();
        // A chunk's working set fits a core's cache: on the CPU, cores share the chunks, not the matrix products.
        let pooled: Vec<Tensor> = match (device, chunks) {
            (_, []) => return Ok(Tensor::zeros((0, POOLED_FEATURES), candle_core::DType::F32, device)?),
            (Device::Cpu, [_]) => vec![self.forward(chunks)?],
            (Device::Cpu, _) => chunks.par_chunks(1).map(|chunk| self.forward(chunk)).collect::<Result<_>>()?,
            _ => chunks.chunks(GPU_CHUNKS).map(|chunks| self.forward(chunks)).collect::<Result<_>>()?,
        };
        Ok(Tensor::cat(&pooled, 0)?)
    }

    /// `[batch, POOLED_FEATURES]`
    fn forward(&self, chunks: &[&[u8]]) -> Result<Tensor> {
        let front = self.front.forward(&self.front.decibels(chunks)?)?;
        let channels = self.middle(front)?;
        let pooled = Tensor::stack(&[channels.max(2)?, channels.mean(2)?], 1)?;
        Ok(pooled.reshape((POOLED_FEATURES, chunks.len()))?.t()?.contiguous()?)
    }

    /// The front end's channels and those of every layer after it, `[POOLED_FEATURES / 2, batch, frames]`.
    fn middle(&self, front: Tensor) -> Result<Tensor> {
        let (_, batch, frames) = front.dims3()?;
        let mut channels = vec![front];
        for (layer, bank) in self.mid.iter().enumerate() {
            let Some(previous) = channels.last() else { break };
            let rows = SHORT_TIME.taps * architecture::mid_inputs(layer);
            let unfolded = unfold(previous, SHORT_TIME, 1)?.reshape((rows, batch * frames))?;
            let response = bank.respond(&unfolded)?.reshape((MID_CHANNELS, batch, frames))?;
            let residual = if layer == 0 { response } else { (response + previous)? };
            channels.push(residual);
        }
        Ok(Tensor::cat(&channels, 0)?)
    }
}

/// The filters of one layer in the middle: rows are a tap and a channel.
pub(crate) fn mid_filters(weights: &Weights, layer: usize) -> Result<Vec<Filter>> {
    filters(weights, &format!("mid.{layer}"), [SHORT_TIME.taps, architecture::mid_inputs(layer)], <[f32]>::to_vec)
}
