//! What happened in every epoch of a run.

use serde::{Deserialize, Serialize};

/// Decimal places that a history keeps: so many that nothing is lost, and so few that JSON gives back the same numbers.
const PLACES: f64 = 1e10;

/// The scores of one epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochScores {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The learning rate at its end.
    pub learning_rate: f64,
    /// The mean loss of its batches, with dropout and augmentation.
    pub train_loss: f64,
    /// Share of the chunks of its batches that were told right, with dropout and augmentation.
    pub train_accuracy: f64,
    /// Mean over the validation tracks of −ln of the probability of their genre, if there are any.
    pub valid_loss: Option<f64>,
    /// Share of the validation tracks that were told right, if there are any.
    pub valid_accuracy: Option<f64>,
}

impl EpochScores {
    /// The same numbers, as a checkpoint gives them back.
    pub(crate) fn rounded(self) -> Self {
        let round = |value: f64| (value * PLACES).round() / PLACES;
        Self {
            epoch: self.epoch,
            learning_rate: round(self.learning_rate),
            train_loss: round(self.train_loss),
            train_accuracy: round(self.train_accuracy),
            valid_loss: self.valid_loss.map(round),
            valid_accuracy: self.valid_accuracy.map(round),
        }
    }

    /// Whether the averaged weights of this epoch are better than those of `other`.
    pub(crate) fn is_better_than(&self, other: &Self, goal: Goal) -> bool {
        let loss = |scores: &Self| scores.valid_loss.unwrap_or(f64::INFINITY);
        let accuracy = |scores: &Self| scores.valid_accuracy.unwrap_or(0.0);
        match goal {
            // Without validation tracks, the last epoch is the one to keep.
            _ if self.valid_loss.is_none() => true,
            Goal::LogLoss => loss(self) < loss(other),
            Goal::Accuracy if accuracy(self) == accuracy(other) => loss(self) < loss(other),
            Goal::Accuracy => accuracy(self) > accuracy(other),
        }
    }
}

/// What makes an epoch better than another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// The share of validation tracks that are told right, and among equals the loss.
    Accuracy,
    /// The loss on the validation tracks.
    LogLoss,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_comes_back_from_json_bit_by_bit() {
        let mut value = 0.123_456_789_f64;
        for epoch in 0..2_000 {
            value = (value * 1_103.515_245 + 0.012_345_7) % 7.0;
            let scores = EpochScores {
                epoch,
                learning_rate: value / 1e4,
                train_loss: value,
                train_accuracy: value / 7.0,
                valid_loss: Some(value * 3.0),
                valid_accuracy: None,
            };
            let scores = scores.rounded();
            let json = serde_json::to_string(&scores).unwrap();
            assert_eq!(serde_json::from_str::<EpochScores>(&json).unwrap(), scores, "{json}");
        }
    }
}
