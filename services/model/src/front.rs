//! From mel chunks to the channels of the front end: the adapter, and MusiCNN's first convolutions.
//!
//! Everything is a matrix product over rows that are a channel (and a tap), and columns that are a chunk and a frame.

use std::f64::consts::LN_10;

use candle_core::{Device, Tensor};

use crate::{
    Result, Weights,
    architecture::{BANDS, FrontPart, FrontShape, TEMPORAL, TimeKernel},
    bands::Bands,
    contract::CHUNK_FRAMES,
    filter_bank::{Filter, FilterBank},
};

/// Bands that are unfolded in time at once: as many as keep a chunk's taps in a core's cache. It divides [`BANDS`].
const TEMPORAL_BANDS: usize = 16;
/// Rows of bands that one matrix product of a timbral filter spans beyond its own.
pub(crate) const TIMBRAL_SPAN: usize = 8;
/// MusiCNN hears `log10(1 + 10⁴ · power)`.
const INPUT_GAIN: f64 = 1e4;

/// The part of the network whose filters see the spectrogram, on one device.
pub(crate) struct Front {
    device: Device,
    pub(crate) shape: FrontShape,
    input: Input,
    timbral: [FilterBank; 2],
    temporal: FilterBank,
}

impl Front {
    /// Puts the front end of `weights` onto `device`.
    pub(crate) fn new(weights: &Weights, shape: FrontShape, device: &Device) -> Result<Self> {
        let [low, high] = shape
            .timbral()
            .map(|part| FilterBank::sliding(&timbral_filters(weights, part)?, TIMBRAL_SPAN, part.time.taps, device));
        Ok(Self {
            device: device.clone(),
            shape,
            input: Input::new(weights, device)?,
            timbral: [low?, high?],
            temporal: FilterBank::new(&temporal_filters(weights)?, device)?,
        })
    }

    /// The device that it is on.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The channels `[channels, batch, frames / frame step]` of `[MEL_BANDS, batch · frames]` dB.
    pub(crate) fn forward(&self, decibels: &Tensor) -> Result<Tensor> {
        let input = self.input(decibels)?;
        let (bands, batch, frames) = input.dims3()?;
        let FrontShape { step, short } = self.shape;
        let answers = frames / step;
        let columns = batch * answers;
        let taps = short.taps;
        let short = unfold(&input, short, step)?.transpose(0, 1)?.reshape((bands * taps, columns))?;
        let mut parts = Vec::with_capacity(self.timbral.len() + 1);
        for (part, bank) in self.shape.timbral().iter().zip(&self.timbral) {
            let rows = bank.rows()?;
            // The last window is moved back to end with the bands: a place that is met twice does not change a maximum.
            let last = bands - part.bands + 1 - TIMBRAL_SPAN;
            let starts = (0..last).step_by(TIMBRAL_SPAN).chain([last]);
            let windows = starts.map(|lowest_band| Ok(short.narrow(0, lowest_band * taps, rows)?));
            parts.push(bank.activate(&bank.greatest_product(windows)?)?);
        }

        let long_time = longest_time();
        let windows = (0..bands / TEMPORAL_BANDS).map(|group| {
            let bands = input.narrow(0, group * TEMPORAL_BANDS, TEMPORAL_BANDS)?;
            let unfolded = unfold(&bands, long_time, step)?;
            Ok(unfolded.reshape((long_time.taps, TEMPORAL_BANDS * columns))?)
        });
        let product = self.temporal.greatest_product(windows)?;
        let filters = product.dim(0)?;
        parts.push(self.temporal.activate(&product.reshape((filters, TEMPORAL_BANDS, columns))?.max(1)?)?);
        let channels = Tensor::cat(&parts, 0)?;
        Ok(channels.reshape((channels.dim(0)?, batch, answers))?)
    }

    /// The network's own normalised bands `[BANDS, batch, frames]`.
    pub(crate) fn input(&self, decibels: &Tensor) -> Result<Tensor> {
        self.input.forward(decibels)
    }
}

