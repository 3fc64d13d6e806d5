//! The vote: from the probabilities of chunks to those of their track.
//!
//! A track's probabilities are the geometric means of its chunks', made to sum to 1: each chunk is a piece of evidence, and
//! evidence multiplies. On the validation tracks of GTZAN that was 1 to 3 points better than the arithmetic mean.
//!
//! A chunk's probabilities may sum to less than 1: the rest is the probability that it is nothing that the labels are for.
//! It is voted for as they are.

/// A probability below this counts as this much, so that no single chunk can rule a label out.
const LEAST_PROBABILITY: f64 = 1e-4;

/// How much a chunk's evidence for one label against another scatters around the track's own, as a variance of the
/// logarithm of their ratio. Over 639 tracks of GTZAN, heard by models that had not learnt them, it was 2.9; neighbours
/// overlap and are alike, with a correlation of 0.4, so that they count for fewer: 2.9 · 1.4 / 0.6.
const EVIDENCE_VARIANCE: f64 = 6.8;
/// The variance that the track's own evidence is expected to have. It decides how long a track with much or little of it
/// is listened to, and not how often that goes wrong.
const EXPECTED_VARIANCE: f64 = 4.0;

/// The votes of a track's chunks, counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Votes {
    /// The sum of the logarithms of each label's probabilities.
    labels: Vec<f64>,
    /// The same for none of them.
    none: f64,
    /// Whether any chunk may have been none of them.
    doubted: bool,
    chunks: usize,
}

impl Votes {
    /// No votes yet.
    #[must_use]
    pub fn new(labels: usize) -> Self {
        Self { labels: vec![0.0; labels], none: 0.0, doubted: false, chunks: 0 }
    }

    /// Counts a chunk, by the probability of every label.
    pub fn add(&mut self, probabilities: &[f32]) {
        let vote = |probability: f64| probability.max(LEAST_PROBABILITY).ln();
        for (sum, probability) in self.labels.iter_mut().zip(probabilities) {
            *sum += vote(f64::from(*probability));
        }
        let none = 1.0 - probabilities.iter().map(|probability| f64::from(*probability)).sum::<f64>();
        self.none += vote(none);
        self.doubted |= none > LEAST_PROBABILITY;
        self.chunks += 1;
    }

    /// Whether more chunks could hardly change what is the most probable: a label, or none of them.
    ///
    /// This is a sequential test, which may be asked after every chunk: that it ever says so of a track whose evidence would
    /// in the end be for another label has a probability of at most `error_rate`, where evidence scatters as expected. It is
    /// the mixture sequential probability ratio test (Robbins, 1970; Johari and others, "Peeking at A/B tests", 2017) of the
    /// leader against each of the others.
    #[must_use]
    pub fn is_settled(&self, error_rate: f64) -> bool {
        if error_rate <= 0.0 || self.chunks == 0 {
            return false;
        }
        let none = self.doubted.then_some(&self.none);
        let sums = || self.labels.iter().chain(none).copied();
        let (leader, second) = sums().fold((f64::NEG_INFINITY, f64::NEG_INFINITY), |(leader, second), sum| {
            (leader.max(sum), second.max(leader.min(sum)))
        });
        let chunks = self.chunks as f64;
        let spread = EVIDENCE_VARIANCE + chunks * EXPECTED_VARIANCE;
        let lead = (leader - second).powi(2) * EXPECTED_VARIANCE / (2.0 * EVIDENCE_VARIANCE * spread);
        let rivals = sums().skip(1).count() as f64;
        lead + (EVIDENCE_VARIANCE / spread).ln() / 2.0 >= (rivals / error_rate).ln()
    }

