//! Embeddings: what a network hears before it names a genre, as a place among all that it could hear.
//!
//! A chunk's embedding `[embedding]` is what comes out of the network's last layer before the genres: how many numbers that
//! are says [`ModelFolder::embedding_length`](crate::ModelFolder::embedding_length). A track's is the mean of its chunks',
//! scaled to length 1, so that the inner product of two tracks is the cosine of the angle between them. Only embeddings of the
//! same version of a model can be compared.

/// The most numbers that an embedding has, of any model: a longer one was made up.
pub const MAX_EMBEDDING: usize = 4_096;
/// How far the length of a track's embedding may be from 1, by rounding.
const LENGTH_TOLERANCE: f64 = 1e-3;

/// The mean of the embeddings of a track's chunks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeanEmbedding {
    sums: Vec<f64>,
}

impl MeanEmbedding {
    /// Counts a chunk. False, and nothing is counted, if no model could have heard it in this track: an embedding that is
    /// empty, too long or of another length than those before, or has a number that is not finite.
    #[must_use]
    pub fn add(&mut self, embedding: &[f32]) -> bool {
        let fits = self.sums.is_empty() || self.sums.len() == embedding.len();
        if !(fits && is_embedding(embedding)) {
            return false;
        }
        self.sums.resize(embedding.len(), 0.0);
        for (sum, value) in self.sums.iter_mut().zip(embedding) {
            *sum += f64::from(*value);
        }
        true
    }

    /// The track's embedding, `[embedding]`, of length 1. Empty where no chunk was counted, or nothing but zeros.
    #[must_use]
    pub fn of_track(&self) -> Vec<f32> {
        // The mean and the sum point the same way.
        let length = length(self.sums.iter().copied());
        if length > 0.0 { self.sums.iter().map(|sum| (sum / length) as f32).collect() } else { Vec::new() }
    }
}

/// Whether a network could say this of a chunk.
#[must_use]
pub fn is_embedding(values: &[f32]) -> bool {
    (1..=MAX_EMBEDDING).contains(&values.len()) && values.iter().all(|value| value.is_finite())
}

/// Whether this could be the embedding of a track: one of length 1.
#[must_use]
pub fn is_track_embedding(values: &[f32]) -> bool {
    is_embedding(values) && (length(values.iter().copied().map(f64::from)) - 1.0).abs() <= LENGTH_TOLERANCE
}

fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(chunks: &[&[f32]]) -> Vec<f32> {
        let mut mean = MeanEmbedding::default();
        for chunk in chunks {
            assert!(mean.add(chunk), "{chunk:?}");
        }
        mean.of_track()
    }

    #[test]
    fn a_track_points_where_its_chunks_point_on_average() {
        assert_eq!(mean(&[&[3.0, 4.0]]), [0.6, 0.8]);
        assert_eq!(mean(&[&[6.0, 0.0], &[0.0, 8.0], &[0.0, 0.0]]), [0.6, 0.8]);
        assert!(is_track_embedding(&mean(&[&[f32::MAX, f32::MIN], &[f32::MAX, f32::MIN]])));
        assert!(is_track_embedding(&mean(&[&[1e-38, 0.0, 1e-38]])));
    }

    #[test]
    fn what_has_no_direction_has_no_embedding() {
        assert_eq!(mean(&[]), [0.0; 0]);
        assert_eq!(mean(&[&[0.0, 0.0]]), [0.0; 0]);
        assert_eq!(mean(&[&[1.0, -2.0], &[-1.0, 2.0]]), [0.0; 0]);
    }

    #[test]
    fn what_no_model_could_have_heard_is_not_counted() {
        let mut mean = MeanEmbedding::default();
        for none in [&[][..], &[f32::NAN], &[1.0, f32::INFINITY], &[0.5; MAX_EMBEDDING + 1]] {
            assert!(!mean.add(none));
        }
        assert!(mean.add(&[0.0, 2.0]));
        for other in [&[1.0][..], &[1.0; 3], &[1.0, f32::NEG_INFINITY]] {
            assert!(!mean.add(other));
        }
        assert_eq!(mean.of_track(), [0.0, 1.0]);
        assert!(!is_track_embedding(&[0.5, 0.5]) && !is_track_embedding(&[]) && !is_track_embedding(&[f32::NAN, 1.0]));
    }
}
