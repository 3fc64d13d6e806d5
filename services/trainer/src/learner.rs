//! What the training engine needs to know of a network.

use candle_core::{Tensor, Var};
use chorale_model::Weights;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::Result;

/// A network that can be trained.
pub trait Trainable: Sync {
    /// The logits `[batch, labels]` of chunks `[batch, MEL_BANDS, CHUNK_FRAMES]`, in dB below the loudest cell, on the
    /// device of the parameters. With a source of chance, as in training, dropout is on, and there are
    /// [`answers`](Self::answers) to every chunk: `[answers · batch, labels]`.
    ///
    /// # Errors
    /// Where the device fails.
    fn logits(&self, chunks: &Tensor, training: Option<&mut ChaCha8Rng>) -> Result<Tensor>;

    /// What training wants the answers to be, `[batch, labels]`: the labels, unless there is something to add.
    ///
    /// # Errors
    /// Where the device fails.
    fn targets(&self, _chunks: &Tensor, labels: Tensor) -> Result<Tensor> {
        Ok(labels)
    }

    /// How many answers training gets to every chunk: all to the first answer's chunks, then all to the second's. Each has
    /// a loss of its own.
    fn answers(&self) -> usize {
        1
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
