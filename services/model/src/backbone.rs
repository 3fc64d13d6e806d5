//! From mel chunks to pooled features: the adapter, MusiCNN's convolutions, and the pooling over time.
//!
//! Everything is a matrix product over rows that are a channel (and a tap), and columns that are a chunk and a frame.

use std::f64::consts::LN_10;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{
    ModelError, POOLED_FEATURES, Result, Weights,
    architecture::{
        self, BANDS, FRONT_CHANNELS, FrontPart, MID_CHANNELS, MID_LAYERS, SHORT_TIME, TEMPORAL, TIMBRAL, TimeKernel,
    },
    contract::{CHUNK_CELLS, CHUNK_FRAMES, MEL_BANDS, dequantize},
    filter_bank::{Filter, FilterBank},
};

/// Chunks that go through a GPU at once. One of them takes about 5 MiB on the way.
const GPU_CHUNKS: usize = 64;
/// Bands that are unfolded in time at once: as many as keep a chunk's taps in a core's cache. It divides [`BANDS`].
const TEMPORAL_BANDS: usize = 16;
/// Places of a timbral filter that one matrix product covers.
const TIMBRAL_SHIFTS: usize = 8;
/// MusiCNN hears `log10(1 + 10⁴ · power)`.
const INPUT_GAIN: f64 = 1e4;

/// The frozen part of the network, on one device.
pub struct Backbone {
    device: Device,
    /// `[BANDS, MEL_BANDS]`
    adapter_weight: Tensor,
    /// `[BANDS, 1]`, dB
    adapter_bias: Tensor,
    input_scale: f64,
    input_shift: f64,
    timbral: [FilterBank; TIMBRAL.len()],
    temporal: FilterBank,
    mid: [FilterBank; MID_LAYERS],
    cells: Vec<f32>,
}

impl Backbone {
    /// Puts the backbone of `weights` onto `device`.
    ///
    /// # Errors
    /// Where a tensor is missing or has a wrong shape, or the device is out of memory.
    pub fn new(weights: &Weights, device: &Device) -> Result<Self> {
        let adapter_weight = weights.get("adapter.weight", &[BANDS, MEL_BANDS])?.values();
        let adapter_bias = weights.get("adapter.bias", &[BANDS])?.values();
        let (input_scale, input_shift) = weights.normalization("input_norm", 1)?;
        let [low, high] = TIMBRAL
            .map(|part| FilterBank::sliding(&timbral_filters(weights, part)?, TIMBRAL_SHIFTS, part.time.taps, device));
        let [first, second, third] =
            std::array::from_fn(|layer| FilterBank::new(&mid_filters(weights, layer)?, device));
        Ok(Self {
            device: device.clone(),
            adapter_weight: Tensor::from_slice(adapter_weight, (BANDS, MEL_BANDS), device)?,
            adapter_bias: Tensor::from_slice(adapter_bias, (BANDS, 1), device)?,
            input_scale: input_scale.iter().copied().map(f64::from).sum(),
            input_shift: input_shift.iter().copied().map(f64::from).sum(),
            timbral: [low?, high?],
            temporal: FilterBank::new(&temporal_filters(weights)?, device)?,
            mid: [first?, second?, third?],
            cells: (0..=u8::MAX).map(dequantize).collect(),
        })
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
        // A chunk's working set fits a core's cache: on the CPU, cores share the chunks, not the matrix products.
        let pooled: Vec<Tensor> = match (&self.device, chunks) {
            (_, []) => return Ok(Tensor::zeros((0, POOLED_FEATURES), candle_core::DType::F32, &self.device)?),
            (Device::Cpu, [_]) => vec![self.forward(chunks)?],
            (Device::Cpu, _) => chunks.par_chunks(1).map(|chunk| self.forward(chunk)).collect::<Result<_>>()?,
            _ => chunks.chunks(GPU_CHUNKS).map(|chunks| self.forward(chunks)).collect::<Result<_>>()?,
        };
        Ok(Tensor::cat(&pooled, 0)?)
    }

