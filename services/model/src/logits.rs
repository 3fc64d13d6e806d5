//! What a network answers to a chunk.

/// The answer to a chunk, before it becomes probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    /// One for every label.
    pub genres: Vec<f32>,
    /// The log-odds of being music at all: infinite where the network cannot tell.
    pub music: f32,
}

impl Logits {
    /// The logits of a network that takes everything for music.
    #[must_use]
    pub fn of_music(genres: Vec<f32>) -> Self {
        Self { genres, music: f32::INFINITY }
    }

    /// The logits of a network with `labels` labels, from its answer: those of the labels, and that of being music, if it
    /// has one.
    #[must_use]
    pub fn of_answer(mut answer: Vec<f32>, labels: usize) -> Self {
        let music = answer.get(labels).copied().unwrap_or(f32::INFINITY);
        answer.truncate(labels);
        Self { genres: answer, music }
    }

    /// The probability of every label: the softmax of `genres / temperature`, times the probability of being music. They
    /// sum to that.
    #[must_use]
    pub fn probabilities(&self, temperature: f64) -> Vec<f32> {
        let greatest = self.genres.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> =
            self.genres.iter().map(|logit| (f64::from(logit - greatest) / temperature).exp()).collect();
        let sum: f64 = powers.iter().sum();
        let music = 1.0 / (1.0 + f64::from(-self.music).exp());
        powers.iter().map(|power| (music * power / sum) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_flatten_with_temperature() {
        let logits = Logits::of_music(vec![2.0, -1.0, 0.5]);
        let (sharp, flat) = (logits.probabilities(0.5), logits.probabilities(4.0));
        for probabilities in [&sharp, &flat] {
            assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
        assert!(sharp[0] > flat[0] && sharp[1] < flat[1]);
        assert_eq!(Logits::of_music(vec![1e30, 0.0]).probabilities(1.0), [1.0, 0.0]);
    }

    #[test]
    fn what_is_no_music_takes_from_all_labels() {
        let logits = Logits::of_answer(vec![2.0, -1.0, 0.0], 2);
        assert_eq!(logits, Logits { genres: vec![2.0, -1.0], music: 0.0 });
        let all = Logits::of_answer(vec![2.0, -1.0], 2).probabilities(1.0);
        for (share, whole) in logits.probabilities(1.0).iter().zip(all) {
            assert!((share - whole / 2.0).abs() < 1e-6);
        }
        assert_eq!(Logits { music: f32::NEG_INFINITY, ..logits }.probabilities(1.0), [0.0, 0.0]);
    }
}
