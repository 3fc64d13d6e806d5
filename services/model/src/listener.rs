//! An ensemble on the CPU, one chunk at a time: what [`Ensemble`](crate::Ensemble) defines, through the
//! [kernels](crate::kernels).
//!
//! The front end's answers are `[channel][frame]`, since few filters look at many frames; from there on it is
//! `[frame][channel]`, so that a kernel over time sees neighbouring cells.

use candle_core::Device;
use rayon::prelude::*;

use crate::{
    ModelError, Result, Weights,
    architecture::{BANDS, EMBEDDING_FEATURES, EnsembleShape, FrontPart, MID_CHANNELS, MID_LAYERS},
    bands::Bands,
    contract::{CHUNK_FRAMES, dequantize},
    ensemble::{
        EMBEDDED_MEMBERS, MUSIC_BIAS, MUSIC_WEIGHT, front_channels, interpolated_frames, member_tensor, members,
        pooled_features, tells_music,
    },
    filter_bank::Filter,
    front::part_filters,
    heard::Heard,
    kernels::{
        Activation, Activations, Added, Bank, Instructions, Interpolation, Loudness, Plane, Pool, Scratch,
        SpectralBank, Spectrum, TimeConvolution, dots,
    },
};

/// An ensemble, laid out for the CPU.
pub(crate) struct Listener {
    instructions: Instructions,
    /// What every cell of a chunk stands for.
    decibels: Vec<f32>,
    bands: Bands,
    loudness: Loudness,
    step: usize,
    spectrum: Spectrum,
    parts: Vec<Part>,
    /// Channels of the front end.
    channels: usize,
    /// Frames that the front end answers to.
    heard: usize,
    /// From those to the frames of the members.
    interpolation: Interpolation,
    members: Vec<Member>,
    /// The weight of every pooled feature of the first member, and the bias.
    music: Option<(Vec<f32>, f32)>,
}

/// Filters of one shape in the front end.
struct Part {
    bank: Filters,
    /// The channel of each filter of the bank, and what follows it.
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

/// What the filters see.
struct Planes {
    bands: Plane,
    spectrum: Plane,
}

/// What the members hear.
struct Sound<'a> {
    /// `[frames][channels]`, padded with zeros to what the layers want.
    channels: &'a [f32],
    /// The greatest and mean values of the channels.
    pool: Pool,
}

/// What a member makes of a chunk.
struct MemberAnswer {
    /// The normalised pooled features.
    features: Vec<f32>,
    /// What the genres are read from.
    embedding: Vec<f32>,
    logits: Vec<f32>,
}

