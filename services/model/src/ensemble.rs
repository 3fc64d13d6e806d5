//! Several networks that share one front end, and whose logits are averaged.
//!
//! The front end is MusiCNN's, without the filters that weight decay has driven to nothing. Its channels are interpolated to
//! the frame rate that the layers after it were trained at; each member has layers of its own from there on. What the left
//! out filters answered, whatever they heard, is one more channel that is 1 everywhere.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use crate::{
    ModelError, Result, Weights,
    architecture::{
        BANDS, EMBEDDING_FEATURES, EnsembleShape, FRONT_PARTS, MID_CHANNELS, MID_LAYERS, insert_convolution,
        insert_norm,
    },
    batch_front::BatchFront,
    batches::Batches,
    contract::{CHUNK_FRAMES, FRAMES_PER_SECOND, MEL_BANDS},
    convolution::convolve,
    front::Front,
    heard::Heard,
    image::rectify,
    time_taps::TimeTaps,
};

/// What the names of the members' tensors begin with.
const MEMBERS: &str = "member.";
/// What tells music from what is none, from the first member's features: `[1, pooled features]`.
pub const MUSIC_WEIGHT: &str = "music.weight";
/// Its bias, `[1]`.
pub const MUSIC_BIAS: &str = "music.bias";
const MAX_FILTERS: usize = 1_024;
const MAX_MEMBERS: usize = 64;
/// Members whose last layers before the genres are the embedding, one after the other: the first ones.
pub(crate) const EMBEDDED_MEMBERS: usize = 2;

/// An ensemble on a device, in candle: to learn, for a GPU, and as what the kernels for the CPU are tested against.
pub struct Ensemble {
    batches: Batches,
    front: EnsembleFront,
    /// Not on the CPU.
    batch: Option<BatchWay>,
    members: Vec<Member>,
    /// How to tell music from what is none, if the weights know.
    music: Option<Dense>,
}

/// How whole batches are heard.
struct BatchWay {
    front: BatchFront,
    /// Those of the members' layers.
    taps: TimeTaps,
}

impl BatchWay {
    fn new(weights: &Weights, shape: EnsembleShape, device: &Device) -> Result<Self> {
        let taps = TimeTaps::new(shape.middle, shape.frames, 1, device)?;
        Ok(Self { front: BatchFront::new(weights, shape, device)?, taps })
    }
}

impl Ensemble {
    /// Puts the ensemble of `weights`, with `labels` outputs, onto `device`.
    ///
    /// # Errors
    /// Where a tensor is missing or has a wrong shape, or the device is out of memory.
    pub fn new(weights: &Weights, shape: EnsembleShape, labels: usize, device: &Device) -> Result<Self> {
        let tensors = Member::tensors(shape, front_channels(weights)?, labels);
        let member = |index| {
            let tensor = |(name, shape): &(&str, Vec<usize>)| {
                let array = weights.get(&member_tensor(index, name), shape)?;
                Ok(Tensor::from_slice(array.values(), shape.as_slice(), device)?)
            };
            Member::from_tensors(&tensors.iter().map(tensor).collect::<Result<Vec<_>>>()?)
        };
        let music = |name: &str, shape: &[usize]| {
            Ok::<_, ModelError>(Tensor::from_slice(weights.get(name, shape)?.values(), shape, device)?)
        };
        let music = if tells_music(weights) {
            let weight = music(MUSIC_WEIGHT, &[1, pooled_features(front_channels(weights)?)])?;
            Some(Dense { weight, bias: music(MUSIC_BIAS, &[1])? })
        } else {
            None
        };
        Ok(Self {
            batches: Batches::new(device)?,
            batch: match device {
                Device::Cpu => None,
                _ => Some(BatchWay::new(weights, shape, device)?),
            },
            front: EnsembleFront::new(weights, shape, device)?,
            members: (0..members(weights)?).map(member).collect::<Result<_>>()?,
            music,
        })
    }

    /// The way of chunks to its device.
    pub(crate) fn batches(&self) -> &Batches {
        &self.batches
    }

    /// What it makes of each of these chunks of the feature contract, at least one.
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn listen(&self, chunks: &[&[u8]], want_embeddings: bool) -> Result<Vec<Heard>> {
        self.batches.listen(chunks, |decibels| self.forward(decibels, want_embeddings))
    }

