//! The log-mel spectrogram, one frame at a time.

use chorale_model::contract::{FFT_SIZE, MEL_BANDS, MIN_POWER, SAMPLE_RATE, frame_centre, frames_in};
use pulp::{Arch, Simd, WithSimd};
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use std::f32::consts::{FRAC_1_SQRT_2, LN_10, LOG10_2};
use std::f64::consts::TAU;
use std::sync::Arc;

const HALF_WINDOW: usize = FFT_SIZE / 2;
/// Samples that are taken at once: enough that what is left of the last ones is seldom moved.
const PART: usize = 2 * FFT_SIZE;

/// One frame: the level of each mel band in dB, absolute, at least −100.
pub type MelFrame = [f32; MEL_BANDS];

/// Computes the log-mel frames of a mono signal at [`SAMPLE_RATE`] that comes in pieces.
///
/// Every frame is computed once, as soon as the samples under its window are there. Nothing is allocated per frame.
pub struct MelSpectrogram {
    arch: Arch,
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    filters: MelFilters,
    /// Samples that frames to come will look at; the first one has index `start − HALF_WINDOW` in the signal.
    pending: Vec<f32>,
    start: u64,
    samples: u64,
    next_frame: u64,
    windowed: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    power: Vec<f32>,
    frame: MelFrame,
}

impl Default for MelSpectrogram {
    fn default() -> Self {
        Self::new()
    }
}

impl MelSpectrogram {
    /// A spectrogram of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(FFT_SIZE);
        let hann = |n: usize| (0.5 - 0.5 * (TAU * n as f64 / FFT_SIZE as f64).cos()) as f32;
        Self {
            arch: Arch::new(),
            window: (0..FFT_SIZE).map(hann).collect(),
            filters: MelFilters::new(),
            pending: vec![0.0; HALF_WINDOW],
            start: 0,
            samples: 0,
            next_frame: 0,
            windowed: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            // The last bands look beyond the last bin, with no weight.
            power: vec![0.0; HALF_WINDOW + 1 + LANES],
            frame: [0.0; MEL_BANDS],
            fft,
        }
    }

    /// Samples received so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Takes the next samples, and hands on the frames that they complete.
    ///
    /// # Errors
    ///
    /// Those of `sink`.
    pub fn push<E>(&mut self, samples: &[f32], sink: &mut dyn FnMut(&MelFrame) -> Result<(), E>) -> Result<(), E> {
        for part in samples.chunks(PART) {
            self.pending.extend_from_slice(part);
            self.samples += part.len() as u64;
            while frame_centre(self.next_frame) + HALF_WINDOW as u64 <= self.samples {
                self.compute(sink)?;
            }
            self.forget();
        }
        Ok(())
    }

    /// Ends the signal, and hands on its last frames.
    ///
    /// # Errors
    ///
    /// Those of `sink`.
    pub fn finish<E>(&mut self, sink: &mut dyn FnMut(&MelFrame) -> Result<(), E>) -> Result<(), E> {
        self.pending.extend_from_slice(&[0.0; HALF_WINDOW]);
        while self.next_frame < frames_in(self.samples) {
            self.compute(sink)?;
        }
        Ok(())
    }

    fn compute<E>(&mut self, sink: &mut dyn FnMut(&MelFrame) -> Result<(), E>) -> Result<(), E> {
        let offset = (frame_centre(self.next_frame) - self.start) as usize;
        self.next_frame += 1;
        let samples = self.pending.get(offset..).unwrap_or_default();
        self.arch.dispatch(Weigh { samples, window: &self.window, windowed: &mut self.windowed });
        // The only error is a buffer of the wrong length, and these come from the transform itself.
        let _ = self.fft.process_with_scratch(&mut self.windowed, &mut self.spectrum, &mut self.scratch);
        let (spectrum, filters) = (&self.spectrum, &self.filters);
        self.arch.dispatch(Levels { spectrum, filters, power: &mut self.power, frame: &mut self.frame });
        sink(&self.frame)
    }

    fn forget(&mut self) {
        let passed = (frame_centre(self.next_frame) - self.start) as usize;
        let passed = passed.min(self.pending.len());
        self.pending.drain(..passed);
        self.start += passed as u64;
    }
}

