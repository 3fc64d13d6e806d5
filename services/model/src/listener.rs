//! An ensemble on the CPU, one chunk at a time: what [`Ensemble`](crate::Ensemble) defines, through the [kernels](crate::kernels).
//!
//! The front end's answers are `[channel][frame]`, since few filters look at many frames; from there on it is
//! `[frame][channel]`, so that a kernel over time sees neighbouring cells. The first layer of a member is linear up to its
//! bias, as is the interpolation before it, so that the products are taken at the front end's frame rate and interpolated
//! after it: there are fewer.

use rayon::prelude::*;

use crate::{
    ModelError, Result, Weights,
    architecture::{BANDS, EMBEDDING_FEATURES, EnsembleShape, FrontPart, MID_CHANNELS, MID_LAYERS},
    bands::Bands,
    contract::{CHUNK_FRAMES, MEL_BANDS, dequantize},
    ensemble::{
        MUSIC_BIAS, MUSIC_WEIGHT, front_channels, interpolated_frames, member_tensor, members, pooled_features,
        tells_music,
    },
    filter_bank::Filter,
    front::part_filters,
    kernels::{
        Activation, Bank, Instructions, Loudness, Panels, Plane, ROWS, SpectralBank, Spectrum, TimeConvolution, dots,
    },
};

/// An ensemble, laid out for the CPU.
pub(crate) struct Listener {
    instructions: Instructions,
    decibels: Vec<f32>,
    bands: Bands,
    loudness: Loudness,
    step: usize,
    spectrum: Spectrum,
    parts: Vec<Part>,
    front: Front,
    members: Vec<Member>,
    /// The weight of every pooled feature of the first member, and the bias.
    music: Option<(Vec<f32>, f32)>,
}

/// Filters of one shape in the front end.
struct Part {
    bank: Filters,
    /// What follows each filter of the bank, in its order.
    live: Vec<(usize, Activation)>,
    /// The channels of the filters that answer with the same whatever they hear, and what they answer.
    constant: Vec<(usize, f32)>,
}

enum Filters {
    /// Of one band.
    Temporal(Bank),
    /// Of many.
    Timbral(SpectralBank),
}

/// What the front end hears.
struct Planes {
    bands: Plane,
    spectrum: Plane,
}

/// The shape of what comes from the front end, and goes to the members.
struct Front {
    channels: usize,
    /// Frames that the front end answers for.
    heard: usize,
    /// For every frame of the members, the frame before it and how far it lies behind that one.
    interpolation: Vec<(usize, f32)>,
}

struct Member {
    first: FirstLayer,
    /// Layers that look at the one before them, to which they are added.
    others: Vec<TimeConvolution>,
    /// What normalises the pooled features: scale and shift.
    pool: [Vec<f32>; 2],
    dense: Dense,
    dense_norm: [Vec<f32>; 2],
    genres: Dense,
    /// `[labels][pooled features]`
    shortcut: Vec<f32>,
}

/// The layer that looks at the front end.
struct FirstLayer {
    reach: Reach,
    /// `[channels][tap, output]`
    weights: Panels,
    /// What the channel that is 1 everywhere adds: `[frames][output]`.
    constant: Vec<f32>,
    activations: Vec<Activation>,
}

/// How far a kernel reaches in time.
#[derive(Clone, Copy)]
struct Reach {
    before: usize,
    taps: usize,
}

