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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn every_answer_to_every_chunk_has_its_cross_entropy() {
        let tensor = |rows: &[[f32; 2]]| Tensor::from_slice(&rows.concat(), (rows.len(), 2), &Device::Cpu).unwrap();
        // Two answers to two chunks: of even odds, and of three to one.
        let sure = 3.0_f32.ln();
        let logits = tensor(&[[0.0, 0.0], [sure, 0.0], [0.0, sure], [0.0, 0.0]]);
        let targets = tensor(&[[1.0, 0.0], [0.75, 0.25]]);
        let mixed = -(0.75 * 0.75_f32.ln() + 0.25 * 0.25_f32.ln());
        let expected = 2.0_f32.ln() + mixed + 4.0_f32.ln() + 2.0_f32.ln();
        let found = cross_entropy(&logits, &targets).unwrap().to_scalar::<f32>().unwrap();
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}