struct Member {
    /// The layer that looks at the front end.
    first: TimeConvolution,
    /// What the channel that is 1 everywhere adds to it: `[frames][output]`.
    ones: Vec<f32>,
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
        let (channels, step) = (front_channels(weights)?, shape.front.step);
        let heard = CHUNK_FRAMES / step;
        let mut first_channel = 0;
        let parts = shape.front.parts().map(|part| {
            let filters = part_filters(weights, part)?;
            let laid_out = Part::new(&filters, part, first_channel, step);
            first_channel += filters.len();
            Ok(laid_out)
        });
        let member = |member| Member::new(weights, member, shape, labels, channels);
        let music = if tells_music(weights) {
            let weight = weights.get(MUSIC_WEIGHT, &[1, pooled_features(channels)])?.values().to_vec();
            Some((weight, weights.get(MUSIC_BIAS, &[1])?.values().iter().sum()))
        } else {
            None
        };
        Ok(Self {
            instructions,
            decibels: (0..=u8::MAX).map(dequantize).collect(),
            bands: Bands::new(weights, &Device::Cpu)?,
            loudness: Loudness { scale: scale.iter().sum(), shift: shift.iter().sum() },
            step,
            spectrum: Spectrum::new(step),
            parts: parts.collect::<Result<_>>()?,
            channels,
            heard,
            interpolation: Interpolation::new(heard, &interpolated_frames(shape)),
            members: (0..members(weights)?).map(member).collect::<Result<_>>()?,
            music,
        })
    }

    /// What the ensemble makes of a chunk of the feature contract.
    pub(crate) fn listen(&self, chunk: &[u8], want_embedding: bool) -> Heard {
        let padded = TimeConvolution::padded_channels(self.channels);
        let channels = self.interpolation.of(self.instructions, &self.hear(chunk), padded);
        let mut pool = Pool::of(self.instructions, &channels, padded);
        pool.truncate(self.channels);
        let sound = Sound { channels: &channels, pool };
        let answers: Vec<MemberAnswer> =
            self.members.par_iter().map(|member| member.answer(self.instructions, &sound)).collect();
        let labels = answers.first().map_or(0, |answer| answer.logits.len());
        let mut mean = vec![0.0; labels];
        for answer in &answers {
            for (sum, logit) in mean.iter_mut().zip(&answer.logits) {
                *sum += logit / self.members.len() as f32;
            }
        }
        if let (Some((weight, bias)), Some(first)) = (&self.music, answers.first()) {
            mean.extend(dots(self.instructions, weight, &first.features).iter().map(|odds| odds + bias));
        }
        let embedded = answers.iter().take(if want_embedding { EMBEDDED_MEMBERS } else { 0 });
        Heard { answer: mean, embedding: embedded.flat_map(|answer| &answer.embedding).copied().collect() }
    }

    /// What the front end makes of a chunk: `[heard][channels]`, padded with zeros to what the layers want.
    fn hear(&self, chunk: &[u8]) -> Scratch {
        let decibels: Vec<f32> = chunk.iter().map(|cell| self.decibels[usize::from(*cell)]).collect();
        let mut bands = self.bands.mix(&decibels, CHUNK_FRAMES);
        self.loudness.of_decibels(self.instructions, &mut bands);
        let planes = Planes {
            spectrum: self.spectrum.of(self.instructions, &Plane::of(&bands, CHUNK_FRAMES, 1)),
            bands: Plane::of(&bands, CHUNK_FRAMES, self.step),
        };
        let (heard, padded) = (self.heard, TimeConvolution::padded_channels(self.channels));
        let answers: Vec<Scratch> =
            self.parts.par_iter().map(|part| part.hear(self.instructions, &planes, heard)).collect();
        let mut rows = Scratch::zeros(heard * padded);
        for (part, answers) in self.parts.iter().zip(answers) {
            for ((channel, _), values) in part.live.iter().zip(answers.chunks_exact(heard)) {
                for (row, value) in rows.chunks_exact_mut(padded).zip(values) {
                    row[*channel] = *value;
                }
            }
            for (channel, value) in &part.constant {
                for row in rows.chunks_exact_mut(padded) {
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

    /// The greatest answers, `[live][heard]` and what fills up the bank.
    fn hear(&self, instructions: Instructions, planes: &Planes, heard: usize) -> Scratch {
        let mut greatest = match &self.bank {
            Filters::Temporal(bank) => bank.greatest(instructions, &planes.bands),
            Filters::Timbral(bank) => bank.greatest(instructions, &planes.spectrum),
        };
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
        let pair = |name: &str, length| -> Result<[Vec<f32>; 2]> {
            Ok([array(&format!("{name}.scale"), &[length])?, array(&format!("{name}.shift"), &[length])?])
        };
        let activations = |layer: usize| -> Result<Activations> {
            let [scale, shift] = pair(&format!("mid.{layer}.norm"), MID_CHANNELS)?;
            Ok(Activations { bias: array(&format!("mid.{layer}.bias"), &[MID_CHANNELS])?, scale, shift })
        };
        let (taps, pooled) = (shape.middle.taps, pooled_features(channels));
        let first = array("mid.0.weight", &[MID_CHANNELS, channels + 1, 1, taps])?;
        let unknown_taps =
            || ModelError::Field { field: "taps", expected: "3 or 7".to_owned(), found: taps.to_string() };
        let others = (1..MID_LAYERS).map(|layer| {
            let weight = array(&format!("mid.{layer}.weight"), &[MID_CHANNELS, MID_CHANNELS, 1, taps])?;
            TimeConvolution::new(&weight, taps, activations(layer)?).ok_or_else(unknown_taps)
        });
        // The last channel is 1 everywhere, and 0 beyond the ends.
        let outputs = first.chunks_exact((channels + 1) * taps);
        let (of_channels, of_ones): (Vec<&[f32]>, Vec<&[f32]>) =
            outputs.map(|output| output.split_at(channels * taps)).unzip();
        let before = (taps - 1) / 2;
        let ones = (0..shape.frames).flat_map(|frame| {
            let inside = before.saturating_sub(frame)..taps.min(shape.frames + before - frame);
            of_ones.iter().map(move |taps| taps[inside.clone()].iter().sum())
        });
        Ok(Self {
            first: TimeConvolution::new(&of_channels.concat(), taps, activations(0)?).ok_or_else(unknown_taps)?,
            ones: ones.collect(),
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

    /// The normalised pooled features.
    fn features(&self, instructions: Instructions, sound: &Sound<'_>) -> Vec<f32> {
        let mut previous = self.first.forward(instructions, sound.channels, Added::Offset(&self.ones));
        let mut pools = vec![Pool::of(instructions, &previous, MID_CHANNELS)];
        for layer in &self.others {
            previous = layer.forward(instructions, &previous, Added::Shortcut(&previous));
            pools.push(Pool::of(instructions, &previous, MID_CHANNELS));
        }
        let pools = || std::iter::once(&sound.pool).chain(&pools);
        let pooled = pools().flat_map(|pool| &pool.greatest).chain(pools().flat_map(|pool| &pool.mean));
        normalize(pooled.copied(), &self.pool)
    }

    fn answer(&self, instructions: Instructions, sound: &Sound<'_>) -> MemberAnswer {
        let features = self.features(instructions, sound);
        let hidden = self.dense.forward(instructions, &features).into_iter().map(|value| value.max(0.0));
        let embedding = normalize(hidden, &self.dense_norm);
        let mut logits = self.genres.forward(instructions, &embedding);
        for (logit, shortcut) in logits.iter_mut().zip(dots(instructions, &self.shortcut, &features)) {
            *logit += shortcut;
        }
        MemberAnswer { features, embedding, logits }
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
                    let expected = ensemble.listen(&[&chunk], true).unwrap().remove(0);
                    let heard = listener.listen(&chunk, true);
                    assert_eq!(heard.embedding.len(), folder.embedding_length().unwrap());
                    for (found, expected) in
                        [(&heard.answer, &expected.answer), (&heard.embedding, &expected.embedding)]
                    {
                        assert_eq!(found.len(), expected.len());
                        for (found, expected) in found.iter().zip(expected) {
                            let error = (found - expected).abs();
                            assert!(error < 1e-4 * expected.abs().max(1.0), "{instructions:?}: {found} {expected}");
                        }
                    }
                    assert_eq!(listener.listen(&chunk, false), Heard { embedding: Vec::new(), ..heard });
                }
            }
        }
    }
}