struct Dense {
    /// `[outputs][inputs]`
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Listener {
    /// Lays out the ensemble of `weights`, with `labels` outputs.
    ///
    /// # Errors
    /// Where a tensor is missing or has a wrong shape.
    pub(crate) fn new(
        weights: &Weights,
        shape: EnsembleShape,
        labels: usize,
        instructions: Instructions,
    ) -> Result<Self> {
        let (scale, shift) = weights.normalization("input_norm", 1)?;
        let channels = front_channels(weights)?;
        let front =
            Front { channels, heard: CHUNK_FRAMES / shape.front.step, interpolation: interpolated_frames(shape) };
        let mut first_channel = 0;
        let parts = shape.front.parts().map(|part| {
            let filters = part_filters(weights, part)?;
            let laid_out = Part::new(&filters, part, first_channel, shape.front.step);
            first_channel += filters.len();
            Ok(laid_out)
        });
        let music = if tells_music(weights) {
            let weight = weights.get(MUSIC_WEIGHT, &[1, pooled_features(channels)])?.values().to_vec();
            Some((weight, weights.get(MUSIC_BIAS, &[1])?.values().iter().sum()))
        } else {
            None
        };
        Ok(Self {
            instructions,
            decibels: (0..=u8::MAX).map(dequantize).collect(),
            bands: Bands::new(weights, &candle_core::Device::Cpu)?,
            loudness: Loudness { scale: scale.iter().sum(), shift: shift.iter().sum() },
            step: shape.front.step,
            spectrum: Spectrum::new(shape.front.step),
            parts: parts.collect::<Result<_>>()?,
            members: (0..members(weights)?)
                .map(|member| Member::new(weights, member, shape, labels, channels))
                .collect::<Result<_>>()?,
            front,
            music,
        })
    }

    /// The logits of a chunk of the feature contract, and the log-odds of being music, if the weights know.
    pub(crate) fn listen(&self, chunk: &[u8]) -> Vec<f32> {
        let channels = self.hear(chunk);
        let answers: Vec<(Vec<f32>, Vec<f32>)> = self
            .members
            .par_iter()
            .map(|member| {
                let features = member.features(self.instructions, &self.front, &channels);
                let logits = member.answer(self.instructions, &features);
                (features, logits)
            })
            .collect();
        let labels = answers.first().map_or(0, |(_, logits)| logits.len());
        let mut mean = vec![0.0; labels];
        for (_, logits) in &answers {
            for (sum, logit) in mean.iter_mut().zip(logits) {
                *sum += logit / self.members.len() as f32;
            }
        }
        if let (Some((weight, bias)), Some((features, _))) = (&self.music, answers.first()) {
            mean.extend(dots(self.instructions, weight, features).iter().map(|odds| odds + bias));
        }
        mean
    }

    /// What the front end makes of a chunk: `[heard][channels]`, with zeros up to a multiple of [`ROWS`].
    fn hear(&self, chunk: &[u8]) -> Vec<f32> {
        let decibels: Vec<f32> = chunk.iter().map(|cell| self.decibels[usize::from(*cell)]).collect();
        debug_assert_eq!(decibels.len(), MEL_BANDS * CHUNK_FRAMES);
        let mut bands = self.bands.mix(&decibels, CHUNK_FRAMES);
        self.loudness.of_decibels(self.instructions, &mut bands);
        let planes = Planes {
            spectrum: self.spectrum.of(self.instructions, &Plane::of(&bands, CHUNK_FRAMES, 1)),
            bands: Plane::of(&bands, CHUNK_FRAMES, self.step),
        };
        let Front { channels, heard, .. } = self.front;
        let mut rows = vec![0.0; heard.next_multiple_of(ROWS) * channels];
        let answers: Vec<Vec<f32>> =
            self.parts.par_iter().map(|part| part.hear(self.instructions, &planes, heard)).collect();
        for (part, answers) in self.parts.iter().zip(answers) {
            for ((channel, _), values) in part.live.iter().zip(answers.chunks_exact(heard)) {
                for (row, value) in rows.chunks_exact_mut(channels).zip(values) {
                    row[*channel] = *value;
                }
            }
            for (channel, value) in &part.constant {
                for row in rows.chunks_exact_mut(channels).take(heard) {
                    row[*channel] = *value;
                }
            }
        }
        rows
    }
}

impl Part {
    fn new(filters: &[Filter], part: FrontPart, first_channel: usize, step: usize) -> Self {
        let (mut kernels, mut live, mut constant) = (Vec::new(), Vec::new(), Vec::new());
        for (index, filter) in filters.iter().enumerate() {
            let channel = first_channel + index;
            // ReLU and the normalisation never change which place wins, if a kernel whose scale is negative is turned over.
            let sign = if filter.scale < 0.0 { -1.0 } else { 1.0 };
            let activation = Activation { sign, bias: filter.bias, scale: filter.scale, shift: filter.shift };
            if filter.is_constant() {
                constant.push((channel, activation.of(0.0)));
            } else {
                kernels.push(filter.kernel.iter().map(|tap| tap * sign).collect());
                live.push((channel, activation));
            }
        }
        let (shape, before) = ([part.time.taps, part.bands], part.time.before);
        let bank = if part.bands == 1 {
            Filters::Temporal(Bank::new(&kernels, shape, before, BANDS, step))
        } else {
            Filters::Timbral(SpectralBank::new(&kernels, shape, before, step))
        };
        Self { bank, live, constant }
    }

