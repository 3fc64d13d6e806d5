//! The network against its definition, written as plain loops in double precision.

#![allow(clippy::unwrap_used)]

use candle_core::Device;
use chorale_model::{
    Array, Backbone, POOLED_FEATURES, Weights,
    contract::{CHUNK_CELLS, CHUNK_FRAMES, MEL_BANDS, dequantize},
};

const BANDS: usize = 96;
const EPSILON: f64 = 1e-3;

/// `[channel][frame]`
type Plane = Vec<Vec<f64>>;

/// A repeatable sequence of numbers from −1 to 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn array(&mut self, shape: &[usize], value: impl Fn(f32) -> f32) -> Array {
        let count = shape.iter().product();
        Array::new(shape, (0..count).map(|_| value(self.next())).collect()).unwrap()
    }
}

/// A convolution with `taps` taps over time, the first at `-before`, and `width` neighbouring channels.
struct Layer {
    name: &'static str,
    filters: usize,
    before: usize,
    taps: usize,
    width: usize,
}

const FRONT: [Layer; 5] = [
    Layer { name: "front.timbral_low", filters: 204, before: 2, taps: 5, width: 38 },
    Layer { name: "front.timbral_high", filters: 204, before: 2, taps: 5, width: 67 },
    Layer { name: "front.temporal_long", filters: 51, before: 25, taps: 51, width: 1 },
    Layer { name: "front.temporal_medium", filters: 51, before: 12, taps: 26, width: 1 },
    Layer { name: "front.temporal_short", filters: 51, before: 6, taps: 14, width: 1 },
];
const MIDDLE: [Layer; 3] = [
    Layer { name: "mid.0", filters: 64, before: 2, taps: 5, width: 561 },
    Layer { name: "mid.1", filters: 64, before: 2, taps: 5, width: 64 },
    Layer { name: "mid.2", filters: 64, before: 2, taps: 5, width: 64 },
];

fn random_weights() -> Weights {
    let mut noise = Noise(7);
    let mut weights = Weights::default();
    weights.insert("adapter.weight", noise.array(&[BANDS, MEL_BANDS], |value| value / 30.0));
    weights.insert("adapter.bias", noise.array(&[BANDS], |value| value * 5.0));
    insert_norm(&mut weights, &mut noise, "input_norm", 1);
    for layer in FRONT.iter().chain(&MIDDLE) {
        let cells = layer.taps * layer.width;
        let mut kernel =
            noise.array(&[layer.filters, 1, layer.taps, layer.width], |value| value / (cells as f32).sqrt());
        // As in the real weights, a third of the filters has no kernel left.
        let values = kernel.values().iter().enumerate();
        let some_dead = values.map(|(cell, value)| if cell / cells % 3 == 1 { 0.0 } else { *value }).collect();
        kernel = Array::new(kernel.shape(), some_dead).unwrap();
        weights.insert(&format!("{}.conv.weight", layer.name), kernel);
        weights.insert(&format!("{}.conv.bias", layer.name), noise.array(&[layer.filters], |value| value / 2.0));
        insert_norm(&mut weights, &mut noise, &format!("{}.norm", layer.name), layer.filters);
    }
    weights
}

fn insert_norm(weights: &mut Weights, noise: &mut Noise, name: &str, channels: usize) {
    for part in ["weight", "bias", "running_mean"] {
        weights.insert(&format!("{name}.{part}"), noise.array(&[channels], |value| value));
    }
    weights.insert(&format!("{name}.running_var"), noise.array(&[channels], |value| value.abs() + 0.1));
}

fn values(weights: &Weights, name: &str, shape: &[usize]) -> Vec<f64> {
    weights.get(name, shape).unwrap().values().iter().map(|value| f64::from(*value)).collect()
}

/// BatchNorm of one channel, as a function.
fn norm(weights: &Weights, name: &str, channels: usize, channel: usize) -> impl Fn(f64) -> f64 + use<> {
    let part = |part: &str| values(weights, &format!("{name}.{part}"), &[channels])[channel];
    let (weight, bias, mean, variance) = (part("weight"), part("bias"), part("running_mean"), part("running_var"));
    move |value| (value - mean) / (variance + EPSILON).sqrt() * weight + bias
}