    /// The track's probability of every label. They sum to 1, unless it may be none of them. All are 0 where no chunk
    /// voted.
    #[must_use]
    pub fn probabilities(&self) -> Vec<f64> {
        if self.chunks == 0 {
            return vec![0.0; self.labels.len()];
        }
        let mean = |sum: &f64| sum / self.chunks as f64;
        let greatest = self.labels.iter().map(mean).fold(mean(&self.none), f64::max);
        let power = |sum: &f64| (mean(sum) - greatest).exp();
        let powers: Vec<f64> = self.labels.iter().map(power).collect();
        let none = if self.doubted { power(&self.none) } else { 0.0 };
        let sum = powers.iter().sum::<f64>() + none;
        powers.iter().map(|power| power / sum).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(chunks: &[[f32; 2]]) -> Vec<f64> {
        let mut votes = Votes::new(2);
        chunks.iter().for_each(|chunk| votes.add(chunk));
        votes.probabilities()
    }

    #[test]
    fn evidence_multiplies() {
        // √(0.9 · 0.2) against √(0.1 · 0.8)
        let expected = 0.18_f64.sqrt() / (0.18_f64.sqrt() + 0.08_f64.sqrt());
        assert!((track(&[[0.9, 0.1], [0.2, 0.8]])[0] - expected).abs() < 1e-6);
        assert!((track(&[[0.7, 0.3]; 5])[0] - 0.7).abs() < 1e-6, "chunks that agree are their track");
        assert_eq!(track(&[]), [0.0, 0.0]);
    }

    #[test]
    fn one_chunk_alone_rules_nothing_out() {
        let probabilities = track(&[[0.0, 1.0], [0.999, 0.001], [0.999, 0.001], [0.999, 0.001]]);
        assert!(probabilities[0] > 0.9, "{probabilities:?}");
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_no_label_has_is_voted_for_as_well() {
        // (0.6, 0.3, rest 0.1) and (0.1, 0.1, rest 0.8)
        let [first, second, none] = [0.06_f64.sqrt(), 0.03_f64.sqrt(), 0.08_f64.sqrt()];
        let found = track(&[[0.6, 0.3], [0.1, 0.1]]);
        assert!((found[0] - first / (first + second + none)).abs() < 1e-6);
        assert!((found[1] - second / (first + second + none)).abs() < 1e-6);
        let mostly_noise = track(&[[0.001, 0.001], [0.001, 0.001], [0.5, 0.5]]);
        assert!(mostly_noise.iter().sum::<f64>() < 0.3, "{mostly_noise:?}");
        assert!((track(&[[0.3, 0.7], [0.4, 0.6]]).iter().sum::<f64>() - 1.0).abs() < 1e-12, "nothing is left over");
    }

    #[test]
    fn a_vote_is_settled_when_the_lead_is_long() {
        let settled_after = |probabilities: &[f32], error_rate: f64| {
            let mut votes = Votes::new(probabilities.len());
            (1..=1_000).find(|_| {
                votes.add(probabilities);
                votes.is_settled(error_rate)
            })
        };
        let sure = settled_after(&[0.01, 0.98, 0.01], 0.05).unwrap();
        let leaning = settled_after(&[0.2, 0.6, 0.2], 0.05).unwrap();
        assert!(1 < sure && sure < leaning, "{sure} {leaning}");
        assert!(settled_after(&[0.2, 0.6, 0.2], 0.001).unwrap() > leaning);
        assert_eq!(settled_after(&[0.4, 0.4, 0.2], 0.05), None, "neither is ahead");
        assert_eq!(settled_after(&[0.01, 0.98, 0.01], 0.0), None, "no error is allowed");
        // What is none of the labels is a rival too.
        assert_eq!(settled_after(&[0.01, 0.49, 0.01], 0.05), None);
    }

    #[test]
    fn it_is_settled_wrongly_no_more_often_than_was_allowed() {
        use std::f64::consts::TAU;
        // Two labels of which neither is ahead in the long run: to settle is wrong, whichever leads.
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        let mut normal = || (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos();
        let tracks = 500;
        let wrong = (0..tracks).filter(|_| {
            let mut votes = Votes::new(2);
            (0..200).any(|_| {
                let ratio = (normal() * EVIDENCE_VARIANCE.sqrt()).exp();
                votes.add(&[(ratio / (1.0 + ratio)) as f32, (1.0 / (1.0 + ratio)) as f32]);
                votes.is_settled(0.1)
            })
        });
        assert!(wrong.count() <= tracks / 10);
    }
}
