//! The network against its definition, written as plain loops in double precision.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use chorale_model::{
    Architecture, Array, Classifier, DeviceSpec, Manifest, ModelFolder, Weights,
    contract::{CHUNK_CELLS, CHUNK_FRAMES, MEL_BANDS, dequantize, feature_id},
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

/// A convolution with `taps` taps over time, the first at `-before`, and `width` neighbouring bands.
struct Layer {
    name: &'static str,
    filters: usize,
    before: usize,
    taps: usize,
    width: usize,
}

/// The front end, with timbral filters of so many taps.
fn front_layers(short_taps: usize) -> [Layer; 5] {
    let before = short_taps / 2;
    [
        Layer { name: "front.timbral_low", filters: 3, before, taps: short_taps, width: 38 },
        Layer { name: "front.timbral_high", filters: 2, before, taps: short_taps, width: 67 },
        Layer { name: "front.temporal_long", filters: 2, before: 25, taps: 51, width: 1 },
        Layer { name: "front.temporal_medium", filters: 2, before: 12, taps: 26, width: 1 },
        Layer { name: "front.temporal_short", filters: 3, before: 6, taps: 14, width: 1 },
    ]
}

const CHANNELS: usize = 12;
const MEMBERS: usize = 2;
const LABELS: usize = 3;
const MID: usize = 64;
const POOLED: usize = 2 * (CHANNELS + 3 * MID);
const EMBEDDING: usize = 200;

/// What differs between the two shapes of an ensemble.
#[derive(Clone, Copy)]
struct Shape {
    architecture: Architecture,
    /// Every which frame the front end answers at.
    step: usize,
    /// Taps of its timbral filters.
    short_taps: usize,
    frames: usize,
    frames_per_second: f64,
    taps: usize,
}

const SHAPES: [Shape; 2] = [
    Shape {
        architecture: Architecture::Ensemble,
        step: 1,
        short_taps: 5,
        frames: 248,
        frames_per_second: 62.5,
        taps: 7,
    },
    Shape { architecture: Architecture::Small, step: 2, short_taps: 3, frames: 96, frames_per_second: 24.0, taps: 3 },
];

fn random_weights(shape: Shape) -> Weights {
    let mut noise = Noise(7);
    let mut weights = Weights::default();
    weights.insert("adapter.weight", noise.array(&[BANDS, MEL_BANDS], |value| value / 30.0));
    weights.insert("adapter.bias", noise.array(&[BANDS], |value| value * 5.0));
    insert_norm(&mut weights, &mut noise, "input_norm", 1);
    for layer in &front_layers(shape.short_taps) {
        let cells = layer.taps * layer.width;
        let kernel = noise.array(&[layer.filters, 1, layer.taps, layer.width], |value| value / (cells as f32).sqrt());
        weights.insert(&format!("{}.conv.weight", layer.name), kernel);
        weights.insert(&format!("{}.conv.bias", layer.name), noise.array(&[layer.filters], |value| value / 2.0));
        insert_norm(&mut weights, &mut noise, &format!("{}.norm", layer.name), layer.filters);
    }
    for (name, size) in (0..MEMBERS).flat_map(|member| member_tensors(shape, member)) {
        let inputs = size.iter().skip(1).product::<usize>() as f32;
        weights.insert(&name, noise.array(&size, |value| value / inputs.sqrt()));
    }
    weights.insert("music.weight", noise.array(&[1, POOLED], |value| value / (POOLED as f32).sqrt()));
    weights.insert("music.bias", noise.array(&[1], |value| value));
    weights
}