/// Convolution, ReLU, BatchNorm and the maximum over all positions of the kernel.
fn convolve(weights: &Weights, layer: &Layer, input: &Plane) -> Plane {
    let shape = [layer.filters, 1, layer.taps, layer.width];
    let kernels = values(weights, &format!("{}.conv.weight", layer.name), &shape);
    let biases = values(weights, &format!("{}.conv.bias", layer.name), &[layer.filters]);
    let mut output = Vec::new();
    for filter in 0..layer.filters {
        let normalize = norm(weights, &format!("{}.norm", layer.name), layer.filters, filter);
        let mut row = vec![f64::NEG_INFINITY; CHUNK_FRAMES];
        for lowest in 0..=input.len() - layer.width {
            let mut sums = vec![biases[filter]; CHUNK_FRAMES];
            for tap in 0..layer.taps {
                for offset in 0..layer.width {
                    let weight = kernels[(filter * layer.taps + tap) * layer.width + offset];
                    for (frame, sum) in sums.iter_mut().enumerate() {
                        let heard = (frame + tap).checked_sub(layer.before);
                        *sum += weight * heard.and_then(|heard| input[lowest + offset].get(heard)).unwrap_or(&0.0);
                    }
                }
            }
            for (cell, sum) in row.iter_mut().zip(sums) {
                *cell = cell.max(normalize(sum.max(0.0)));
            }
        }
        output.push(row);
    }
    output
}

fn pooled_by_definition(weights: &Weights, chunk: &[u8]) -> Vec<f64> {
    let adapter = values(weights, "adapter.weight", &[BANDS, MEL_BANDS]);
    let level = values(weights, "adapter.bias", &[BANDS]);
    let normalize = norm(weights, "input_norm", 1, 0);
    let cell = |band: usize, frame: usize| f64::from(dequantize(chunk[band * CHUNK_FRAMES + frame]));
    let loudness = |band: usize, frame: usize| {
        let decibels: f64 = (0..MEL_BANDS).map(|ours| adapter[band * MEL_BANDS + ours] * cell(ours, frame)).sum();
        normalize((1.0 + 1e4 * 10_f64.powf((decibels + level[band]) / 10.0)).log10())
    };
    let input: Plane = (0..BANDS).map(|band| (0..CHUNK_FRAMES).map(|frame| loudness(band, frame)).collect()).collect();

    let front: Plane = FRONT.iter().flat_map(|layer| convolve(weights, layer, &input)).collect();
    let mut planes = vec![front];
    for (index, layer) in MIDDLE.iter().enumerate() {
        let previous = planes.last().unwrap();
        let mut plane = convolve(weights, layer, previous);
        if index > 0 {
            for (row, previous) in plane.iter_mut().zip(previous) {
                row.iter_mut().zip(previous).for_each(|(cell, previous)| *cell += previous);
            }
        }
        planes.push(plane);
    }
    let pool = |row: &Vec<f64>| {
        [row.iter().copied().fold(f64::NEG_INFINITY, f64::max), row.iter().sum::<f64>() / CHUNK_FRAMES as f64]
    };
    planes.iter().flatten().flat_map(pool).collect()
}

fn random_chunk(seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed);
    (0..CHUNK_CELLS).map(|_| (noise.next() * 127.0 + 128.0) as u8).collect()
}

#[test]
fn matrix_products_are_the_convolutions_of_the_definition() {
    let weights = random_weights();
    let chunk = random_chunk(1);
    let backbone = Backbone::new(&weights, &Device::Cpu).unwrap();
    let pooled = backbone.pooled(&[&chunk]).unwrap().to_vec2::<f32>().unwrap().remove(0);
    let expected = pooled_by_definition(&weights, &chunk);
    assert_eq!((pooled.len(), expected.len()), (POOLED_FEATURES, POOLED_FEATURES));
    for (feature, (found, expected)) in pooled.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error < 1e-4 * expected.abs().max(1.0), "feature {feature}: {found}, by definition {expected}");
    }
}

#[test]
fn a_chunk_has_the_same_features_in_every_batch() {
    let backbone = Backbone::new(&random_weights(), &Device::Cpu).unwrap();
    let chunks: Vec<Vec<u8>> = (0..9).map(random_chunk).collect();
    let batch: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let together = backbone.pooled(&batch).unwrap().to_vec2::<f32>().unwrap();
    for (chunk, expected) in batch.iter().zip(together) {
        assert_eq!(backbone.pooled(&[chunk]).unwrap().to_vec2::<f32>().unwrap(), [expected]);
    }
}
