//! An ensemble as a learner: members that learn side by side behind one front end.

use candle_core::{Device, Tensor, Var};
use chorale_model::{
    Array, EMBEDDING_FEATURES, EnsembleFront, EnsembleShape, EnsembleStart, FROZEN_TENSORS, LearningFront, Member,
    Norm, Weights,
    contract::{CHUNK_FRAMES, MEL_BANDS, dequantize},
    mean_logits, member_tensor,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::{Examples, Parameter, Result, Room, Trainable, TrainerError, chance::source, learner::drop_out};

/// Chunks that the normalisations are fitted to, spread over all of them.
const CALIBRATION_CHUNKS: usize = 1_536;
/// Chunks of those that go through the network together.
const CALIBRATION_BATCH: usize = 16;
/// A feature with less variance than this only differs by rounding.
const LEAST_VARIANCE: f64 = 1e-9;
const EPSILON: f64 = 1e-3;

/// What an ensemble is like, and how its members learn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EnsembleOptions {
    /// Networks whose logits are averaged.
    pub members: usize,
    /// The share of inputs of each dense layer that is silenced in training.
    pub dropout: f32,
    /// What the learning rate is multiplied by for the pretrained convolutions, member by member and then from the first
    /// again: members that differ more err less together.
    pub backbone_rates: Vec<f64>,
    /// What the learning rate is multiplied by for the filters of the front end, which all members share. They stay as they
    /// are where it is 0.
    pub front_rate: f64,
    /// How much of a linear discriminant analysis of a member's features is added to its logits at the end.
    pub discriminant: f64,
    /// How the sound of training chunks is changed.
    pub room: Room,
}

impl Default for EnsembleOptions {
    fn default() -> Self {
        Self {
            members: 2,
            dropout: 0.5,
            backbone_rates: vec![0.1, 0.3],
            front_rate: 0.0,
            discriminant: 0.2,
            room: Room::default(),
        }
    }
}

impl EnsembleOptions {
    /// Checks that every value makes sense.
    ///
    /// # Errors
    /// [`TrainerError::Option`] naming the first one that does not.
    pub fn check(&self) -> Result<()> {
        let option = |fits: bool, option, expected, found: String| {
            if fits { Ok(()) } else { Err(TrainerError::Option { option, expected, found }) }
        };
        option((1..=64).contains(&self.members), "members", "1 to 64", self.members.to_string())?;
        option((0.0..1.0).contains(&self.dropout), "dropout", "0 to below 1", self.dropout.to_string())?;
        option((0.0..=10.0).contains(&self.discriminant), "discriminant", "0 to 10", self.discriminant.to_string())?;
        let changed = self.room.share;
        option((0.0..=1.0).contains(&changed), "augment", "0 to 1", changed.to_string())?;
        option((0.0..=1.0).contains(&self.front_rate), "front rate", "0 to 1", self.front_rate.to_string())?;
        let rates = &self.backbone_rates;
        let fit = !rates.is_empty() && rates.iter().all(|rate| (0.0..=1.0).contains(rate));
        option(fit, "backbone rates", "some from 0 to 1", format!("{rates:?}"))
    }
}

/// An ensemble with weights that can change.
pub struct EnsembleLearner {
    front_weights: Weights,
    front: FrontEnd,
    members: Vec<Member>,
    parameters: Vec<Parameter>,
    frozen: Vec<(String, Array)>,
    dropout: f32,
}

/// A front end that stays as it is, or one that learns, at a higher price.
enum FrontEnd {
    Still(EnsembleFront),
    Learning(LearningFront),
}

