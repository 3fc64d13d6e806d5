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
    /// What the rows say of `answers` `[batch, labels or one more]` and `embeddings` `[batch, embedding]`.
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn of_batch(answers: &Tensor, embeddings: Option<&Tensor>) -> Result<Vec<Self>> {
        let answers = answers.to_vec2()?;
        let embeddings = match embeddings {
            Some(embeddings) => embeddings.to_vec2()?,
            None => vec![Vec::new(); answers.len()],
        };
        let rows = answers.into_iter().zip(embeddings);
        Ok(rows.map(|(answer, embedding)| Self { answer, embedding }).collect())
    }
}
