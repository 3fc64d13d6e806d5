//! Any sample rate to that of the contract.

use chorale_model::contract::SAMPLE_RATE;
use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Indexing, ResampleError, ResamplerConstructionError, WindowFunction};

/// Output samples of one FFT block, at least. A longer block makes a steeper filter.
const BLOCK_SAMPLES: u64 = 1_024;

/// Resamples one mono signal to [`SAMPLE_RATE`], band-limited.
///
/// Both rates are constant, so the synchronous FFT resampler fits: it is exact in ratio, has linear phase and a deep
/// stop band, and costs a fraction of a windowed sinc of the same steepness. Its delay is taken off: sample 0 stays
/// sample 0, and `n` samples at `rate` become `round(n × 22050 / rate)`. A signal that has the right rate already
/// passes through unchanged. Memory depends on the rate only.
pub struct Resampler {
    rate: u32,
    engine: Option<Box<Engine>>,
    received: u64,
    delivered: u64,
}

struct Engine {
    fft: Fft<f32>,
    input: Vec<f32>,
    block: usize,
    output: Vec<f32>,
    /// Samples of the filter's delay that are still to be dropped.
    to_drop: usize,
}

impl Resampler {
    /// A resampler from `rate` Hz.
    ///
    /// # Errors
    ///
    /// If `rate` is 0.
    pub fn new(rate: u32) -> Result<Self, ResamplerConstructionError> {
        let engine = if rate == SAMPLE_RATE { None } else { Some(Box::new(Engine::new(rate)?)) };
        Ok(Self { rate, engine, received: 0, delivered: 0 })
    }