    /// What every member makes of chunks of the feature contract before its dense layers, `[batch, pooled features]`.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn features(&self, chunks: &[&[u8]]) -> Result<Vec<Tensor>> {
        self.features_of(&self.batches.decibels(chunks)?)
    }

    /// The same of chunks in dB below the loudest cell, `[MEL_BANDS, batch · frames]`.
    fn features_of(&self, decibels: &Tensor) -> Result<Vec<Tensor>> {
        let Some(BatchWay { front, taps }) = &self.batch else {
            let channels = self.front.members_hear(&self.front.front.forward(decibels)?)?;
            return self.members.iter().map(|member| member.features(&channels)).collect();
        };
        let channels = front.hear(decibels)?;
        let convolve = |input: &Tensor, weight: &Tensor| taps.convolve(input, weight);
        let features = |member: &Member| member.pool.forward(&member.pooled_through(&channels, convolve)?);
        self.members.iter().map(features).collect()
    }

    /// What the ensemble makes of chunks `[batch, MEL_BANDS, CHUNK_FRAMES]` in dB below the loudest cell: every member's
    /// features, as of [`features`](Self::features), and the logits `[batch, labels]`.
    ///
    /// # Errors
    /// Where the shape is another one, or the device fails.
    pub fn hear(&self, chunks: &Tensor) -> Result<(Vec<Tensor>, Tensor)> {
        let channels = self.front.hear(chunks)?;
        let features = self.members.iter().map(|member| member.features(&channels)).collect::<Result<Vec<_>>>()?;
        let logits = self.answer(&features)?;
        Ok((features, logits))
    }

    /// The logits `[batch, labels]` of every member's features.
    fn answer(&self, features: &[Tensor]) -> Result<Tensor> {
        let logits = self.members.iter().zip(features).map(|(member, features)| member.answer(features, Ok));
        mean_logits(&logits.collect::<Result<Vec<_>>>()?)
    }

    /// The embeddings `[batch, embedding]` of every member's features.
    fn embeddings(&self, features: &[Tensor]) -> Result<Tensor> {
        let embedded = self.members.iter().zip(features).take(EMBEDDED_MEMBERS);
        let embeddings = embedded.map(|(member, features)| member.embedding(features)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&embeddings, 1)?)
    }

    fn forward(&self, decibels: &Tensor, want_embeddings: bool) -> Result<Vec<Heard>> {
        let features = self.features_of(decibels)?;
        let logits = self.answer(&features)?;
        let answers = match (&self.music, features.first()) {
            (Some(music), Some(features)) => Tensor::cat(&[logits, music.forward(features)?], 1)?,
            _ => logits,
        };
        let embeddings = if want_embeddings { Some(self.embeddings(&features)?) } else { None };
        Heard::of_batch(&answers, embeddings.as_ref())
    }

    /// Every tensor of an ensemble with `labels` labels and as many filters and members as `weights` have: its name and
    /// shape.
    pub(crate) fn tensors(
        shape: EnsembleShape,
        weights: &Weights,
        labels: usize,
    ) -> Result<BTreeMap<String, Vec<usize>>> {
        let mut table = BTreeMap::from([
            ("adapter.weight".to_owned(), vec![BANDS, MEL_BANDS]),
            ("adapter.bias".to_owned(), vec![BANDS]),
        ]);
        insert_norm(&mut table, "input_norm", 1);
        for part in shape.front.parts() {
            let name = format!("front.{}", part.name);
            let filters = weights.length(&format!("{name}.conv.bias"))?;
            insert_convolution(&mut table, &name, [filters, 1, part.time.taps, part.bands]);
        }
        let channels = front_channels(weights)?;
        for member in 0..members(weights)? {
            for (name, shape) in Member::tensors(shape, channels, labels) {
                table.insert(member_tensor(member, name), shape);
            }
        }
        if tells_music(weights) {
            table.insert(MUSIC_WEIGHT.to_owned(), vec![1, pooled_features(channels)]);
            table.insert(MUSIC_BIAS.to_owned(), vec![1]);
        }
        Ok(table)
    }
}

