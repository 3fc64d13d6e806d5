//! Fitting the head of the network to pooled features.

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, ops::log_softmax};
use chorale_model::{Array, EMBEDDING_FEATURES, POOLED_FEATURES, Weights};
use rand::{Rng, RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    Progress, Result, TrainerError,
    metrics::{self, ScoredTrack},
    pooled::PooledTrack,
    recalibrate::{normalize, recalibrate},
};

/// How to fit.
#[derive(Clone, Debug, PartialEq)]
pub struct FitOptions {
    /// The most passes over the training chunks.
    pub epochs: usize,
    /// Chunks a step.
    pub batch: usize,
    /// The step size of Adam.
    pub learning_rate: f64,
    /// The share of every weight that is taken away each step, times the step size (AdamW).
    pub weight_decay: f64,
    /// The share of inputs of each dense layer that is silenced in training.
    pub dropout: f32,
    /// The share of the target that is spread over all genres.
    pub label_smoothing: f32,
    /// The weights that are measured and kept are a running mean over steps: this much of it is kept in each.
    pub averaging: f64,
    /// Epochs without a better result on the validation tracks after which fitting ends.
    pub patience: usize,
    /// Where chance starts. Equal seeds, data and options give equal models on one machine.
    pub seed: u64,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            epochs: 40,
            batch: 128,
            learning_rate: 5e-4,
            weight_decay: 0.1,
            dropout: 0.2,
            label_smoothing: 0.05,
            averaging: 0.99,
            patience: 12,
            seed: 1,
        }
    }
}

impl FitOptions {
    /// Checks that every value makes sense.
    ///
    /// # Errors
    /// [`TrainerError::Option`] naming the first one that does not.
    pub fn check(&self) -> Result<()> {
        let option = |fits: bool, option, expected, found: String| {
            if fits { Ok(()) } else { Err(TrainerError::Option { option, expected, found }) }
        };
        let share = 0.0..1.0_f32;
        option((1..=100_000).contains(&self.epochs), "epochs", "1 to 100000", self.epochs.to_string())?;
        option((1..=65_536).contains(&self.batch), "batch", "1 to 65536", self.batch.to_string())?;
        option(
            self.learning_rate > 0.0 && self.learning_rate <= 1.0,
            "learning rate",
            "above 0, at most 1",
            self.learning_rate.to_string(),
        )?;
        option((0.0..=10.0).contains(&self.weight_decay), "weight decay", "0 to 10", self.weight_decay.to_string())?;
        option(share.contains(&self.dropout), "dropout", "0 to below 1", self.dropout.to_string())?;
        option(
            share.contains(&self.label_smoothing),
            "label smoothing",
            "0 to below 1",
            self.label_smoothing.to_string(),
        )?;
        option((0.0..1.0).contains(&self.averaging), "averaging", "0 to below 1", self.averaging.to_string())?;
        option(self.patience > 0, "patience", "at least 1", self.patience.to_string())
    }
}

/// What came out of a fit.
pub(crate) struct Fit {
    /// The epoch that they are from, from 1.
    pub(crate) best_epoch: usize,
    /// Epochs run.
    pub(crate) epochs: usize,
}

/// Tracks with their genres as indices of the labels.
pub(crate) struct PooledExamples<'a> {
    pub(crate) tracks: &'a [PooledTrack<'a>],
    pub(crate) genres: &'a [usize],
}