impl EnsembleLearner {
    /// Members that all start from `start`, each with an output layer of its own by chance, and normalisations that are
    /// fitted to `train` where they start from published weights.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn new(
        start: &EnsembleStart,
        shape: EnsembleShape,
        options: &EnsembleOptions,
        train: &Examples,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let front = EnsembleFront::new(&start.front, shape, device)?;
        let names: Vec<_> = Member::tensors(shape, start.channels, train.labels());
        let initial = calibrate(start, &names, &front, train, device)?;
        let mut random = source(seed, "initial weights", 0);
        let (mut members, mut parameters, mut frozen) = (Vec::new(), Vec::new(), Vec::new());
        for (member, backbone_rate) in (0..options.members).zip(options.backbone_rates.iter().cycle()) {
            let mut tensors = Vec::new();
            for ((name, shape), array) in names.iter().zip(&initial) {
                let full_name = member_tensor(member, name);
                let tensor = if *name == "genres.weight" {
                    let reach = 1.0 / (EMBEDDING_FEATURES as f32).sqrt();
                    let cells = shape.iter().product();
                    let values = (0..cells).map(|_| random.random_range(-reach..reach)).collect::<Vec<f32>>();
                    Tensor::from_vec(values, shape.as_slice(), device)?
                } else {
                    to_tensor(array, device)?
                };
                if FROZEN_TENSORS.contains(name) {
                    frozen.push((full_name, array.clone()));
                    tensors.push(tensor);
                    continue;
                }
                let variable = Var::from_tensor(&tensor)?;
                tensors.push(variable.as_tensor().clone());
                let rate = if name.starts_with("mid.") { *backbone_rate } else { 1.0 };
                parameters.push(Parameter { name: full_name, variable, rate, decays: shape.len() > 1 });
            }
            members.push(Member::from_tensors(&tensors)?);
        }
        let front_weights = start.front.clone();
        let front = if options.front_rate == 0.0 {
            FrontEnd::Still(front)
        } else {
            let mut tensors = Vec::new();
            for (name, shape) in LearningFront::tensors(&front_weights, shape)? {
                let variable = Var::from_tensor(&to_tensor(front_weights.get(&name, &shape)?, device)?)?;
                tensors.push(variable.as_tensor().clone());
                parameters.push(Parameter { name, variable, rate: options.front_rate, decays: shape.len() > 1 });
            }
            FrontEnd::Learning(LearningFront::new(front, &front_weights, &tensors)?)
        };
        Ok(Self { front_weights, front, members, parameters, frozen, dropout: options.dropout })
    }
}

impl EnsembleLearner {
    /// Every member's normalised pooled features, `[batch, pooled features]`, of chunks as of [`Trainable::logits`].
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn features(&self, chunks: &Tensor) -> Result<Vec<Tensor>> {
        let channels = match &self.front {
            FrontEnd::Still(front) => front.hear(chunks)?,
            FrontEnd::Learning(front) => front.hear(chunks)?,
        };
        self.members.iter().map(|member| Ok(member.features(&channels)?)).collect()
    }

    /// The logits of those features: see [`Trainable::logits`].
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn answer(&self, features: &[Tensor], training: Option<&mut ChaCha8Rng>) -> Result<Tensor> {
        let members = self.members.iter().zip(features);
        match training {
            None => {
                let logits = members.map(|(member, features)| member.answer(features, Ok));
                Ok(mean_logits(&logits.collect::<std::result::Result<Vec<_>, _>>()?)?)
            }
            Some(random) => {
                let mut silence = |tensor: Tensor| drop_out(&tensor, self.dropout, random);
                let logits = members.map(|(member, features)| member.answer(features, &mut silence));
                Ok(Tensor::cat(&logits.collect::<std::result::Result<Vec<_>, _>>()?, 0)?)
            }
        }
    }
}