/// Samples under a window.
struct Weigh<'a> {
    samples: &'a [f32],
    window: &'a [f32],
    windowed: &'a mut [f32],
}

impl WithSimd for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((windowed, sample), weight) in self.windowed.iter_mut().zip(self.samples).zip(self.window) {
            *windowed = sample * weight;
        }
    }
}

/// A spectrum as levels of mel bands.
struct Levels<'a> {
    spectrum: &'a [Complex<f32>],
    filters: &'a MelFilters,
    power: &'a mut [f32],
    frame: &'a mut MelFrame,
}

impl WithSimd for Levels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (power, bin) in self.power.iter_mut().zip(self.spectrum) {
            *power = bin.norm_sqr();
        }
        for (level, band) in self.frame.iter_mut().zip(&self.filters.bands) {
            let bins = self.power.get(band.first_bin..).unwrap_or_default();
            // Sums side by side, so that the compiler finds vectors.
            let mut sums = [0.0; LANES];
            for (weights, bins) in band.weights.iter().zip(bins.as_chunks::<LANES>().0) {
                for (sum, (weight, bin)) in sums.iter_mut().zip(weights.iter().zip(bins)) {
                    *sum += weight * bin;
                }
            }
            *level = sums.iter().sum();
        }
        for level in self.frame {
            *level = decibels(level.max(MIN_POWER));
        }
    }
}

/// `10 · log10(power)` of a positive number, to a hundred-thousandth of a dB and without a call, so that the compiler finds
/// vectors.
#[inline(always)]
fn decibels(power: f32) -> f32 {
    const DECIBELS_PER_OCTAVE: f32 = 10.0 * LOG10_2;
    const MANTISSA_BITS: u32 = f32::MANTISSA_DIGITS - 1;
    // From the square root of a half on, so that the rest is as near to 1 as can be.
    let offset = power.to_bits().wrapping_sub(FRAC_1_SQRT_2.to_bits());
    let octaves = ((offset as i32) >> MANTISSA_BITS) as f32;
    let rest = f32::from_bits((offset & ((1 << MANTISSA_BITS) - 1)).wrapping_add(FRAC_1_SQRT_2.to_bits()));
    let ratio = (rest - 1.0) / (rest + 1.0);
    let square = ratio * ratio;
    let series = 1.0 + square * (1.0 / 3.0 + square * (1.0 / 5.0 + square * (1.0 / 7.0 + square * (1.0 / 9.0))));
    octaves * DECIBELS_PER_OCTAVE + ratio * series * (20.0 / LN_10)
}

/// Bins that are summed side by side.
const LANES: usize = 8;

/// The filter bank of `librosa.filters.mel(sr=22050, n_fft=2048, n_mels=128)`: triangles on the Slaney mel scale, each
/// of area one. Bins outside of a triangle are left out.
struct MelFilters {
    bands: Vec<Band>,
}

struct Band {
    first_bin: usize,
    /// Up to a multiple of [`LANES`] with zeros.
    weights: Vec<[f32; LANES]>,
}

impl MelFilters {
    fn new() -> Self {
        let highest_mel = hz_to_mel(f64::from(SAMPLE_RATE) / 2.0);
        let corner = |index: usize| mel_to_hz(highest_mel * index as f64 / (MEL_BANDS + 1) as f64);
        let bin_hz = f64::from(SAMPLE_RATE) / FFT_SIZE as f64;
        let band = |index: usize| {
            let (low, centre, high) = (corner(index), corner(index + 1), corner(index + 2));
            let weight = |bin: usize| {
                let hz = bin as f64 * bin_hz;
                let triangle = ((hz - low) / (centre - low)).min((high - hz) / (high - centre)).max(0.0);
                (triangle * 2.0 / (high - low)) as f32
            };
            let first_bin = (low / bin_hz) as usize;
            let last_bin = ((high / bin_hz).ceil() as usize).min(HALF_WINDOW);
            let weights: Vec<f32> = (first_bin..=last_bin).map(weight).collect();
            let padded = |lanes: &[f32]| std::array::from_fn(|lane| lanes.get(lane).copied().unwrap_or(0.0));
            Band { first_bin, weights: weights.chunks(LANES).map(padded).collect() }
        };
        Self { bands: (0..MEL_BANDS).map(band).collect() }
    }
}

