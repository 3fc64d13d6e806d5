//! The vote: from the probabilities of chunks to those of their track.
//!
//! A track's probabilities are the geometric means of its chunks', made to sum to 1: each chunk is a piece of evidence, and
//! evidence multiplies. On the validation tracks of GTZAN that was 1 to 3 points better than the arithmetic mean.

/// A probability below this counts as this much, so that no single chunk can rule a genre out.
const LEAST_PROBABILITY: f64 = 1e-4;

/// What a chunk says for a genre to which it gives `probability`: a logarithm, to be summed over the chunks of a track.
#[must_use]
pub fn log_vote(probability: f32) -> f64 {
    f64::from(probability).max(LEAST_PROBABILITY).ln()
}

/// The probabilities of a track with `chunks` voting chunks, at least one, from the sums of its [`log_vote`]s.
#[must_use]
pub fn track_probabilities(log_votes: &[f64], chunks: usize) -> Vec<f64> {
    let means: Vec<f64> = log_votes.iter().map(|sum| sum / chunks as f64).collect();
    let greatest = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = means.iter().map(|mean| (mean - greatest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(chunks: &[[f32; 2]]) -> Vec<f64> {
        let sum = |label: usize| chunks.iter().map(|chunk| log_vote(chunk[label])).sum();
        track_probabilities(&[sum(0), sum(1)], chunks.len())
    }

    #[test]
    fn evidence_multiplies() {
        // √(0.9 · 0.2) against √(0.1 · 0.8)
        let expected = 0.18_f64.sqrt() / (0.18_f64.sqrt() + 0.08_f64.sqrt());
        assert!((track(&[[0.9, 0.1], [0.2, 0.8]])[0] - expected).abs() < 1e-6);
        assert!((track(&[[0.7, 0.3]; 5])[0] - 0.7).abs() < 1e-6, "chunks that agree are their track");
    }

    #[test]
    fn one_chunk_alone_rules_nothing_out() {
        let probabilities = track(&[[0.0, 1.0], [0.999, 0.001], [0.999, 0.001], [0.999, 0.001]]);
        assert!(probabilities[0] > 0.9, "{probabilities:?}");
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