    /// `[batch, POOLED_FEATURES]`
    fn forward(&self, chunks: &[&[u8]]) -> Result<Tensor> {
        let input = self.input(chunks)?;
        let front = self.front(&input)?;
        let channels = self.middle(front)?;
        let pooled = Tensor::stack(&[channels.max(2)?, channels.mean(2)?], 1)?;
        Ok(pooled.reshape((POOLED_FEATURES, chunks.len()))?.t()?.contiguous()?)
    }

    /// The network's own normalised bands `[BANDS, batch, frames]`.
    fn input(&self, chunks: &[&[u8]]) -> Result<Tensor> {
        let batch = chunks.len();
        let decibels: Vec<f32> = (0..MEL_BANDS)
            .flat_map(|band| {
                chunks.iter().flat_map(move |chunk| chunk.iter().skip(band * CHUNK_FRAMES).take(CHUNK_FRAMES))
            })
            .filter_map(|cell| self.cells.get(usize::from(*cell)).copied())
            .collect();
        let decibels = Tensor::from_vec(decibels, (MEL_BANDS, batch * CHUNK_FRAMES), &self.device)?;
        let bands = self.adapter_weight.matmul(&decibels)?.broadcast_add(&self.adapter_bias)?;
        let power = (bands * (LN_10 / 10.0))?.exp()?;
        let loudness = power.affine(INPUT_GAIN, 1.0)?.log()?;
        let normalized = loudness.affine(self.input_scale / LN_10, self.input_shift)?;
        Ok(normalized.reshape((BANDS, batch, CHUNK_FRAMES))?)
    }

    /// `[FRONT_CHANNELS, batch, frames]`
    fn front(&self, input: &Tensor) -> Result<Tensor> {
        let (bands, batch, frames) = input.dims3()?;
        let columns = batch * frames;
        let taps = SHORT_TIME.taps;
        let short = unfold(input, SHORT_TIME)?.transpose(0, 1)?.reshape((bands * taps, columns))?;
        let mut parts = Vec::with_capacity(TIMBRAL.len() + 1);
        for (part, bank) in TIMBRAL.iter().zip(&self.timbral) {
            let rows = bank.rows()?;
            // The last window is moved back to end with the bands: a place that is met twice does not change a maximum.
            let last = bands - part.bands + 1 - TIMBRAL_SHIFTS;
            let starts = (0..last).step_by(TIMBRAL_SHIFTS).chain([last]);
            let windows = starts.map(|lowest_band| Ok(short.narrow(0, lowest_band * taps, rows)?));
            parts.push(bank.activate(&bank.greatest_product(windows)?)?);
        }

        let long_time = longest_time();
        let windows = (0..bands / TEMPORAL_BANDS).map(|group| {
            let bands = input.narrow(0, group * TEMPORAL_BANDS, TEMPORAL_BANDS)?;
            Ok(unfold(&bands, long_time)?.reshape((long_time.taps, TEMPORAL_BANDS * columns))?)
        });
        let product = self.temporal.greatest_product(windows)?;
        let filters = product.dim(0)?;
        parts.push(self.temporal.activate(&product.reshape((filters, TEMPORAL_BANDS, columns))?.max(1)?)?);
        Ok(Tensor::cat(&parts, 0)?.reshape((FRONT_CHANNELS, batch, frames))?)
    }

    /// The front end's channels and those of every layer after it, `[POOLED_FEATURES / 2, batch, frames]`.
    fn middle(&self, front: Tensor) -> Result<Tensor> {
        let (_, batch, frames) = front.dims3()?;
        let mut channels = vec![front];
        for (layer, bank) in self.mid.iter().enumerate() {
            let Some(previous) = channels.last() else { break };
            let rows = SHORT_TIME.taps * architecture::mid_inputs(layer);
            let unfolded = unfold(previous, SHORT_TIME)?.reshape((rows, batch * frames))?;
            let response = bank.respond(&unfolded)?.reshape((MID_CHANNELS, batch, frames))?;
            let residual = if layer == 0 { response } else { (response + previous)? };
            channels.push(residual);
        }
        Ok(Tensor::cat(&channels, 0)?)
    }
}