/// Whether the weights can tell music from what is none.
pub(crate) fn tells_music(weights: &Weights) -> bool {
    weights.length(MUSIC_BIAS).is_ok()
}

/// Features that a member pools over time, where the front end has `channels` filters.
pub(crate) fn pooled_features(channels: usize) -> usize {
    2 * (channels + MID_LAYERS * MID_CHANNELS)
}

/// The mean of the members' logits, all `[batch, labels]`.
///
/// # Errors
/// Where there is no member, or shapes differ.
pub fn mean_logits(members: &[Tensor]) -> Result<Tensor> {
    Ok(Tensor::stack(members, 0)?.mean(0)?)
}

/// The name of a tensor of a member.
#[must_use]
pub fn member_tensor(member: usize, name: &str) -> String {
    format!("{MEMBERS}{member}.{name}")
}

/// Filters of the front end in all.
pub(crate) fn front_channels(weights: &Weights) -> Result<usize> {
    let mut channels = 0;
    for part in FRONT_PARTS {
        let name = format!("front.{part}.conv.bias");
        let filters = weights.length(&name)?;
        check("filters of a part of the front end", filters, MAX_FILTERS)?;
        channels += filters;
    }
    Ok(channels)
}

/// Members of the ensemble.
pub(crate) fn members(weights: &Weights) -> Result<usize> {
    let members = (0..).take_while(|member| weights.length(&member_tensor(*member, "genres.bias")).is_ok()).count();
    check("members of the ensemble", members, MAX_MEMBERS)?;
    Ok(members)
}

fn check(field: &'static str, found: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    Err(ModelError::Field { field, expected: format!("1 to {most}"), found: found.to_string() })
}

/// For every frame that the members hear, the frame of the front end before it, and how far it lies behind that one.
pub(crate) fn interpolated_frames(shape: EnsembleShape) -> Vec<(usize, f32)> {
    let last = (CHUNK_FRAMES / shape.front.step - 1) as f64;
    let position = |frame: usize| {
        let seconds = frame as f64 / shape.frames_per_second;
        let position = (seconds * f64::from(FRAMES_PER_SECOND) / shape.front.step as f64).min(last);
        (position as usize, position.fract() as f32)
    };
    (0..shape.frames).map(position).collect()
}

/// The matrix `[frames of the front end, frames of the members]` that interpolates between frames.
pub(crate) fn interpolation(shape: EnsembleShape, device: &Device) -> Result<Tensor> {
    let heard = CHUNK_FRAMES / shape.front.step;
    let mut interpolation = vec![0.0_f32; heard * shape.frames];
    for (frame, (before, share)) in interpolated_frames(shape).into_iter().enumerate() {
        for (source, share) in [(before, 1.0 - share), (before + 1, share)] {
            if let Some(cell) = interpolation.get_mut(source * shape.frames + frame) {
                *cell += share;
            }
        }
    }
    Ok(Tensor::from_vec(interpolation, (heard, shape.frames), device)?)
}

/// What the members of an ensemble hear: the channels of the front end at their frame rate.
pub struct EnsembleFront {
    pub(crate) front: Front,
    /// `[frames of the front end, frames of the members]`
    interpolation: Tensor,
}

impl EnsembleFront {
    /// Puts the front end of `weights` onto `device`.
    ///
    /// # Errors
    /// Where a tensor is missing or has a wrong shape, or the device is out of memory.
    pub fn new(weights: &Weights, shape: EnsembleShape, device: &Device) -> Result<Self> {
        Ok(Self { front: Front::new(weights, shape.front, device)?, interpolation: interpolation(shape, device)? })
    }

    /// The channels `[batch, channels + 1, 1, frames]` of chunks `[batch, MEL_BANDS, CHUNK_FRAMES]` in dB below the loudest
    /// cell. Nothing is remembered for gradients.
    ///
    /// # Errors
    /// Where the shape is another one, or the device fails.
    pub fn hear(&self, chunks: &Tensor) -> Result<Tensor> {
        self.hear_through(chunks, |decibels| self.front.forward(decibels))
    }