    /// The greatest answers `[live][heard]`.
    fn hear(&self, instructions: Instructions, planes: &Planes, heard: usize) -> Vec<f32> {
        let filters = match &self.bank {
            Filters::Temporal(bank) => bank.filters(),
            Filters::Timbral(bank) => bank.filters(),
        };
        let mut greatest = vec![0.0; filters * heard];
        match &self.bank {
            Filters::Temporal(bank) => bank.greatest(instructions, &planes.bands, &mut greatest),
            Filters::Timbral(bank) => bank.greatest(instructions, &planes.spectrum, &mut greatest),
        }
        for ((_, activation), values) in self.live.iter().zip(greatest.chunks_exact_mut(heard)) {
            activation.row(instructions, values);
        }
        greatest
    }
}

impl Member {
    fn new(weights: &Weights, member: usize, shape: EnsembleShape, labels: usize, channels: usize) -> Result<Self> {
        let array = |name: &str, shape: &[usize]| -> Result<Vec<f32>> {
            Ok(weights.get(&member_tensor(member, name), shape)?.values().to_vec())
        };
        let pooled = pooled_features(channels);
        let pair = |name: &str, length| -> Result<[Vec<f32>; 2]> {
            Ok([array(&format!("{name}.scale"), &[length])?, array(&format!("{name}.shift"), &[length])?])
        };
        let taps = shape.middle.taps;
        let reach = Reach { before: (taps - 1) / 2, taps };
        let activations = |layer: usize| -> Result<Vec<Activation>> {
            let bias = array(&format!("mid.{layer}.bias"), &[MID_CHANNELS])?;
            let [scale, shift] = pair(&format!("mid.{layer}.norm"), MID_CHANNELS)?;
            Ok((bias.into_iter().zip(scale.into_iter().zip(shift)))
                .map(|(bias, (scale, shift))| Activation { sign: 1.0, bias, scale, shift })
                .collect())
        };
        let others = (1..MID_LAYERS).map(|layer| {
            let weight = array(&format!("mid.{layer}.weight"), &[MID_CHANNELS, MID_CHANNELS, 1, taps])?;
            let found = || ModelError::Field { field: "taps", expected: "3 or 7".to_owned(), found: taps.to_string() };
            TimeConvolution::new(&weight, activations(layer)?).ok_or_else(found)
        });
        let first = array("mid.0.weight", &[MID_CHANNELS, channels + 1, 1, taps])?;
        Ok(Self {
            first: FirstLayer::new(&first, channels, reach, shape.frames, activations(0)?),
            others: others.collect::<Result<_>>()?,
            pool: pair("pool", pooled)?,
            dense: Dense {
                weight: array("dense.weight", &[EMBEDDING_FEATURES, pooled])?,
                bias: array("dense.bias", &[EMBEDDING_FEATURES])?,
            },
            dense_norm: pair("dense_norm", EMBEDDING_FEATURES)?,
            genres: Dense {
                weight: array("genres.weight", &[labels, EMBEDDING_FEATURES])?,
                bias: array("genres.bias", &[labels])?,
            },
            shortcut: array("shortcut.weight", &[labels, pooled])?,
        })
    }