fn member_tensors(shape: Shape, member: usize) -> BTreeMap<String, Vec<usize>> {
    let mut table = BTreeMap::new();
    for layer in 0..3 {
        let inputs = if layer == 0 { CHANNELS + 1 } else { MID };
        table.insert(format!("member.{member}.mid.{layer}.weight"), vec![MID, inputs, 1, shape.taps]);
        for vector in ["bias", "norm.scale", "norm.shift"] {
            table.insert(format!("member.{member}.mid.{layer}.{vector}"), vec![MID]);
        }
    }
    for (name, size) in [
        ("pool.scale", vec![POOLED]),
        ("pool.shift", vec![POOLED]),
        ("dense.weight", vec![EMBEDDING, POOLED]),
        ("dense.bias", vec![EMBEDDING]),
        ("dense_norm.scale", vec![EMBEDDING]),
        ("dense_norm.shift", vec![EMBEDDING]),
        ("genres.weight", vec![LABELS, EMBEDDING]),
        ("genres.bias", vec![LABELS]),
        ("shortcut.weight", vec![LABELS, POOLED]),
    ] {
        table.insert(format!("member.{member}.{name}"), size);
    }
    table
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

/// Convolution, ReLU, BatchNorm and the maximum over the positions of the kernel, at every `step`th frame.
fn front(weights: &Weights, layer: &Layer, step: usize, input: &Plane) -> Plane {
    let shape = [layer.filters, 1, layer.taps, layer.width];
    let kernels = values(weights, &format!("{}.conv.weight", layer.name), &shape);
    let biases = values(weights, &format!("{}.conv.bias", layer.name), &[layer.filters]);
    let mut output = Vec::new();
    for filter in 0..layer.filters {
        let normalize = norm(weights, &format!("{}.norm", layer.name), layer.filters, filter);
        let mut row = vec![f64::NEG_INFINITY; CHUNK_FRAMES / step];
        for lowest in 0..=input.len() - layer.width {
            for (answer, cell) in row.iter_mut().enumerate() {
                let mut sum = biases[filter];
                for tap in 0..layer.taps {
                    let Some(heard) = (answer * step + tap).checked_sub(layer.before) else { continue };
                    for offset in 0..layer.width {
                        let weight = kernels[(filter * layer.taps + tap) * layer.width + offset];
                        sum += weight * input[lowest + offset].get(heard).unwrap_or(&0.0);
                    }
                }
                *cell = cell.max(normalize(sum.max(0.0)));
            }
        }
        output.push(row);
    }
    output
}

/// Every row at the members' frame rate, by linear interpolation, and a row of ones.
fn interpolate(shape: Shape, channels: &Plane) -> Plane {
    let mut output: Plane = Vec::new();
    for row in channels {
        let at = |frame: usize| {
            let position = frame as f64 / shape.frames_per_second * 24.0 / shape.step as f64;
            let position = position.min((row.len() - 1) as f64);
            let (before, share) = (position as usize, position.fract());
            row[before] * (1.0 - share) + row.get(before + 1).unwrap_or(&0.0) * share
        };
        output.push((0..shape.frames).map(at).collect());
    }
    output.push(vec![1.0; shape.frames]);
    output
}

/// Convolution over time, ReLU, scale and shift.
fn middle(weights: &Weights, shape: Shape, name: &str, input: &Plane) -> Plane {
    let kernels = values(weights, &format!("{name}.weight"), &[MID, input.len(), 1, shape.taps]);
    let [bias, scale, shift] =
        ["bias", "norm.scale", "norm.shift"].map(|part| values(weights, &format!("{name}.{part}"), &[MID]));
    let answer = |filter: usize, frame: usize| {
        let mut sum = bias[filter];
        for (channel, row) in input.iter().enumerate() {
            for tap in 0..shape.taps {
                let Some(heard) = (frame + tap).checked_sub(shape.taps / 2) else { continue };
                sum += kernels[(filter * input.len() + channel) * shape.taps + tap] * row.get(heard).unwrap_or(&0.0);
            }
        }
        sum.max(0.0) * scale[filter] + shift[filter]
    };
    (0..MID).map(|filter| (0..shape.frames).map(|frame| answer(filter, frame)).collect()).collect()
}

fn dense(weights: &Weights, name: &str, outputs: usize, input: &[f64]) -> Vec<f64> {
    let matrix = values(weights, &format!("{name}.weight"), &[outputs, input.len()]);
    matrix.chunks(input.len()).map(|row| row.iter().zip(input).map(|(weight, input)| weight * input).sum()).collect()
}

/// What the network is to make of a chunk.
struct Expected {
    /// The logits of the labels.
    genres: Vec<f64>,
    /// The log-odds of being music.
    music: f64,
    /// What the genres are read from, member by member.
    embedding: Vec<f64>,
}

fn by_definition(weights: &Weights, shape: Shape, chunk: &[u8]) -> Expected {
    let adapter = values(weights, "adapter.weight", &[BANDS, MEL_BANDS]);
    let level = values(weights, "adapter.bias", &[BANDS]);
    let normalize = norm(weights, "input_norm", 1, 0);
    let cell = |band: usize, frame: usize| f64::from(dequantize(chunk[band * CHUNK_FRAMES + frame]));
    let loudness = |band: usize, frame: usize| {
        let decibels: f64 = (0..MEL_BANDS).map(|ours| adapter[band * MEL_BANDS + ours] * cell(ours, frame)).sum();
        normalize((1.0 + 1e4 * 10_f64.powf((decibels + level[band]) / 10.0)).log10())
    };
    let input: Plane = (0..BANDS).map(|band| (0..CHUNK_FRAMES).map(|frame| loudness(band, frame)).collect()).collect();
    let channels: Plane =
        front_layers(shape.short_taps).iter().flat_map(|layer| front(weights, layer, shape.step, &input)).collect();
    let channels = interpolate(shape, &channels);

    let (mut mean, mut embeddings) = (vec![0.0; LABELS], Vec::new());
    let mut music = values(weights, "music.bias", &[1])[0];
    for member in 0..MEMBERS {
        let name = |name: &str| format!("member.{member}.{name}");
        let mut planes = vec![channels.clone()];
        for layer in 0..3 {
            let previous = planes.last().unwrap();
            let mut plane = middle(weights, shape, &name(&format!("mid.{layer}")), previous);
            if layer > 0 {
                for (row, previous) in plane.iter_mut().zip(previous) {
                    row.iter_mut().zip(previous).for_each(|(cell, previous)| *cell += previous);
                }
            }
            planes.push(plane);
        }
        planes[0].pop();
        let rows: Vec<&Vec<f64>> = planes.iter().flatten().collect();
        let maxima = rows.iter().map(|row| row.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        let means = rows.iter().map(|row| row.iter().sum::<f64>() / shape.frames as f64);
        let vector = |part: &str, size: usize| values(weights, &name(part), &[size]);
        let (scale, shift) = (vector("pool.scale", POOLED), vector("pool.shift", POOLED));
        let pooled: Vec<f64> = maxima
            .chain(means)
            .zip(scale.iter().zip(shift))
            .map(|(cell, (scale, shift))| cell * scale + shift)
            .collect();
        if member == 0 {
            music += dense(weights, "music", 1, &pooled)[0];
        }
        let (scale, shift) = (vector("dense_norm.scale", EMBEDDING), vector("dense_norm.shift", EMBEDDING));
        let embedding: Vec<f64> = (dense(weights, &name("dense"), EMBEDDING, &pooled).iter())
            .zip(vector("dense.bias", EMBEDDING))
            .zip(scale.iter().zip(shift))
            .map(|((sum, bias), (scale, shift))| (sum + bias).max(0.0) * scale + shift)
            .collect();
        let answers = dense(weights, &name("genres"), LABELS, &embedding);
        let shortcut = dense(weights, &name("shortcut"), LABELS, &pooled);
        for (mean, (answer, (shortcut, bias))) in
            mean.iter_mut().zip(answers.iter().zip(shortcut.iter().zip(vector("genres.bias", LABELS))))
        {
            *mean += (answer + shortcut + bias) / MEMBERS as f64;
        }
        embeddings.extend(embedding);
    }
    Expected { genres: mean, music, embedding: embeddings }
}

fn classifier(weights: &Weights, shape: Shape) -> Classifier {
    let manifest = Manifest {
        name: "random".to_owned(),
        version: String::new(),
        labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
        feature_id: feature_id().to_owned(),
        architecture: shape.architecture.name().to_owned(),
        temperature: 1.0,
        unknown_below: 0.0,
        metrics: BTreeMap::new(),
        learnt_splits: Vec::new(),
        provenance: BTreeMap::new(),
        licences: Vec::new(),
    };
    let folder = ModelFolder::new(manifest, weights.clone(), String::new()).unwrap();
    Classifier::load(&folder, DeviceSpec::Cpu).unwrap()
}

fn random_chunk(seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed);
    (0..CHUNK_CELLS).map(|_| (noise.next() * 127.0 + 128.0) as u8).collect()
}

#[test]
fn matrix_products_are_the_convolutions_of_the_definition() {
    for shape in SHAPES {
        let weights = random_weights(shape);
        let chunk = random_chunk(1);
        let classifier = classifier(&weights, shape);
        let logits = classifier.logits(&[&chunk]).unwrap().remove(0);
        let expected = by_definition(&weights, shape, &chunk);
        assert_close(&logits.genres, &expected.genres, &format!("{:?}", shape.architecture));
        assert_close(&[logits.music], &[expected.music], &format!("music, {:?}", shape.architecture));
        let answer = classifier.answers(&[&chunk], true).unwrap().remove(0);
        assert_close(&answer.embedding, &expected.embedding, &format!("embedding, {:?}", shape.architecture));
    }
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let error = (f64::from(*found) - expected).abs();
        assert!(error < 1e-4 * expected.abs().max(1.0), "{what}: {found}, {expected}");
    }
}

#[test]
fn a_chunk_has_the_same_logits_in_every_batch() {
    let classifier = classifier(&random_weights(SHAPES[0]), SHAPES[0]);
    let chunks: Vec<Vec<u8>> = (0..9).map(random_chunk).collect();
    let batch: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let together = classifier.logits(&batch).unwrap();
    for (chunk, expected) in batch.iter().zip(together) {
        assert_eq!(classifier.logits(&[chunk]).unwrap(), [expected]);
    }
}

#[test]
fn weights_that_cannot_tell_music_take_everything_for_it() {
    let mut weights = random_weights(SHAPES[1]);
    let chunk = random_chunk(1);
    let expected = classifier(&weights, SHAPES[1]).logits(&[&chunk]).unwrap().remove(0);
    assert!(expected.music.is_finite());
    weights.remove("music.weight");
    weights.remove("music.bias");
    let found = classifier(&weights, SHAPES[1]).logits(&[&chunk]).unwrap().remove(0);
    assert_eq!((found.genres, found.music), (expected.genres, f32::INFINITY));
}