/// What the filters see: the network's own bands, normalised.
pub(crate) struct Input {
    bands: Bands,
    scale: f64,
    shift: f64,
}

impl Input {
    /// That of `weights`, on `device`.
    pub(crate) fn new(weights: &Weights, device: &Device) -> Result<Self> {
        let (scale, shift) = weights.normalization("input_norm", 1)?;
        let [scale, shift] = [scale, shift].map(|one| one.into_iter().map(f64::from).sum());
        Ok(Self { bands: Bands::new(weights, device)?, scale, shift })
    }

    /// `[BANDS, batch, frames]` of `[MEL_BANDS, batch · frames]` dB.
    pub(crate) fn forward(&self, decibels: &Tensor) -> Result<Tensor> {
        let batch = decibels.dim(1)? / CHUNK_FRAMES;
        let power = (self.bands.forward(decibels)? * (LN_10 / 10.0))?.exp()?;
        let loudness = power.affine(INPUT_GAIN, 1.0)?.log()?;
        let normalized = loudness.affine(self.scale / LN_10, self.shift)?;
        Ok(normalized.reshape((BANDS, batch, CHUNK_FRAMES))?)
    }
}

/// What every tap of `kernel` sees at every `step`th frame: `[taps, rows, batch, frames / step]` from
/// `[rows, batch, frames]`, with zeros beyond the ends.
pub(crate) fn unfold(input: &Tensor, kernel: TimeKernel, step: usize) -> Result<Tensor> {
    let (rows, batch, frames) = input.dims3()?;
    let padded = input.pad_with_zeros(2, kernel.before, kernel.taps - 1 - kernel.before)?;
    let tap = |tap| {
        let seen = padded.narrow(2, tap, frames)?;
        if step == 1 {
            return Ok(seen);
        }
        seen.contiguous()?.reshape((rows, batch, frames / step, step))?.narrow(3, 0, 1)?.squeeze(3)
    };
    Ok(Tensor::stack(&(0..kernel.taps).map(tap).collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}

/// A kernel that covers every one of [`TEMPORAL`].
pub(crate) fn longest_time() -> TimeKernel {
    let [long, medium, short] = TEMPORAL.map(|part| part.time);
    debug_assert!(medium.before <= long.before && short.before <= long.before);
    long
}

/// The filters of one part, as their kernels are stored: rows are a tap and a band.
pub(crate) fn part_filters(weights: &Weights, part: FrontPart) -> Result<Vec<Filter>> {
    filters(weights, &format!("front.{}", part.name), [part.time.taps, part.bands], <[f32]>::to_vec)
}

/// The filters of one timbral part: rows are a band and a tap.
pub(crate) fn timbral_filters(weights: &Weights, part: FrontPart) -> Result<Vec<Filter>> {
    let taps = part.time.taps;
    filters(weights, &format!("front.{}", part.name), [taps, part.bands], |kernel| transpose(kernel, taps, part.bands))
}

/// The filters of all temporal parts: rows are a tap of the longest.
pub(crate) fn temporal_filters(weights: &Weights) -> Result<Vec<Filter>> {
    let longest = longest_time();
    let mut bank = Vec::new();
    for part in TEMPORAL {
        let widen = |kernel: &[f32]| {
            let mut wide = vec![0.0; longest.before - part.time.before];
            wide.extend_from_slice(kernel);
            wide.resize(longest.taps, 0.0);
            wide
        };
        bank.extend(filters(weights, &format!("front.{}", part.name), [part.time.taps, part.bands], widen)?);
    }
    Ok(bank)
}

/// Filters from the convolution and normalisation `name`, with each kernel `[taps, width]` laid out by `arrange`.
pub(crate) fn filters(
    weights: &Weights,
    name: &str,
    [taps, width]: [usize; 2],
    arrange: impl Fn(&[f32]) -> Vec<f32>,
) -> Result<Vec<Filter>> {
    let count = weights.length(&format!("{name}.conv.bias"))?;
    let kernels = weights.get(&format!("{name}.conv.weight"), &[count, 1, taps, width])?.values();
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
