//! The log-mel spectrogram, one frame at a time.

use chorale_model::contract::{FFT_SIZE, MEL_BANDS, MIN_POWER, SAMPLE_RATE, frame_centre, frames_in};
use pulp::{Arch, Simd, WithSimd};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
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
    /// Of [`HALF_WINDOW`] points: see [`Powers`].
    fft: Arc<dyn Fft<f32>>,
    turns: Vec<Complex<f32>>,
    halves: [Vec<Complex<f32>>; 2],
    window: Vec<f32>,
    filters: MelFilters,
    /// Samples that frames to come will look at; the first one has index `start − HALF_WINDOW` in the signal.
    pending: Vec<f32>,
    start: u64,
    samples: u64,
    next_frame: u64,
    /// The samples under the window, two to a point, and then their transform; the first point once more at the end.
    points: Vec<Complex<f32>>,
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
        let fft = FftPlanner::new().plan_fft_forward(HALF_WINDOW);
        let turn = |bin: usize| {
            let (sin, cos) = (TAU * bin as f64 / FFT_SIZE as f64).sin_cos();
            Complex::new(-sin as f32, -cos as f32)
        };
        let hann = |n: usize| (0.5 - 0.5 * (TAU * n as f64 / FFT_SIZE as f64).cos()) as f32;
        Self {
            arch: Arch::new(),
            turns: (0..HALF_WINDOW / 2).map(turn).collect(),
            halves: [(); 2].map(|()| vec![Complex::default(); HALF_WINDOW / 2]),
            window: (0..FFT_SIZE).map(hann).collect(),
            filters: MelFilters::new(),
            pending: vec![0.0; HALF_WINDOW],
            start: 0,
            samples: 0,
            next_frame: 0,
            points: vec![Complex::default(); HALF_WINDOW + 1],
            scratch: vec![Complex::default(); fft.get_inplace_scratch_len()],
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
        self.arch.dispatch(Weigh { samples, window: &self.window, points: &mut self.points });
        if let [points @ .., last] = self.points.as_mut_slice() {
            self.fft.process_with_scratch(points, &mut self.scratch);
            *last = points.first().copied().unwrap_or_default();
        }
        let (halves, power) = (&mut self.halves, &mut self.power);
        self.arch.dispatch(Powers { points: &self.points, turns: &self.turns, halves, power });
        self.arch.dispatch(Levels { power: &self.power, filters: &self.filters, frame: &mut self.frame });
        sink(&self.frame)
    }

    fn forget(&mut self) {
        let passed = (frame_centre(self.next_frame) - self.start) as usize;
        let passed = passed.min(self.pending.len());
        self.pending.drain(..passed);
        self.start += passed as u64;
    }
}

/// Samples under a window: even ones are the real parts of points, odd ones the imaginary parts.
struct Weigh<'a> {
    samples: &'a [f32],
    window: &'a [f32],
    points: &'a mut [Complex<f32>],
}

impl WithSimd for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let pairs = self.samples.as_chunks::<2>().0.iter().zip(self.window.as_chunks::<2>().0);
        for (point, ([even, odd], [even_weight, odd_weight])) in self.points.iter_mut().zip(pairs) {
            *point = Complex::new(even * even_weight, odd * odd_weight);
        }
    }
}

/// The power spectrum of real samples, from the transform `Z` of half as many points that hold two samples each.
///
/// With `N` points, `Z[k]` and the conjugate of `Z[N − k]` are the sum and the difference of the transforms of even samples,
/// `E`, and of odd ones, `i·O`. The samples' own transform is `E + W·O` in bin `k` and the conjugate of `E − W·O` in bin
/// `N − k`, where `W` is `exp(−πi·k/N)`. A library for real transforms does the same; here it is one loop with the squares.
struct Powers<'a> {
    /// `Z[0]` to `Z[N]`, which is `Z[0]` again.
    points: &'a [Complex<f32>],
    /// `−i·W` of the first half of the bins.
    turns: &'a [Complex<f32>],
    /// Room for half of the bins, twice.
    halves: &'a mut [Vec<Complex<f32>>; 2],
    power: &'a mut [f32],
}