    /// Samples a second of the input, in Hz.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Takes the next samples, and hands on what is ready.
    ///
    /// # Errors
    ///
    /// Those of `sink`.
    pub fn push<E: From<ResampleError>>(
        &mut self,
        samples: &[f32],
        sink: &mut dyn FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.received += samples.len() as u64;
        match &mut self.engine {
            None => {
                self.delivered += samples.len() as u64;
                sink(samples)
            }
            Some(engine) => {
                let mut rest = samples;
                while !rest.is_empty() {
                    let (taken, left) = rest.split_at(rest.len().min(engine.block - engine.input.len()));
                    engine.input.extend_from_slice(taken);
                    rest = left;
                    if engine.input.len() == engine.block {
                        let ready = engine.run()?;
                        self.delivered += ready.len() as u64;
                        sink(ready)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Ends the signal, and hands on the rest of it.
    ///
    /// # Errors
    ///
    /// Those of `sink`.
    pub fn finish<E: From<ResampleError>>(mut self, sink: &mut dyn FnMut(&[f32]) -> Result<(), E>) -> Result<(), E> {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let rate = u128::from(self.rate);
        let total = ((2 * u128::from(self.received) * u128::from(SAMPLE_RATE) + rate) / (2 * rate)) as u64;
        while self.delivered < total {
            let ready = engine.run()?;
            let wanted = (total - self.delivered).min(ready.len() as u64);
            self.delivered += wanted;
            sink(ready.get(..wanted as usize).unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Engine {
    fn new(rate: u32) -> Result<Self, ResamplerConstructionError> {
        if rate == 0 {
            return Err(ResamplerConstructionError::InvalidSampleRate { input: 0, output: SAMPLE_RATE as usize });
        }
        let common = gcd(rate, SAMPLE_RATE);
        let smallest_in = u64::from(rate / common);
        let smallest_out = u64::from(SAMPLE_RATE / common);
        // Twice something: an odd block has its centre, and so its delay, between two samples.
        let multiple = BLOCK_SAMPLES.max(BLOCK_SAMPLES * smallest_in / smallest_out).div_ceil(2 * smallest_in) * 2;
        let chunk = usize::try_from(multiple * smallest_in).unwrap_or(usize::MAX);
        let fft = Fft::new_custom(
            rate as usize,
            SAMPLE_RATE as usize,
            chunk,
            1,
            1,
            WindowFunction::BlackmanHarris2,
            FixedSync::Both,
        )?;
        let (block, output) = (fft.fft_size_in(), vec![0.0; fft.fft_size_out()]);
        let to_drop = output.len() / 2;
        Ok(Self { fft, input: Vec::with_capacity(block), block, output, to_drop })
    }

    /// Resamples what is in `input`, silence where it is short of a block.
    fn run(&mut self) -> Result<&[f32], ResampleError> {
        use rubato::Resampler as _;
        self.input.resize(self.block, 0.0);
        let frames = self.output.len();
        let input = SequentialSlice::new(&self.input, 1, self.block).map_err(size_mismatch)?;
        let mut output = SequentialSlice::new_mut(&mut self.output, 1, frames).map_err(size_mismatch)?;
        self.fft.process_into_buffer(&input, &mut output, None::<&Indexing>)?;
        self.input.clear();
        let dropped = self.to_drop.min(frames);
        self.to_drop -= dropped;
        Ok(self.output.get(dropped..).unwrap_or_default())
    }
}

/// The buffers above have the size that they say; the type only cannot tell.
fn size_mismatch<E>(_: E) -> ResampleError {
    ResampleError::InsufficientInputBufferSize { expected: 0, actual: 0 }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn resample(rate: u32, samples: &[f32], step: usize) -> Vec<f32> {
        let mut out = Vec::new();
        let mut sink = |ready: &[f32]| -> Result<(), ResampleError> {
            out.extend_from_slice(ready);
            Ok(())
        };
        let mut resampler = Resampler::new(rate).unwrap();
        for part in samples.chunks(step) {
            resampler.push(part, &mut sink).unwrap();
        }
        resampler.finish(&mut sink).unwrap();
        out
    }

    fn sine(frequency: f64, rate: u32, samples: usize) -> Vec<f32> {
        (0..samples).map(|n| (TAU * frequency * n as f64 / f64::from(rate)).sin() as f32).collect()
    }

    #[test]
    fn the_right_rate_passes_unchanged() {
        let signal = sine(440.0, SAMPLE_RATE, 10_000);
        assert_eq!(resample(SAMPLE_RATE, &signal, 777), signal);
    }

    #[test]
    fn sines_keep_their_phase_level_and_length() {
        for rate in [8_000, 11_025, 16_000, 22_051, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000] {
            let samples = rate as usize + 317;
            let out = resample(rate, &sine(1_000.0, rate, samples), 1_000);
            let expected = (samples as f64 * 22_050.0 / f64::from(rate)).round() as usize;
            assert_eq!(out.len(), expected, "{rate} Hz");
            let reference = sine(1_000.0, SAMPLE_RATE, expected);
            let worst = (2_000..expected - 2_000).map(|n| (out[n] - reference[n]).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{rate} Hz: {worst}");
        }
    }

    #[test]
    fn what_does_not_fit_the_lower_rate_is_gone() {
        let out = resample(48_000, &sine(15_000.0, 48_000, 48_000), 4_096);
        let worst = out[2_000..20_000].iter().fold(0.0_f32, |worst, sample| worst.max(sample.abs()));
        assert!(worst < 1e-4, "{worst}");
    }

    #[test]
    fn the_pass_band_is_wide() {
        let out = resample(44_100, &sine(10_500.0, 44_100, 44_100), 4_096);
        let power = out[2_000..20_000].iter().map(|sample| f64::from(sample * sample)).sum::<f64>() / 18_000.0;
        assert!((10.0 * (2.0 * power).log10()).abs() < 0.1, "{power}");
    }

    #[test]
    fn how_the_signal_is_cut_does_not_matter() {
        let signal = sine(440.0, 44_100, 20_000);
        assert_eq!(resample(44_100, &signal, 1), resample(44_100, &signal, 20_000));
    }

    #[test]
    fn odd_rates_work() {
        for rate in [1_000, 44_101, 384_001 - 2] {
            assert_eq!(
                resample(rate, &[0.5; 3_000], 512).len(),
                (3_000.0 * 22_050.0 / f64::from(rate)).round() as usize
            );
        }
        assert!(Resampler::new(0).is_err());
    }
}
