//! What the training engine needs to know of a network.

use candle_core::{D, Tensor, Var};
use candle_nn::ops::log_softmax;
use chorale_model::Weights;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::Result;

/// A network that can be trained.
pub trait Trainable: Sync {
    /// The logits `[batch, labels]` of chunks `[batch, MEL_BANDS, CHUNK_FRAMES]`, in dB below the loudest cell, on the
    /// device of the parameters. With a source of chance, as in training, dropout is on, and there may be several answers
    /// to every chunk, each to be learnt from: `[answers · batch, labels]`, all chunks of the first answer before those of
    /// the second.
    ///
    /// # Errors
    /// Where the device fails.
    fn logits(&self, chunks: &Tensor, training: Option<&mut ChaCha8Rng>) -> Result<Tensor>;

    /// What training wants to be small, a scalar: summed over chunks and answers, the cross-entropy to `labels`,
    /// `[batch, labels]`, unless there is more to learn. And the logits, as of [`logits`](Self::logits).
    ///
    /// # Errors
    /// Where the device fails.
    fn loss(&self, chunks: &Tensor, labels: Tensor, random: &mut ChaCha8Rng) -> Result<(Tensor, Tensor)> {
        let logits = self.logits(chunks, Some(random))?;
        Ok((cross_entropy(&logits, &labels)?, logits))
    }

    /// What training changes. Always the same, in the same order.
    fn parameters(&self) -> &[Parameter];

    /// The model's weights with `values` for the parameters, in their order.
    ///
    /// # Errors
    /// Where the values do not fit.
    fn weights(&self, values: &[Tensor]) -> Result<Weights>;
}

/// One tensor that training changes.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name, which no other parameter of the network has.
    pub name: String,
    /// Its value: 32-bit floats.
    pub variable: Var,
    /// What the learning rate is multiplied by for it.
    pub rate: f64,
    /// Whether weight decay draws it to zero.
    pub decays: bool,
}

/// The cross-entropy of logits `[answers · batch, labels]` to targets `[batch, labels]`, summed over all.
///
/// # Errors
/// Where shapes do not fit.
pub(crate) fn cross_entropy(logits: &Tensor, targets: &Tensor) -> candle_core::Result<Tensor> {
    let answers = logits.dim(0)? / targets.dim(0)?.max(1);
    (log_softmax(logits, D::Minus1)? * targets.repeat((answers, 1))?)?.sum_all()?.neg()
}

/// Silences a share of the cells, and makes the others louder by as much.
///
/// # Errors
/// Where the device fails.
pub fn drop_out(input: &Tensor, share: f32, random: &mut ChaCha8Rng) -> candle_core::Result<Tensor> {
    let kept = 1.0 / (1.0 - share);
    let mask: Vec<f32> =
        (0..input.elem_count()).map(|_| if random.random::<f32>() < share { 0.0 } else { kept }).collect();
    input * Tensor::from_vec(mask, input.shape(), input.device())?
}
