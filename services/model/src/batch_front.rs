//! The front end for a GPU: few large kernels over a whole batch. On the CPU, where a chunk is to stay in a core's cache,
//! [`Front`](crate::front::Front) does the same in many small ones.

use candle_core::{DType, Device, Tensor};

use crate::{
    ModelError, Result, Weights,
    architecture::{BANDS, EnsembleShape, FrontShape},
    contract::CHUNK_FRAMES,
    ensemble::interpolation,
    filter_bank::FilterBank,
    front::{Input, longest_time, temporal_filters, timbral_filters},
    time_taps::{TimeTaps, multiply_each},
};

/// The part of the network whose filters see the spectrogram, for batches.
pub(crate) struct BatchFront {
    input: Input,
    short: TimeTaps,
    timbral: [Timbral; 2],
    long: TimeTaps,
    temporal: FilterBank,
    /// `[frames of the front end, frames of the members]`
    interpolation: Tensor,
}

/// The filters of one timbral part, which slide over bands.
struct Timbral {
    /// `[places · bands of a filter]`: the bands under a filter, for every place that it is at.
    bands: Tensor,
    places: usize,
    bank: FilterBank,
}

impl BatchFront {
    /// Puts the front end of `weights` onto `device`.
    ///
    /// # Errors
    /// Where a tensor is missing or has a wrong shape, or the device is out of memory.
    pub(crate) fn new(weights: &Weights, shape: EnsembleShape, device: &Device) -> Result<Self> {
        let FrontShape { step, short } = shape.front;
        let [low, high] = shape.front.timbral().map(|part| {
            let places = BANDS + 1 - part.bands;
            let bands = (0..places).flat_map(|lowest| lowest..lowest + part.bands);
            let bands: Vec<u32> = bands.filter_map(|band| u32::try_from(band).ok()).collect();
            Ok::<_, ModelError>(Timbral {
                bands: Tensor::from_vec(bands, places * part.bands, device)?,
                places,
                bank: FilterBank::new(&timbral_filters(weights, part)?, device)?,
            })
        });
        Ok(Self {
            input: Input::new(weights, device)?,
            short: TimeTaps::new(short, CHUNK_FRAMES, step, device)?,
            timbral: [low?, high?],
            long: TimeTaps::new(longest_time(), CHUNK_FRAMES, step, device)?,
            temporal: FilterBank::new(&temporal_filters(weights)?, device)?,
            interpolation: interpolation(shape, device)?,
        })
    }

    /// What the members hear, `[batch, channels + 1, 1, frames]`, of `[MEL_BANDS, batch · frames]` dB.
    ///
    /// # Errors
    /// Where the shape is another one, or the device fails.
    pub(crate) fn hear(&self, decibels: &Tensor) -> Result<Tensor> {
        let channels = self.forward(decibels)?;
        let (batch, count, heard) = channels.dims3()?;
        let channels = channels.reshape((batch * count, heard))?.matmul(&self.interpolation)?;
        let frames = channels.dim(1)?;
        let one = Tensor::ones((batch, 1, frames), DType::F32, channels.device())?;
        Ok(Tensor::cat(&[channels.reshape((batch, count, frames))?, one], 1)?.unsqueeze(2)?)
    }

    /// The channels `[batch, channels, frames / frame step]`.
    fn forward(&self, decibels: &Tensor) -> Result<Tensor> {
        let input = self.input.forward(decibels)?.transpose(0, 1)?.contiguous()?;
        let (batch, bands, frames) = input.dims3()?;
        let mut parts = Vec::with_capacity(self.timbral.len() + 1);
        // [batch, bands, taps · answers], so that the taps of neighbouring bands are neighbours.
        let short = self.short.unfold(&input)?.reshape((batch, bands, ()))?;
        for part in &self.timbral {
            let seen = short.index_select(&part.bands, 1)?.reshape((batch * part.places, part.bank.rows()?, ()))?;
            parts.push(part.bank.greatest_answer(&seen, batch)?);
        }
        let long = self.long.unfold(&input.reshape((batch * bands, 1, frames))?)?;
        parts.push(self.temporal.greatest_answer(&long, batch)?);
        Ok(Tensor::cat(&parts, 1)?)
    }
}

impl FilterBank {
    /// The greatest responses `[batch, filters, columns]` to what the filters see at several places of every input,
    /// `[batch · places, rows, columns]`: see [`greatest_product`](Self::greatest_product).
    fn greatest_answer(&self, seen: &Tensor, batch: usize) -> Result<Tensor> {
        let products = multiply_each(self.kernel(), seen)?;
        let (each, filters, columns) = products.dims3()?;
        let mut greatest = products.reshape((batch, each / batch, filters, columns))?;
        // candle's own maximum over a dimension that is not the last has a block of threads for every answer.
        while greatest.dim(1)? > 1 {
            let places = greatest.dim(1)?;
            let half = places.div_ceil(2);
            // The halves overlap if the number is odd: to meet a place twice does not change the maximum.
            greatest = greatest.narrow(1, 0, half)?.maximum(&greatest.narrow(1, places - half, half)?)?;
        }
        self.activate_each(&greatest.squeeze(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelFolder, batches::Batches, contract::CHUNK_CELLS, ensemble::EnsembleFront};

    #[test]
    fn the_members_hear_the_same_as_from_the_plain_front() {
        for folder in [ModelFolder::embedded().unwrap(), ModelFolder::embedded_small().unwrap()] {
            let shape = folder.manifest().network().unwrap().ensemble().unwrap();
            let chunks: Vec<Vec<u8>> =
                (1..=3).map(|seed| (0..CHUNK_CELLS).map(|cell| (cell * seed * 31 % 251) as u8).collect()).collect();
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let decibels = Batches::new(&Device::Cpu).unwrap().decibels(&chunks).unwrap();
            let plain = EnsembleFront::new(folder.weights(), shape, &Device::Cpu).unwrap();
            let plain = plain.members_hear(&plain.front.forward(&decibels).unwrap()).unwrap();
            let heard = BatchFront::new(folder.weights(), shape, &Device::Cpu).unwrap().hear(&decibels).unwrap();
            assert_eq!(heard.dims(), plain.dims());
            let difference = (heard - &plain).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-4, "{difference}");
        }
    }
}