/// Fits the dense layers that start from those of `weights`, with a new output layer for `labels` labels.
///
/// The normalisations of `weights` are fitted to the training tracks first, and inputs that never change are left out.
pub(crate) fn fit(
    weights: &mut Weights,
    labels: usize,
    train: &PooledExamples<'_>,
    valid: &PooledExamples<'_>,
    options: &FitOptions,
    progress: Progress,
) -> Result<Fit> {
    options.check()?;
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let inputs = Tensor::new(recalibrate(weights, train.tracks)?, &Device::Cpu)?;
    let layers = Layers::new(weights, &inputs, labels, &mut random)?;
    let train_input = normalize(weights, train.tracks)?.index_select(&inputs, 1)?;
    let train_set = TrainingSet::new(train, train_input, labels, options.label_smoothing)?;
    let valid_input = normalize(weights, valid.tracks)?.index_select(&inputs, 1)?;
    let parameters =
        ParamsAdamW { lr: options.learning_rate, weight_decay: options.weight_decay, ..Default::default() };
    let mut optimizer = AdamW::new(layers.variables.to_vec(), parameters)?;

    let mut average = layers.copy()?;
    let mut best: Option<(Score, usize, [Tensor; 4])> = None;
    let mut order: Vec<usize> = (0..train_set.chunks).collect();
    let mut epochs = 0;
    let mut steps = 0;
    let bar = progress.bar("training", options.epochs);
    for epoch in 1..=options.epochs {
        epochs = epoch;
        order.shuffle(&mut random);
        let mut loss_sum = 0.0;
        for batch in order.chunks(options.batch) {
            let (input, target) = train_set.batch(batch)?;
            let logits = layers.training_logits(&input, options.dropout, &mut random)?;
            let loss =
                (log_softmax(&logits, D::Minus1)? * target)?.sum_all()?.affine(-1.0 / batch.len() as f64, 0.0)?;
            loss_sum += f64::from(loss.to_scalar::<f32>()?) * batch.len() as f64;
            optimizer.backward_step(&loss)?;
            steps += 1;
            // The mean forgets the random start soon, however much of it is kept later.
            let keep = options.averaging.min(steps as f64 / (steps as f64 + 10.0));
            for (average, variable) in average.iter_mut().zip(&layers.variables) {
                *average = ((&*average * keep)? + (variable.as_detached_tensor() * (1.0 - keep))?)?;
            }
        }
        let loss = loss_sum / order.len() as f64;
        if !loss.is_finite() {
            return Err(TrainerError::Diverged(epoch));
        }
        let logits = layers.logits(&valid_input, &average)?.to_vec2::<f32>()?;
        let score = Score::of(&metrics::score(valid.tracks, valid.genres, logits));
        tracing::debug!(epoch, loss, accuracy = score.accuracy, log_loss = score.log_loss, "epoch");
        bar.set_message(format!("loss {loss:.3}, valid {:.1} %", score.accuracy * 100.0));
        bar.inc(1);
        if best.as_ref().is_none_or(|(best, ..)| score.is_better_than(best)) {
            best = Some((score, epoch, average.clone()));
        }
        if best.as_ref().is_some_and(|(_, best_epoch, _)| epoch - best_epoch >= options.patience) {
            break;
        }
    }
    bar.finish_and_clear();
    let Some((_, best_epoch, [dense, dense_bias, genres, genres_bias])) = best else {
        return Err(TrainerError::Diverged(epochs));
    };
    let unused = Tensor::zeros((EMBEDDING_FEATURES, POOLED_FEATURES), DType::F32, &Device::Cpu)?;
    let dense = unused.index_add(&inputs, &dense.contiguous()?, 1)?;
    for (name, tensor) in
        [("dense.weight", dense), ("dense.bias", dense_bias), ("genres.weight", genres), ("genres.bias", genres_bias)]
    {
        weights.insert(name, Array::new(tensor.dims(), tensor.flatten_all()?.to_vec1::<f32>()?)?);
    }
    Ok(Fit { best_epoch, epochs })
}

/// How good a head is on the validation tracks.
struct Score {
    accuracy: f64,
    log_loss: f64,
}

impl Score {
    fn of(tracks: &[ScoredTrack]) -> Self {
        Self { accuracy: metrics::track_accuracy(tracks, 1.0), log_loss: metrics::track_log_loss(tracks, 1.0) }
    }

    fn is_better_than(&self, other: &Self) -> bool {
        self.accuracy > other.accuracy || (self.accuracy == other.accuracy && self.log_loss < other.log_loss)
    }
}

/// The dense layers of the head with weights that can change. The normalisations stay as they are.
struct Layers {
    /// `[EMBEDDING_FEATURES, inputs]`, `[EMBEDDING_FEATURES]`, `[labels, EMBEDDING_FEATURES]` and `[labels]`
    variables: [Var; 4],
    /// `[EMBEDDING_FEATURES]`, both
    norm: [Tensor; 2],
}

