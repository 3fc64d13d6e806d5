//! How the learning rate changes over a run.

use std::f64::consts::PI;

use serde::Serialize;

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decline {
    /// It stays.
    Constant,
    /// It falls along half a cosine, to this share of itself at the end of the run.
    Cosine(f64),
}

/// The learning rate of every step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// The greatest learning rate.
    pub learning_rate: f64,
    /// Epochs over which it rises from almost nothing; fractions are fine.
    pub warm_up: f64,
    /// What comes then.
    pub decline: Decline,
}

impl Schedule {
    /// The learning rate of a step, from 0, of a run of `epochs` epochs of `epoch_steps` steps.
    #[must_use]
    pub fn at(&self, step: u64, epoch_steps: u64, epochs: usize) -> f64 {
        let all = epoch_steps as f64 * epochs as f64;
        let warm_up = (self.warm_up * epoch_steps as f64).min(all);
        let done = step as f64 + 1.0;
        if done < warm_up {
            return self.learning_rate * done / warm_up;
        }
        match self.decline {
            Decline::Constant => self.learning_rate,
            Decline::Cosine(floor) => {
                let progress = ((done - warm_up) / (all - warm_up).max(1.0)).clamp(0.0, 1.0);
                self.learning_rate * (floor + (1.0 - floor) * (1.0 + (PI * progress).cos()) / 2.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_falls_to_the_floor() {
        let schedule = Schedule { learning_rate: 1.0, warm_up: 2.0, decline: Decline::Cosine(0.1) };
        let rates: Vec<f64> = (0..100).map(|step| schedule.at(step, 10, 10)).collect();
        assert!((rates[0] - 0.05).abs() < 1e-12 && (rates[19] - 1.0).abs() < 1e-12);
        assert!(rates[..20].is_sorted() && rates[19..].iter().rev().is_sorted());
        assert!((rates[99] - 0.1).abs() < 1e-9 && (rates[59] - 0.55).abs() < 1e-9, "{rates:?}");
        let constant = Schedule { warm_up: 0.0, decline: Decline::Constant, ..schedule };
        assert!((0..100).all(|step| constant.at(step, 10, 10) == 1.0));
    }
}