    /// The normalised pooled features of what the front end hears, `[heard][channels]`.
    fn features(&self, instructions: Instructions, front: &Front, channels: &[f32]) -> Vec<f32> {
        let mut pools = vec![front.pool(instructions, channels)];
        let first = self.first.forward(instructions, front, channels);
        pools.push(Pool::of(instructions, &first, MID_CHANNELS));
        let mut previous = first;
        for layer in &self.others {
            previous = layer.forward(instructions, &previous);
            pools.push(Pool::of(instructions, &previous, MID_CHANNELS));
        }
        let pooled = pools.iter().flat_map(|pool| &pool.greatest).chain(pools.iter().flat_map(|pool| &pool.mean));
        normalize(pooled.copied(), &self.pool)
    }

    /// The logits of normalised pooled features.
    fn answer(&self, instructions: Instructions, features: &[f32]) -> Vec<f32> {
        let hidden = self.dense.forward(instructions, features).into_iter().map(|value| value.max(0.0));
        let embedding = normalize(hidden, &self.dense_norm);
        let mut logits = self.genres.forward(instructions, &embedding);
        for (logit, shortcut) in logits.iter_mut().zip(dots(instructions, &self.shortcut, features)) {
            *logit += shortcut;
        }
        logits
    }
}

impl Dense {
    fn forward(&self, instructions: Instructions, input: &[f32]) -> Vec<f32> {
        let mut output = dots(instructions, &self.weight, input);
        for (value, bias) in output.iter_mut().zip(&self.bias) {
            *value += bias;
        }
        output
    }
}

fn normalize(values: impl Iterator<Item = f32>, [scale, shift]: &[Vec<f32>; 2]) -> Vec<f32> {
    values.zip(scale.iter().zip(shift)).map(|(value, (scale, shift))| value * scale + shift).collect()
}

impl FirstLayer {
    /// The layer of `weight`, `[output][channels + 1][tap]`.
    fn new(weight: &[f32], channels: usize, reach: Reach, frames: usize, activations: Vec<Activation>) -> Self {
        let taps = reach.taps;
        let tap_at =
            |output: usize, channel: usize, tap: usize| weight[(output * (channels + 1) + channel) * taps + tap];
        let columns = |channel: usize| {
            (0..taps).flat_map(move |tap| (0..MID_CHANNELS).map(move |output| tap_at(output, channel, tap)))
        };
        let cells: Vec<f32> = (0..channels).flat_map(columns).collect();
        let constant = (0..frames).flat_map(|frame| {
            let inside = reach.inside(frame, frames);
            (0..MID_CHANNELS).map(move |output| inside.clone().map(|(tap, _)| tap_at(output, channels, tap)).sum())
        });
        Self { reach, weights: Panels::new(&cells, taps * MID_CHANNELS), constant: constant.collect(), activations }
    }

    /// The layer's answer `[frames][output]`.
    fn forward(&self, instructions: Instructions, front: &Front, channels: &[f32]) -> Vec<f32> {
        let columns = self.weights.columns();
        let mut products = vec![0.0; front.heard.next_multiple_of(ROWS) * columns];
        self.weights.product(instructions, channels, front.channels, &mut products);
        let mut answers = self.constant.clone();
        let frames = front.interpolation.len();
        instructions.run(
            #[inline(always)]
            || {
                for (frame, answer) in answers.as_chunks_mut::<MID_CHANNELS>().0.iter_mut().enumerate() {
                    for (tap, at) in self.reach.inside(frame, frames) {
                        let (before, after, share) = front.between(at);
                        let product = |row: usize| &products[row * columns + tap * MID_CHANNELS..][..MID_CHANNELS];
                        for (sum, (before, after)) in answer.iter_mut().zip(product(before).iter().zip(product(after)))
                        {
                            *sum += before + share * (after - before);
                        }
                    }
                    for (value, activation) in answer.iter_mut().zip(&self.activations) {
                        *value = activation.of(*value);
                    }
                }
            },
        );
        answers
    }
}

impl Reach {
    /// The taps that see a frame, of `frames` ones, and the frame that each sees.
    fn inside(self, frame: usize, frames: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
        (0..self.taps)
            .filter_map(move |tap| Some((tap, (frame + tap).checked_sub(self.before)?)))
            .filter(move |(_, seen)| *seen < frames)
    }
}

impl Front {
    /// The frames of the front end before and after a frame of the members, and how far it lies behind the first.
    fn between(&self, frame: usize) -> (usize, usize, f32) {
        let (before, share) = self.interpolation[frame];
        (before, (before + 1).min(self.heard - 1), share)
    }