impl Layers {
    fn new(weights: &Weights, inputs: &Tensor, labels: usize, random: &mut impl Rng) -> Result<Self> {
        let dense = weights.get("dense.weight", &[EMBEDDING_FEATURES, POOLED_FEATURES])?;
        let dense = Tensor::from_slice(dense.values(), dense.shape(), &Device::Cpu)?.index_select(inputs, 1)?;
        let bias = weights.get("dense.bias", &[EMBEDDING_FEATURES])?;
        let bias = Tensor::from_slice(bias.values(), bias.shape(), &Device::Cpu)?;
        let (scale, shift) = weights.normalization("dense_norm", EMBEDDING_FEATURES)?;
        let reach = 1.0 / (EMBEDDING_FEATURES as f32).sqrt();
        let start = (0..labels * EMBEDDING_FEATURES).map(|_| random.random_range(-reach..reach)).collect();
        let genres = Tensor::from_vec::<_, f32>(start, (labels, EMBEDDING_FEATURES), &Device::Cpu)?;
        let genres_bias = Tensor::zeros(labels, DType::F32, &Device::Cpu)?;
        Ok(Self {
            variables: [
                Var::from_tensor(&dense)?,
                Var::from_tensor(&bias)?,
                Var::from_tensor(&genres)?,
                Var::from_tensor(&genres_bias)?,
            ],
            norm: [
                Tensor::from_vec(scale, EMBEDDING_FEATURES, &Device::Cpu)?,
                Tensor::from_vec(shift, EMBEDDING_FEATURES, &Device::Cpu)?,
            ],
        })
    }

    fn copy(&self) -> Result<[Tensor; 4]> {
        let [dense, dense_bias, genres, genres_bias] = &self.variables;
        Ok([dense.copy()?, dense_bias.copy()?, genres.copy()?, genres_bias.copy()?])
    }

    fn training_logits(&self, input: &Tensor, dropout: f32, random: &mut impl Rng) -> Result<Tensor> {
        let [dense, dense_bias, genres, genres_bias] = &self.variables;
        let hidden = drop_out(input, dropout, random)?.matmul(&dense.t()?)?.broadcast_add(dense_bias)?;
        let embedding = self.embed(&hidden)?;
        Ok(drop_out(&embedding, dropout, random)?.matmul(&genres.t()?)?.broadcast_add(genres_bias)?)
    }

    fn logits(&self, input: &Tensor, variables: &[Tensor; 4]) -> Result<Tensor> {
        let [dense, dense_bias, genres, genres_bias] = variables;
        let embedding = self.embed(&input.matmul(&dense.t()?)?.broadcast_add(dense_bias)?)?;
        Ok(embedding.matmul(&genres.t()?)?.broadcast_add(genres_bias)?)
    }

    fn embed(&self, hidden: &Tensor) -> Result<Tensor> {
        let [scale, shift] = &self.norm;
        Ok(hidden.relu()?.broadcast_mul(scale)?.broadcast_add(shift)?)
    }
}

/// Silences a share of the cells, and makes the others louder by as much.
fn drop_out(input: &Tensor, share: f32, random: &mut impl Rng) -> Result<Tensor> {
    let kept = 1.0 / (1.0 - share);
    let mask: Vec<f32> =
        (0..input.elem_count()).map(|_| if random.random::<f32>() < share { 0.0 } else { kept }).collect();
    Ok((input * Tensor::from_vec(mask, input.shape(), input.device())?)?)
}

/// Chunks to learn from.
struct TrainingSet {
    chunks: usize,
    /// `[chunks, inputs]`
    input: Tensor,
    /// `[chunks, labels]`: the smoothed target, times a weight that makes every track count the same.
    target: Tensor,
}

impl TrainingSet {
    fn new(examples: &PooledExamples<'_>, input: Tensor, labels: usize, smoothing: f32) -> Result<Self> {
        let chunks = input.dim(0)?;
        let chunks_a_track = chunks as f32 / examples.tracks.len() as f32;
        let mut target = Vec::with_capacity(chunks * labels);
        for (track, genre) in examples.tracks.iter().zip(examples.genres) {
            let weight = chunks_a_track / track.chunks() as f32;
            for _ in 0..track.chunks() {
                target.extend((0..labels).map(|label| {
                    let hard = if label == *genre { 1.0 - smoothing } else { 0.0 };
                    weight * (hard + smoothing / labels as f32)
                }));
            }
        }
        Ok(Self { chunks, input, target: Tensor::from_vec(target, (chunks, labels), &Device::Cpu)? })
    }

    /// The chunks of these indices, `[batch, inputs]` and `[batch, labels]`.
    fn batch(&self, indices: &[usize]) -> Result<(Tensor, Tensor)> {
        let indices = Tensor::from_iter(indices.iter().map(|index| *index as u32), &Device::Cpu)?;
        Ok((self.input.index_select(&indices, 0)?, self.target.index_select(&indices, 0)?))
    }
}
