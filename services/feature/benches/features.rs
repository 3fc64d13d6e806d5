//! The steps from samples to chunks one by one, for ten seconds of audio, beside the bare transforms.
//!
//! `taskset --cpu-list 0 cargo bench --package chorale-feature`. The machine's other work moves times by a tenth and more:
//! compare neighbours in one run.

#![allow(missing_docs, clippy::expect_used, reason = "a benchmark is a program of its own, and may end by panicking")]

use std::convert::Infallible;

use chorale_feature::{Chunker, FeatureError, MelFrame, MelSpectrogram, Resampler};
use chorale_model::contract::{FFT_SIZE, SAMPLE_RATE, frames_in};
use divan::{Bencher, black_box};
use rustfft::{FftPlanner, num_complex::Complex};

const SECONDS: u32 = 10;

fn main() {
    divan::main();
}

/// Numbers that look like noise, between −1 and 1.
fn noise(sample_rate: u32) -> Vec<f32> {
    (0..SECONDS * sample_rate)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

fn frames(samples: &[f32], mut sink: impl FnMut(&MelFrame)) {
    let mut mel = MelSpectrogram::new();
    let mut take = |frame: &MelFrame| -> Result<(), Infallible> {
        sink(frame);
        Ok(())
    };
    let Ok(()) = mel.push(samples, &mut take);
    let Ok(()) = mel.finish(&mut take);
}

/// From samples at this rate to those of the contract.
#[divan::bench(args = [44_100, 48_000])]
fn resampling(bencher: Bencher<'_, '_>, sample_rate: u32) {
    let samples = noise(sample_rate);
    bencher.bench_local(|| {
        let mut ready = 0;
        let mut count = |samples: &[f32]| -> Result<(), FeatureError> {
            ready += samples.len();
            Ok(())
        };
        let mut resampler = Resampler::new(sample_rate).expect("a rate that there is");
        resampler.push(black_box(&samples), &mut count).expect("samples are taken");
        resampler.finish(&mut count).expect("samples are taken");
        ready
    });
}

/// As many transforms of as many points as frames need, and nothing else.
#[divan::bench]
fn bare_transforms(bencher: Bencher<'_, '_>) {
    let fft = FftPlanner::<f32>::new().plan_fft_forward(FFT_SIZE / 2);
    let mut points = vec![Complex::new(0.5, -0.5); FFT_SIZE / 2];
    let mut scratch = vec![Complex::default(); fft.get_inplace_scratch_len()];
    let frames = frames_in(u64::from(SECONDS * SAMPLE_RATE));
    bencher.bench_local(|| {
        for _ in 0..frames {
            points.fill(Complex::new(0.5, -0.5));
            fft.process_with_scratch(black_box(&mut points), &mut scratch);
        }
    });
}

#[divan::bench]
fn mel_frames(bencher: Bencher<'_, '_>) {
    let samples = noise(SAMPLE_RATE);
    bencher.bench_local(|| {
        let mut count = 0;
        frames(black_box(&samples), |_| count += 1);
        count
    });
}

#[divan::bench]
fn chunks_of_frames(bencher: Bencher<'_, '_>) {
    let mut known = Vec::new();
    frames(&noise(SAMPLE_RATE), |frame| known.push(*frame));
    bencher.bench_local(|| {
        let mut chunker = Chunker::new();
        let voiced =
            known.iter().filter_map(|frame| Some(chunker.push(frame)?.quantize())).filter(|chunk| !chunk.silent);
        voiced.count()
    });
}
