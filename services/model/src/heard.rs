//! What a network makes of a chunk.

use candle_core::Tensor;

use crate::Result;

/// What a network makes of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Heard {
    /// The logit of every label, and the log-odds of being music from a network that can tell.
    pub(crate) answer: Vec<f32>,
    /// `[embedding]`: what comes out of the last layer before the genres; empty unless it was wanted.
    pub(crate) embedding: Vec<f32>,
}

impl Heard {
    /// What the rows say of `answers` `[batch, labels or one more]` and `embeddings` `[batch, embedding]`. They are read as one
    /// tensor: who reads waits for the device.
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn of_batch(answers: &Tensor, embeddings: Option<&Tensor>) -> Result<Vec<Self>> {
        let length = answers.dim(1)?;
        let rows = match embeddings {
            Some(embeddings) => Tensor::cat(&[answers, embeddings], 1)?.to_vec2()?,
            None => answers.to_vec2()?,
        };
        let split = |mut answer: Vec<f32>| {
            let embedding = answer.split_off(length.min(answer.len()));
            Self { answer, embedding }
        };
        Ok(rows.into_iter().map(split).collect())
    }
}