    /// See [`hear`](Self::hear), with another function from dB to channels than [`Front::forward`].
    pub(crate) fn hear_through(&self, chunks: &Tensor, front: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let batch = chunks.dim(0)?;
        if !matches!(self.front.device(), Device::Cpu) {
            let decibels = chunks.transpose(0, 1)?.reshape((MEL_BANDS, batch * CHUNK_FRAMES))?;
            return self.members_hear(&front(&decibels)?);
        }
        let each = (0..batch).map(|index| self.members_hear(&front(&chunks.get(index)?.contiguous()?)?));
        Ok(Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// What the members hear of channels `[channels, batch, frames]`: see [`hear`](Self::hear).
    pub(crate) fn members_hear(&self, channels: &Tensor) -> Result<Tensor> {
        let (count, batch, heard) = channels.dims3()?;
        let channels = channels.reshape((count * batch, heard))?.matmul(&self.interpolation)?;
        let frames = channels.dim(1)?;
        let one = Tensor::ones((1, batch, frames), DType::F32, self.front.device())?;
        let channels = Tensor::cat(&[channels.reshape((count, batch, frames))?, one], 0)?;
        Ok(channels.transpose(0, 1)?.contiguous()?.unsqueeze(2)?)
    }
}

/// One member of an ensemble: MusiCNN's layers after the front end.
pub struct Member {
    mid: Vec<MidLayer>,
    pool: Affine,
    dense: Dense,
    dense_norm: Affine,
    genres: Dense,
    /// `[labels, pooled features]`
    shortcut: Tensor,
}

struct MidLayer {
    /// `[MID_CHANNELS, inputs, 1, taps]`
    weight: Tensor,
    /// `[MID_CHANNELS]`
    bias: Tensor,
    norm: Affine,
}

/// `x · scale + shift`
struct Affine {
    scale: Tensor,
    shift: Tensor,
}

struct Dense {
    /// `[outputs, inputs]`
    weight: Tensor,
    bias: Tensor,
}

/// The tensors of a member that training leaves as they are: normalisations.
pub const FROZEN_TENSORS: [&str; 4] = ["pool.scale", "pool.shift", "dense_norm.scale", "dense_norm.shift"];

const TENSORS: usize = 4 * MID_LAYERS + 9;

impl Member {
    /// The name and shape of every tensor, in order, where the front end has `channels` filters.
    #[must_use]
    pub fn tensors(shape: EnsembleShape, channels: usize, labels: usize) -> Vec<(&'static str, Vec<usize>)> {
        let pooled = pooled_features(channels);
        let mid = |inputs| vec![MID_CHANNELS, inputs, 1, shape.middle.taps];
        vec![
            ("mid.0.weight", mid(channels + 1)),
            ("mid.0.bias", vec![MID_CHANNELS]),
            ("mid.0.norm.scale", vec![MID_CHANNELS]),
            ("mid.0.norm.shift", vec![MID_CHANNELS]),
            ("mid.1.weight", mid(MID_CHANNELS)),
            ("mid.1.bias", vec![MID_CHANNELS]),
            ("mid.1.norm.scale", vec![MID_CHANNELS]),
            ("mid.1.norm.shift", vec![MID_CHANNELS]),
            ("mid.2.weight", mid(MID_CHANNELS)),
            ("mid.2.bias", vec![MID_CHANNELS]),
            ("mid.2.norm.scale", vec![MID_CHANNELS]),
            ("mid.2.norm.shift", vec![MID_CHANNELS]),
            ("pool.scale", vec![pooled]),
            ("pool.shift", vec![pooled]),
            ("dense.weight", vec![EMBEDDING_FEATURES, pooled]),
            ("dense.bias", vec![EMBEDDING_FEATURES]),
            ("dense_norm.scale", vec![EMBEDDING_FEATURES]),
            ("dense_norm.shift", vec![EMBEDDING_FEATURES]),
            ("genres.weight", vec![labels, EMBEDDING_FEATURES]),
            ("genres.bias", vec![labels]),
            ("shortcut.weight", vec![labels, pooled]),
        ]
    }

    /// The member of these tensors, in the order of [`Member::tensors`]. Variables stay variables.
    ///
    /// # Errors
    /// Where their number is another one.
    pub fn from_tensors(tensors: &[Tensor]) -> Result<Self> {
        let tensors: &[Tensor; TENSORS] =
            tensors.try_into().map_err(|_| candle_core::Error::msg("a member needs another number of tensors"))?;
        let affine = |scale: &Tensor, shift: &Tensor| Affine { scale: scale.clone(), shift: shift.clone() };
        let dense = |weight: &Tensor, bias: &Tensor| Dense { weight: weight.clone(), bias: bias.clone() };
        let (mid, head) = tensors.split_at(4 * MID_LAYERS);
        let mid = mid.as_chunks::<4>().0.iter().map(|[weight, bias, scale, shift]| MidLayer {
            weight: weight.clone(),
            bias: bias.clone(),
            norm: affine(scale, shift),
        });
        match head {
            [pool_scale, pool_shift, weight, bias, scale, shift, genres, genres_bias, shortcut] => Ok(Self {
                mid: mid.collect(),
                pool: affine(pool_scale, pool_shift),
                dense: dense(weight, bias),
                dense_norm: affine(scale, shift),
                genres: dense(genres, genres_bias),
                shortcut: shortcut.clone(),
            }),
            _ => Err(candle_core::Error::msg("a member needs another number of tensors").into()),
        }
    }

    /// The normalised pooled features `[batch, pooled features]` of what the front end hears,
    /// `[batch, channels + 1, 1, frames]`.
    ///
    /// # Errors
    /// Where the shape is another one, or the device fails.
    pub fn features(&self, channels: &Tensor) -> Result<Tensor> {
        self.pool.forward(&self.pooled(channels)?)
    }

    /// The logits `[batch, labels]` of normalised pooled features.
    ///
    /// `silence` is given the inputs of a dense layer, of which training silences some; to listen, it gives them back.
    ///
    /// # Errors
    /// Where the shape is another one, or the device fails.
    pub fn answer(
        &self,
        features: &Tensor,
        mut silence: impl FnMut(Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let pooled = silence(features.clone())?;
        let embedding = silence(self.embedding(&pooled)?)?;
        Ok((self.genres.forward(&embedding)? + pooled.matmul(&self.shortcut.t()?)?)?)
    }

    /// What the genres are read from, `[batch, EMBEDDING_FEATURES]`: what comes out of the dense layer, normalised. From
    /// normalised pooled features.
    fn embedding(&self, features: &Tensor) -> Result<Tensor> {
        self.dense_norm.forward(&self.hidden(features)?)
    }

    /// The pooled features `[batch, pooled features]`: the maxima over the chunk, and then the means.
    ///
    /// # Errors
    /// Where the shape is another one, or the device fails.
    pub fn pooled(&self, channels: &Tensor) -> Result<Tensor> {
        self.pooled_through(channels, convolve)
    }

    /// The same, with another way to convolve images with weights than [`convolve`].
    fn pooled_through(
        &self,
        channels: &Tensor,
        convolve: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let mut layers = vec![channels.narrow(1, 0, channels.dim(1)? - 1)?];
        let mut previous: Option<Tensor> = None;
        for layer in &self.mid {
            let answer = layer.forward(previous.as_ref().unwrap_or(channels), &convolve)?;
            let answer = match previous {
                Some(previous) => (answer + previous)?,
                None => answer,
            };
            layers.push(answer.clone());
            previous = Some(answer);
        }
        let layers = Tensor::cat(&layers, 1)?.squeeze(2)?;
        Ok(Tensor::cat(&[layers.max(2)?, layers.mean(2)?], 1)?)
    }

    /// What comes out of the dense layer, before its normalisation, from normalised pooled features.
    ///
    /// # Errors
    /// Where the shape is another one, or the device fails.
    pub fn hidden(&self, pooled: &Tensor) -> Result<Tensor> {
        Ok(self.dense.forward(pooled)?.relu()?)
    }
}

impl MidLayer {
    fn forward(
        &self,
        input: &Tensor,
        convolve: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let column = |tensor: &Tensor| tensor.reshape((1, (), 1, 1));
        let rectified = rectify(&convolve(input, &self.weight)?, &self.bias)?;
        Ok(rectified.broadcast_mul(&column(&self.norm.scale)?)?.broadcast_add(&column(&self.norm.shift)?)?)
    }
}

impl Affine {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        Ok(input.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)?)
    }
}

impl Dense {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        Ok(input.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }
}