/// What every tap of `kernel` sees: `[taps, rows, batch, frames]` from `[rows, batch, frames]`, with zeros beyond the ends.
fn unfold(input: &Tensor, kernel: TimeKernel) -> Result<Tensor> {
    let frames = input.dim(2)?;
    let padded = input.pad_with_zeros(2, kernel.before, kernel.taps - 1 - kernel.before)?;
    let taps = (0..kernel.taps).map(|tap| padded.narrow(2, tap, frames)).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::stack(&taps, 0)?)
}

/// A kernel that covers every one of [`TEMPORAL`].
fn longest_time() -> TimeKernel {
    let [long, medium, short] = TEMPORAL.map(|part| part.time);
    debug_assert!(medium.before <= long.before && short.before <= long.before);
    long
}

/// The filters of one part of the front end, as their kernels are stored: rows are a tap and a band.
pub(crate) fn part_filters(weights: &Weights, part: FrontPart) -> Result<Vec<Filter>> {
    filters(weights, &format!("front.{}", part.name), [part.filters, 1, part.time.taps, part.bands], <[f32]>::to_vec)
}

/// The filters of one timbral part: rows are a band and a tap.
fn timbral_filters(weights: &Weights, part: FrontPart) -> Result<Vec<Filter>> {
    let taps = part.time.taps;
    filters(weights, &format!("front.{}", part.name), [part.filters, 1, taps, part.bands], |kernel| {
        transpose(kernel, taps, part.bands)
    })
}

/// The filters of all temporal parts: rows are a tap of the longest.
fn temporal_filters(weights: &Weights) -> Result<Vec<Filter>> {
    let longest = longest_time();
    let mut bank = Vec::new();
    for part in TEMPORAL {
        let shape = [part.filters, 1, part.time.taps, part.bands];
        let widen = |kernel: &[f32]| {
            let mut wide = vec![0.0; longest.before - part.time.before];
            wide.extend_from_slice(kernel);
            wide.resize(longest.taps, 0.0);
            wide
        };
        bank.extend(filters(weights, &format!("front.{}", part.name), shape, widen)?);
    }
    Ok(bank)
}

/// The filters of one layer in the middle: rows are a tap and a channel.
pub(crate) fn mid_filters(weights: &Weights, layer: usize) -> Result<Vec<Filter>> {
    let shape = [MID_CHANNELS, 1, SHORT_TIME.taps, architecture::mid_inputs(layer)];
    filters(weights, &format!("mid.{layer}"), shape, <[f32]>::to_vec)
}

/// Filters from the convolution and normalisation `name`, with each kernel laid out by `arrange`.
fn filters(
    weights: &Weights,
    name: &str,
    shape: [usize; 4],
    arrange: impl Fn(&[f32]) -> Vec<f32>,
) -> Result<Vec<Filter>> {
    let [count, _, taps, width] = shape;
    let kernels = weights.get(&format!("{name}.conv.weight"), &shape)?.values();
    let biases = weights.get(&format!("{name}.conv.bias"), &[count])?.values();
    let (scales, shifts) = weights.normalization(&format!("{name}.norm"), count)?;
    Ok((kernels.chunks_exact(taps * width).zip(biases).zip(scales.into_iter().zip(shifts)))
        .map(|((kernel, bias), (scale, shift))| Filter { kernel: arrange(kernel), bias: *bias, scale, shift })
        .collect())
}

/// `[columns][rows]` from `[rows][columns]`.
fn transpose(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| matrix.iter().skip(column).step_by(columns).take(rows).copied()).collect()
}