impl Trainable for EnsembleLearner {
    fn logits(&self, chunks: &Tensor, training: Option<&mut ChaCha8Rng>) -> Result<Tensor> {
        self.answer(&self.features(chunks)?, training)
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn weights(&self, values: &[Tensor]) -> Result<Weights> {
        let mut weights = self.front_weights.clone();
        for (name, array) in &self.frozen {
            weights.insert(name, array.clone());
        }
        for (parameter, value) in self.parameters.iter().zip(values) {
            weights.insert(&parameter.name, to_array(value)?);
        }
        Ok(weights)
    }
}

/// The tensors of a member whose normalisations make the features of `train` have mean 0 and variance 1, and whose output
/// layers are zero.
fn calibrate(
    start: &EnsembleStart,
    names: &[(&str, Vec<usize>)],
    front: &EnsembleFront,
    train: &Examples,
    device: &Device,
) -> Result<Vec<Array>> {
    let zeros = |name: &str| {
        let shape = names.iter().find(|(known, _)| *known == name).map(|(_, shape)| shape.clone()).unwrap_or_default();
        Array::new(&shape, vec![0.0; shape.iter().product()])
    };
    let vector = |values: Vec<f32>| Array::new(&[values.len()], values);
    let assemble = |pool: [Vec<f32>; 2], hidden: [Vec<f32>; 2]| -> Result<Vec<Array>> {
        let ([pool_scale, pool_shift], [hidden_scale, hidden_shift]) = (pool, hidden);
        let mut arrays = start.mid.clone();
        arrays.extend([vector(pool_scale)?, vector(pool_shift)?, start.dense_weight.clone(), start.dense_bias.clone()]);
        arrays.extend([vector(hidden_scale)?, vector(hidden_shift)?]);
        arrays.extend([zeros("genres.weight")?, zeros("genres.bias")?, zeros("shortcut.weight")?]);
        Ok(arrays)
    };
    let pooled_features = start.dense_weight.shape().last().copied().unwrap_or(0);
    let same = |features: usize| [vec![1.0; features], vec![0.0; features]];
    let uncalibrated = assemble(same(pooled_features), same(EMBEDDING_FEATURES))?;
    let tensors = uncalibrated.iter().map(|array| to_tensor(array, device)).collect::<Result<Vec<_>>>()?;
    let member = Member::from_tensors(&tensors)?;

    let every = train.chunk_count().div_ceil(CALIBRATION_CHUNKS).max(1);
    let chunks: Vec<&[u8]> = train.chunks().step_by(every).collect();
    let pooled = |chunks: &[&[u8]]| -> Result<Vec<Vec<f32>>> {
        let cells: Vec<f32> = chunks.iter().flat_map(|chunk| chunk.iter().map(|cell| dequantize(*cell))).collect();
        let chunks = Tensor::from_vec(cells, (chunks.len(), MEL_BANDS, CHUNK_FRAMES), device)?;
        Ok(member.pooled(&front.hear(&chunks)?)?.to_vec2()?)
    };
    let pooled = chunks.par_chunks(CALIBRATION_BATCH).map(pooled).collect::<Result<Vec<_>>>()?.concat();
    let pool = normalization(&pooled, &start.pool_norm);
    let [scale, shift] = &pool;
    let normalized: Vec<f32> = (pooled.iter().flatten().zip(scale.iter().zip(shift).cycle()))
        .map(|(cell, (scale, shift))| cell * scale + shift)
        .collect();
    let normalized = Tensor::from_vec(normalized, (pooled.len(), pooled_features), device)?;
    let hidden = member.hidden(&normalized)?.to_vec2::<f32>()?;
    assemble(pool.clone(), normalization(&hidden, &start.dense_norm))
}

/// Scale and shift of a normalisation for the columns of `rows`. A column that never changes becomes its mean.
fn normalization(rows: &[Vec<f32>], norm: &Norm) -> [Vec<f32>; 2] {
    let (gain, offset) = match norm {
        Norm::Affine { scale, shift } => return [scale.clone(), shift.clone()],
        Norm::Outcome { gain, offset } => (gain, offset),
    };
    let count = rows.len() as f64;
    let mut sums = vec![(0.0_f64, 0.0_f64); gain.len()];
    for row in rows {
        for ((sum, squares), cell) in sums.iter_mut().zip(row) {
            *sum += f64::from(*cell);
            *squares += f64::from(*cell).powi(2);
        }
    }
    let column = |((sum, squares), (gain, offset)): (&(f64, f64), (&f32, &f32))| {
        let mean = sum / count;
        let variance = (squares / count - mean * mean).max(0.0);
        let changes = variance > LEAST_VARIANCE;
        let scale = if changes { f64::from(*gain) / (variance + EPSILON).sqrt() } else { 0.0 };
        (scale as f32, offset - (mean * scale) as f32)
    };
    let (scale, shift) = sums.iter().zip(gain.iter().zip(offset)).map(column).unzip();
    [scale, shift]
}

fn to_tensor(array: &Array, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(array.values(), array.shape(), device)?)
}

fn to_array(tensor: &Tensor) -> Result<Array> {
    Ok(Array::new(tensor.dims(), tensor.flatten_all()?.to_vec1::<f32>()?)?)
}
