//! Convolutions over time for a GPU: what every tap sees is gathered in one go, and met in one product.

use candle_core::{Device, Result, Tensor};

use crate::architecture::TimeKernel;

/// Beyond the ends of a row, where a tap sees nothing: candle gathers a zero there.
const NOWHERE: u32 = u32::MAX;

/// A kernel over time on rows of so many frames, at every few of them.
pub(crate) struct TimeTaps {
    /// `[taps · answers]`: the frame that a tap sees at an answer.
    frames: Tensor,
    taps: usize,
    answers: usize,
}

impl TimeTaps {
    /// `kernel` at every `step`th of `frames` frames.
    ///
    /// # Errors
    /// Where the device is out of memory.
    pub(crate) fn new(kernel: TimeKernel, frames: usize, step: usize, device: &Device) -> Result<Self> {
        let answers = frames / step;
        let seen = |tap: usize, answer: usize| {
            let frame = (answer * step + tap).checked_sub(kernel.before).filter(|frame| *frame < frames);
            frame.and_then(|frame| u32::try_from(frame).ok()).unwrap_or(NOWHERE)
        };
        let seen: Vec<u32> =
            (0..kernel.taps).flat_map(|tap| (0..answers).map(move |answer| seen(tap, answer))).collect();
        let frames = Tensor::from_vec(seen, kernel.taps * answers, device)?;
        Ok(Self { frames, taps: kernel.taps, answers })
    }

    /// `[batch, rows · taps, answers]` of `[batch, rows, frames]`, with zeros beyond the ends.
    ///
    /// # Errors
    /// Where the shape is another one, or the device fails.
    pub(crate) fn unfold(&self, input: &Tensor) -> Result<Tensor> {
        let (batch, rows, _) = input.dims3()?;
        let seen = input.contiguous()?.index_select(&self.frames, 2)?;
        seen.reshape((batch, rows * self.taps, self.answers))
    }

    /// The convolution of `[batch, channels, 1, frames]` with `weight`, `[outputs, channels, 1, taps]`:
    /// `[batch, outputs, 1, answers]`.
    ///
    /// # Errors
    /// Where shapes do not fit each other, or the device fails.
    pub(crate) fn convolve(&self, input: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let weight = weight.flatten_from(1)?;
        multiply_each(&weight, &self.unfold(&input.squeeze(2)?)?)?.unsqueeze(2)
    }
}

/// The products `[batch, outputs, columns]` of one matrix `[outputs, inner]` with each of `[batch, inner, columns]`. The matrix
/// is not copied for that.
pub(crate) fn multiply_each(matrix: &Tensor, batch: &Tensor) -> Result<Tensor> {
    let (outputs, inner) = matrix.dims2()?;
    matrix.broadcast_as((batch.dim(0)?, outputs, inner))?.matmul(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{architecture::TEMPORAL, convolve, front::unfold};

    fn random(shape: &[usize]) -> Tensor {
        Tensor::rand(-1_f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    fn assert_close(one: &Tensor, other: &Tensor) {
        assert_eq!(one.dims(), other.dims());
        let difference = (one - other).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-4);
    }

    #[test]
    fn a_convolution_is_that_of_the_plain_way() {
        let kernel = TimeKernel { original_taps: 7, before: 3, taps: 7 };
        let (input, weight) = (random(&[3, 5, 1, 20]), random(&[4, 5, 1, 7]));
        let taps = TimeTaps::new(kernel, 20, 1, &Device::Cpu).unwrap();
        assert_close(&taps.convolve(&input, &weight).unwrap(), &convolve(&input, &weight).unwrap());
    }

    #[test]
    fn every_tap_sees_what_it_sees_in_the_plain_way() {
        let input = random(&[6, 2, 96]);
        for (kernel, step) in [(TEMPORAL[0].time, 1), (TEMPORAL[2].time, 2)] {
            let plain = unfold(&input, kernel, step).unwrap();
            // [taps, rows, batch, answers] and [rows · batch, taps, answers].
            let plain = plain.permute((1, 2, 0, 3)).unwrap().contiguous().unwrap().flatten_to(1).unwrap();
            let rows = input.reshape((12, 1, 96)).unwrap();
            assert_close(&TimeTaps::new(kernel, 96, step, &Device::Cpu).unwrap().unfold(&rows).unwrap(), &plain);
        }
    }
}