impl WithSimd for Powers<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { points, turns, halves: [low_half, high_half], power } = self;
        let (low, high) = points.split_at(turns.len());
        for (mirrored, point) in high_half.iter_mut().zip(high.iter().rev()) {
            *mirrored = *point;
        }
        let lows = S::as_simd_c32s(low).0.iter().zip(S::as_mut_simd_c32s(low_half).0);
        let highs = S::as_mut_simd_c32s(high_half).0.iter_mut().zip(S::as_simd_c32s(turns).0);
        for ((low, low_power), (high, turn)) in lows.zip(highs) {
            let mirrored = simd.conj_c32s(*high);
            let even = simd.add_c32s(*low, mirrored);
            let odd = simd.mul_c32s(*turn, simd.sub_c32s(*low, mirrored));
            *low_power = simd.abs2_c32s(simd.add_c32s(even, odd));
            *high = simd.abs2_c32s(simd.sub_c32s(even, odd));
        }
        // Even and odd parts are halves of these sums, and their squares a quarter.
        let (low_power, high_power) = power.split_at_mut(turns.len());
        for (power, low) in low_power.iter_mut().zip(&*low_half) {
            *power = 0.25 * low.re;
        }
        if let ([middle_power, high_power @ ..], Some(middle)) = (high_power, high.first()) {
            *middle_power = middle.norm_sqr();
            for (power, high) in high_power.iter_mut().zip(high_half.iter().rev()) {
                *power = 0.25 * high.re;
            }
        }
    }
}

/// A power spectrum as levels of mel bands.
struct Levels<'a> {
    power: &'a [f32],
    filters: &'a MelFilters,
    frame: &'a mut MelFrame,
}

impl WithSimd for Levels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (level, band) in self.frame.iter_mut().zip(&self.filters.bands) {
            let bins = self.power.get(band.first_bin..).unwrap_or_default();
            // Sums side by side, so that the compiler finds vectors.
            let mut sums = [0.0; LANES];
            for (weights, bins) in band.weights.iter().zip(bins.as_chunks::<LANES>().0) {
                for (sum, (weight, bin)) in sums.iter_mut().zip(weights.iter().zip(bins)) {
                    *sum += weight * bin;
                }
            }
            for half in [LANES / 2, LANES / 4, LANES / 8] {
                for lane in 0..half {
                    sums[lane] += sums[lane + half];
                }
            }
            *level = sums[0];
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

/// A frequency on the Slaney mel scale, as `librosa.hz_to_mel` has it. The centres of the bands are equally far apart on it.
#[must_use]
pub fn hz_to_mel(hz: f64) -> f64 {
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
        // librosa.hz_to_mel
        for (hz, mel) in [(100.0, 1.5), (2_000.0, 25.081_880_16), (10_000.0, 48.491_280_94), (11_025.0, 49.910_594_48)]
        {
            assert!((hz_to_mel(hz) - mel).abs() < 1e-8, "{hz}");
        }
    }

    #[test]
    fn powers_are_those_of_the_transform_by_definition() {
        let mut mel = MelSpectrogram::new();
        let samples: Vec<f32> = (0..FFT_SIZE).map(|n| ((n * n % 9_973) as f32 / 5_000.0 - 1.0).powi(3)).collect();
        mel.window.fill(1.0);
        mel.pending.clone_from(&samples);
        mel.compute(&mut |_| Ok::<(), Infallible>(())).unwrap();
        let expected = |bin: usize| {
            let angle = |n: usize| -TAU * ((n * bin) % FFT_SIZE) as f64 / FFT_SIZE as f64;
            let sum = |part: fn(f64) -> f64| -> f64 {
                samples.iter().enumerate().map(|(n, sample)| f64::from(*sample) * part(angle(n))).sum()
            };
            sum(f64::cos).powi(2) + sum(f64::sin).powi(2)
        };
        for bin in (0..=HALF_WINDOW).step_by(13).chain([1, 511, 512, 513, 1_007, 1_008, 1_023]) {
            let (found, expected) = (f64::from(mel.power[bin]), expected(bin));
            assert!((found - expected).abs() < 1e-3 + 1e-4 * expected, "bin {bin}: {found} {expected}");
        }
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