    /// The maxima and means over the members' frames of what the front end hears, `[heard][channels]`.
    fn pool(&self, instructions: Instructions, channels: &[f32]) -> Pool {
        let mut pool = Pool::new(self.channels);
        instructions.run(
            #[inline(always)]
            || {
                for frame in 0..self.interpolation.len() {
                    let (before, after, share) = self.between(frame);
                    let row = |row: usize| &channels[row * self.channels..][..self.channels];
                    let values = row(before).iter().zip(row(after));
                    pool.add(values.map(|(before, after)| before + share * (after - before)));
                }
                pool.finish(self.interpolation.len());
            },
        );
        pool
    }
}

/// The greatest and the mean value of every channel.
struct Pool {
    greatest: Vec<f32>,
    mean: Vec<f32>,
}

impl Pool {
    fn new(channels: usize) -> Self {
        Self { greatest: vec![f32::NEG_INFINITY; channels], mean: vec![0.0; channels] }
    }

    /// Of `[frames][channels]`.
    fn of(instructions: Instructions, values: &[f32], channels: usize) -> Self {
        let mut pool = Self::new(channels);
        instructions.run(
            #[inline(always)]
            || {
                for row in values.chunks_exact(channels) {
                    pool.add(row.iter().copied());
                }
                pool.finish(values.len() / channels);
            },
        );
        pool
    }

    #[inline(always)]
    fn add(&mut self, row: impl Iterator<Item = f32>) {
        for (value, (greatest, sum)) in row.zip(self.greatest.iter_mut().zip(&mut self.mean)) {
            *greatest = greatest.max(value);
            *sum += value;
        }
    }

    #[inline(always)]
    fn finish(&mut self, rows: usize) {
        for sum in &mut self.mean {
            *sum /= rows as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::{Ensemble, ModelFolder, contract::CHUNK_CELLS};

    /// Chunks with something to hear everywhere, and silence.
    fn chunks() -> Vec<Vec<u8>> {
        let chunk = |seed: usize| (0..CHUNK_CELLS).map(move |cell| (cell * seed * 31 % 251) as u8).collect();
        (0..4).map(chunk).collect()
    }

    fn folders() -> Vec<ModelFolder> {
        let small = ModelFolder::embedded_small().unwrap();
        vec![ModelFolder::embedded().unwrap(), small]
    }

    #[test]
    fn answers_are_those_of_the_network_in_candle() {
        for folder in folders() {
            let shape = folder.manifest().network().unwrap().ensemble().unwrap();
            let labels = folder.manifest().labels.len();
            let ensemble = Ensemble::new(folder.weights(), shape, labels, &Device::Cpu).unwrap();
            for instructions in Instructions::all() {
                let listener = Listener::new(folder.weights(), shape, labels, instructions).unwrap();
                for chunk in chunks() {
                    let expected = ensemble.forward(&[&chunk]).unwrap().squeeze(0).unwrap().to_vec1::<f32>().unwrap();
                    let answer = listener.listen(&chunk);
                    assert_eq!(answer.len(), expected.len());
                    for (answer, expected) in answer.iter().zip(&expected) {
                        assert!(
                            (answer - expected).abs() < 1e-4 * expected.abs().max(1.0),
                            "{instructions:?}: {answer} {expected}"
                        );
                    }
                }
            }
        }
    }
}
