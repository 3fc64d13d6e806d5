//! How to train a network.

use serde::Serialize;

use crate::{BatchOptions, Decline, Goal, OptimizerOptions, Result, Schedule, TrainerError};

/// How to train.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LearnOptions {
    /// The most passes over the training chunks.
    pub epochs: usize,
    /// What batches are made of.
    pub batches: BatchOptions,
    /// The learning rate of every step.
    pub schedule: Schedule,
    /// How a step is taken.
    pub optimizer: OptimizerOptions,
    /// The weights that are measured and kept are a running mean over steps: this much of it is kept in each.
    pub averaging: f64,
    /// What makes an epoch better than another one.
    pub goal: Goal,
    /// Epochs without a better result on the validation tracks after which training ends.
    pub patience: usize,
}

impl LearnOptions {
    /// Those of the network `seed-cnn`: Adam as published, without decay or a schedule.
    #[must_use]
    pub fn seed_cnn(seed: u64) -> Self {
        Self {
            epochs: 40,
            batches: BatchOptions {
                batch: 32,
                label_smoothing: 0.0,
                mix: 0.0,
                time_shift: false,
                equal_tracks: false,
                seed,
            },
            schedule: Schedule { learning_rate: 1e-4, warm_up: 0.0, decline: Decline::Constant },
            optimizer: OptimizerOptions { weight_decay: 0.0, clip: None, ..OptimizerOptions::default() },
            averaging: 0.99,
            goal: Goal::Accuracy,
            patience: 12,
        }
    }

    /// Those of an ensemble that starts from pretrained convolutions.
    #[must_use]
    pub fn ensemble(seed: u64) -> Self {
        Self {
            epochs: 8,
            batches: BatchOptions {
                batch: 64,
                label_smoothing: 0.1,
                mix: 0.25,
                time_shift: true,
                equal_tracks: true,
                seed,
            },
            schedule: Schedule { learning_rate: 1e-3, warm_up: 0.5, decline: Decline::Cosine(0.02) },
            optimizer: OptimizerOptions { weight_decay: 0.05, clip: None, ..OptimizerOptions::default() },
            averaging: 0.995,
            goal: Goal::LogLoss,
            patience: 8,
        }
    }

    /// Checks that every value makes sense.
    ///
    /// # Errors
    /// [`TrainerError::Option`] naming the first one that does not.
    pub fn check(&self) -> Result<()> {
        let option = |fits: bool, option, expected, found: String| {
            if fits { Ok(()) } else { Err(TrainerError::Option { option, expected, found }) }
        };
        let (batches, rate, decay) = (&self.batches, self.schedule.learning_rate, self.optimizer.weight_decay);
        option((1..=100_000).contains(&self.epochs), "epochs", "1 to 100000", self.epochs.to_string())?;
        option((1..=65_536).contains(&batches.batch), "batch", "1 to 65536", batches.batch.to_string())?;
        option(rate > 0.0 && rate <= 1.0, "learning rate", "above 0, at most 1", rate.to_string())?;
        option((0.0..=10.0).contains(&decay), "weight decay", "0 to 10", decay.to_string())?;
        let smoothing = batches.label_smoothing;
        option((0.0..1.0).contains(&smoothing), "label smoothing", "0 to below 1", smoothing.to_string())?;
        option((0.0..=1.0).contains(&batches.mix), "mix", "0 to 1", batches.mix.to_string())?;
        option((0.0..1.0).contains(&self.averaging), "averaging", "0 to below 1", self.averaging.to_string())?;
        let warm_up = self.schedule.warm_up;
        option((0.0..=1e6).contains(&warm_up), "warm-up", "0 to 1000000 epochs", warm_up.to_string())?;
        let clip = self.optimizer.clip;
        option(clip.is_none_or(|clip| clip > 0.0), "clip", "above 0", clip.unwrap_or_default().to_string())?;
        option(self.patience > 0, "patience", "at least 1", self.patience.to_string())
    }
}
