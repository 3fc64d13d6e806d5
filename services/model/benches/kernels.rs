//! The network's inner loops one by one, on shapes of the default model, beside what they replace.
//!
//! `cargo bench --package chorale-model`, on one core: `RAYON_NUM_THREADS=1 taskset --cpu-list 0 cargo bench …`. The machine's
//! other work moves times by a tenth and more: compare neighbours in one run.

#![allow(missing_docs, clippy::expect_used, reason = "a benchmark is a program of its own, and may end by panicking")]

// The kernels are no part of the crate's face: this compiles them once more.
#[allow(dead_code, unused_imports, reason = "the network uses the rest, and tests need them")]
#[path = "../src/kernels/mod.rs"]
mod kernels;

use divan::{Bencher, black_box, counter::ItemsCount};
use kernels::{
    Activations, Added, Bank, Instructions, Interpolation, Loudness, Panels, Plane, Pool, ROWS, SpectralBank, Spectrum,
    TimeConvolution, dots,
};

/// Bands that the filters see, and frames of a chunk.
const BANDS: usize = 96;
const FRAMES: usize = 96;
/// Frames that the members hear, and channels of a layer.
const HEARD: usize = 250;
const CHANNELS: usize = 64;
const POOLED: usize = 512;

fn main() {
    divan::main();
}

/// Numbers that look like noise, between −1 and 1.
fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index * 7_919 % 2_003) as f32 / 1_001.5 - 1.0).collect()
}

fn plane() -> Plane {
    Plane::of(&noise(BANDS * FRAMES), FRAMES, 1)
}

/// Filters of `taps` frames and `rows` bands.
fn filters(count: usize, taps: usize, rows: usize) -> Vec<Vec<f32>> {
    vec![noise(taps * rows); count]
}

#[divan::bench]
fn loudness(bencher: Bencher<'_, '_>) {
    let (instructions, cells) = (Instructions::detect(), noise(BANDS * FRAMES));
    let loudness = Loudness { scale: 0.5, shift: 0.1 };
    bencher.counter(ItemsCount::new(cells.len())).with_inputs(|| cells.clone()).bench_local_refs(|cells| {
        loudness.of_decibels(instructions, cells);
    });
}

#[divan::bench]
fn interpolation(bencher: Bencher<'_, '_>) {
    let places: Vec<(usize, f32)> = (0..HEARD).map(|frame| (frame * FRAMES / HEARD, 0.4)).collect();
    let (interpolation, known) = (Interpolation::new(FRAMES, &places), noise(FRAMES * CHANNELS));
    bencher.bench_local(|| interpolation.of(Instructions::detect(), black_box(&known), CHANNELS).len());
}

#[divan::bench]
fn pool(bencher: Bencher<'_, '_>) {
    let values = noise(HEARD * CHANNELS);
    bencher.bench_local(|| Pool::of(Instructions::detect(), black_box(&values), CHANNELS));
}

/// Filters over time that see one band each.
#[divan::bench(args = [13, 26, 52])]
fn temporal_filters(bencher: Bencher<'_, '_>, taps: usize) {
    let bank = Bank::new(&filters(8, taps, 1), [taps, 1], taps / 2, BANDS, 1);
    let plane = plane();
    let products = 8 * BANDS * FRAMES * taps;
    bencher
        .counter(ItemsCount::new(products))
        .bench_local(|| bank.greatest(Instructions::detect(), black_box(&plane)).len());
}

/// Filters over many bands: by transforms, and by sliding.
#[divan::bench_group]
mod timbral_filters {
    use super::*;

    const ROWS_SEEN: [usize; 2] = [38, 67];
    const TAPS: usize = 5;

    #[divan::bench(args = ROWS_SEEN)]
    fn by_transforms(bencher: Bencher<'_, '_>, rows: usize) {
        let bank = SpectralBank::new(&filters(8, TAPS, rows), [TAPS, rows], TAPS / 2, 1);
        let (spectrum, plane) = (Spectrum::new(1), plane());
        bencher.bench_local(|| {
            let spectrum = spectrum.of(Instructions::detect(), black_box(&plane));
            bank.greatest(Instructions::detect(), &spectrum).len()
        });
    }

    #[divan::bench(args = ROWS_SEEN)]
    fn by_sliding(bencher: Bencher<'_, '_>, rows: usize) {
        let bank = Bank::new(&filters(8, TAPS, rows), [TAPS, rows], TAPS / 2, BANDS, 1);
        let plane = plane();
        bencher.bench_local(|| bank.greatest(Instructions::detect(), black_box(&plane)).len());
    }
}

/// A layer over time of as many channels as it looks at.
#[divan::bench(args = [3, 7])]
fn layer_over_time(bencher: Bencher<'_, '_>, taps: usize) {
    let same = || vec![0.5; CHANNELS];
    let activations = Activations { bias: same(), scale: same(), shift: same() };
    let layer =
        TimeConvolution::new(&noise(CHANNELS * CHANNELS * taps), taps, activations).expect("taps that there are");
    let input = noise(HEARD * CHANNELS);
    let products = HEARD * CHANNELS * CHANNELS * taps;
    bencher
        .counter(ItemsCount::new(products))
        .bench_local(|| layer.forward(Instructions::detect(), black_box(&input), Added::Shortcut(&input)).len());
}

/// Matrix products: with weights laid out for them, and by the library that candle uses.
#[divan::bench_group]
mod product {
    use super::*;

    const LEFT_ROWS: usize = 42 * ROWS;
    const COUNT: usize = LEFT_ROWS * CHANNELS * CHANNELS;

    #[divan::bench]
    fn of_panels(bencher: Bencher<'_, '_>) {
        let (left, panels) = (noise(LEFT_ROWS * CHANNELS), Panels::new(&noise(CHANNELS * CHANNELS), CHANNELS));
        let mut product = vec![0.0; LEFT_ROWS * panels.columns()];
        bencher.counter(ItemsCount::new(COUNT)).bench_local(|| {
            panels.product(Instructions::detect(), black_box(&left), CHANNELS, &mut product);
            black_box(&product);
        });
    }

    #[divan::bench]
    fn of_candle(bencher: Bencher<'_, '_>) {
        use candle_core::{Device, Tensor};

        let tensor = |rows: usize| Tensor::from_vec(noise(rows * CHANNELS), (rows, CHANNELS), &Device::Cpu);
        let (left, right) = (tensor(LEFT_ROWS).expect("a matrix"), tensor(CHANNELS).expect("a matrix"));
        bencher.counter(ItemsCount::new(COUNT)).bench_local(|| left.matmul(black_box(&right)).expect("shapes fit"));
    }
}

#[divan::bench]
fn dot_products(bencher: Bencher<'_, '_>) {
    let (matrix, vector) = (noise(200 * POOLED), noise(POOLED));
    let products = matrix.len();
    bencher
        .counter(ItemsCount::new(products))
        .bench_local(|| dots(Instructions::detect(), black_box(&matrix), &vector));
}