/// Mels are linear in Hz up to here, and logarithmic above.
const LINEAR_UP_TO_HZ: f64 = 1_000.0;
const HZ_PER_LINEAR_MEL: f64 = 200.0 / 3.0;
const MELS_PER_OCTAVE_STEP: f64 = 27.0;
/// `ln 6.4`: the logarithmic part rises by a factor of 6.4 in 27 mels.
const LN_STEP: f64 = 1.856_297_990_365_626_3;

fn hz_to_mel(hz: f64) -> f64 {
    if hz < LINEAR_UP_TO_HZ {
        hz / HZ_PER_LINEAR_MEL
    } else {
        LINEAR_UP_TO_HZ / HZ_PER_LINEAR_MEL + (hz / LINEAR_UP_TO_HZ).ln() / LN_STEP * MELS_PER_OCTAVE_STEP
    }
}

fn mel_to_hz(mel: f64) -> f64 {
    let logarithmic = mel - LINEAR_UP_TO_HZ / HZ_PER_LINEAR_MEL;
    if logarithmic < 0.0 {
        mel * HZ_PER_LINEAR_MEL
    } else {
        LINEAR_UP_TO_HZ * (logarithmic * LN_STEP / MELS_PER_OCTAVE_STEP).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn frames(samples: &[f32], step: usize) -> Vec<MelFrame> {
        let mut frames = Vec::new();
        let mut sink = |frame: &MelFrame| -> Result<(), Infallible> {
            frames.push(*frame);
            Ok(())
        };
        let mut mel = MelSpectrogram::new();
        for part in samples.chunks(step) {
            mel.push(part, &mut sink).unwrap();
        }
        mel.finish(&mut sink).unwrap();
        frames
    }

    #[test]
    fn the_mel_scale_is_slaneys() {
        assert!((hz_to_mel(1_000.0) - 15.0).abs() < 1e-12);
        assert!((hz_to_mel(6_400.0) - 42.0).abs() < 1e-9);
        for hz in [0.0, 60.0, 999.0, 1_000.0, 4_000.0, 11_025.0] {
            assert!((mel_to_hz(hz_to_mel(hz)) - hz).abs() < 1e-8, "{hz}");
        }
        assert!((LN_STEP - 6.4_f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn decibels_are_those_of_the_definition() {
        for step in 0..4_000_u16 {
            let power = 10_f64.powf(f64::from(step) * 0.01 - 20.0) as f32;
            let expected = 10.0 * f64::from(power).log10();
            assert!((f64::from(decibels(power)) - expected).abs() < 1e-5 * expected.abs().max(1.0), "{power}");
        }
    }

    #[test]
    fn there_is_a_frame_for_every_centre_inside() {
        for samples in [0, 1, 919, 920, 1_024, 5_000, 22_050, 22_051] {
            assert_eq!(frames(&vec![0.1; samples], 1_000).len() as u64, frames_in(samples as u64), "{samples}");
        }
    }

    #[test]
    fn how_the_signal_is_cut_does_not_matter() {
        let signal: Vec<f32> = (0..30_000).map(|n| ((n * n) as f32 * 1e-5).sin()).collect();
        let whole = frames(&signal, 30_000);
        assert_eq!(frames(&signal, 1), whole);
        assert_eq!(frames(&signal, 3_001), whole);
    }

    #[test]
    fn silence_is_at_the_floor_and_a_sine_in_its_band() {
        assert!(frames(&[0.0; 22_050], 512).iter().flatten().all(|&level| (level + 100.0).abs() < 1e-4));
        let sine: Vec<f32> = (0..22_050).map(|n| (TAU * 1_000.0 * f64::from(n) / 22_050.0).sin() as f32).collect();
        let frame = frames(&sine, 512)[12];
        let loudest = (0..MEL_BANDS).max_by(|&a, &b| frame[a].total_cmp(&frame[b])).unwrap();
        let highest_mel = hz_to_mel(11_025.0);
        let expected = hz_to_mel(1_000.0) / highest_mel * 129.0 - 1.0;
        assert!((loudest as f64 - expected).abs() <= 0.6, "band {loudest}, expected {expected}");
    }
}
