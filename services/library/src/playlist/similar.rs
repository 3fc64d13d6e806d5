//! How alike tracks are: by what the network heard, or else by what it said.

use std::cmp::Ordering;

use crate::KnownTrack;

/// Tracks with their likeness to another, the most alike first.
#[derive(Debug, Clone)]
pub(crate) struct Ranked<'a> {
    pub(crate) tracks: Vec<(&'a KnownTrack, f64)>,
    /// Whether only probabilities of genres were compared.
    pub(crate) by_probabilities: bool,
    /// Tracks that could not be compared.
    pub(crate) left_out: usize,
}

/// Ranks `tracks` by their likeness to `like`, from 0 for nothing in common to 1 for the same. Embeddings are compared if
/// `like` and any other track have one of the same model; tracks of other models are left out then.
pub(crate) fn rank<'a>(tracks: &[&'a KnownTrack], like: &KnownTrack) -> Ranked<'a> {
    let embedded = likenesses(tracks, |track| by_embedding(track, like));
    let others = embedded.iter().filter(|(track, _)| track.path != like.path).count();
    let by_probabilities = others == 0;
    let mut ranked = if by_probabilities { likenesses(tracks, |track| by_genres(track, like)) } else { embedded };
    ranked.sort_by(|(one, one_likeness), (other, other_likeness)| {
        let is_like = |track: &KnownTrack| track.path == like.path;
        let itself_first = is_like(other).cmp(&is_like(one));
        itself_first.then_with(|| other_likeness.total_cmp(one_likeness)).then_with(|| one.path.cmp(&other.path))
    });
    Ranked { left_out: tracks.len() - ranked.len(), tracks: ranked, by_probabilities }
}

fn likenesses<'a>(
    tracks: &[&'a KnownTrack],
    likeness: impl Fn(&KnownTrack) -> Option<f64>,
) -> Vec<(&'a KnownTrack, f64)> {
    tracks.iter().filter_map(|&track| likeness(track).map(|likeness| (track, likeness))).collect()
}

/// The inner product of what the same model heard.
fn by_embedding(one: &KnownTrack, other: &KnownTrack) -> Option<f64> {
    let (one_vector, other_vector) = (&one.embedding, &other.embedding);
    let comparable = one.model_version == other.model_version && one_vector.len() == other_vector.len();
    if !comparable || one_vector.is_empty() {
        return None;
    }
    let product: f64 =
        one_vector.iter().zip(other_vector).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum();
    product.is_finite().then_some(product)
}

/// The inner product of the square roots of the probabilities (Bhattacharyya's coefficient), for models with the same genres.
fn by_genres(one: &KnownTrack, other: &KnownTrack) -> Option<f64> {
    if one.probabilities.is_empty() || one.probabilities.len() != other.probabilities.len() {
        return None;
    }
    let products = one.probabilities.iter().map(|(genre, probability)| {
        let same = other.probabilities.iter().find(|(other_genre, _)| other_genre == genre);
        same.map(|(_, other_probability)| (probability.max(0.0) * other_probability.max(0.0)).sqrt())
    });
    products.sum::<Option<f64>>().filter(|sum| sum.partial_cmp(&0.0).is_some_and(Ordering::is_ge))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playlist::testing::track;

    fn heard(path: &str, model: &str, embedding: &[f32]) -> KnownTrack {
        KnownTrack { embedding: embedding.to_vec(), model_version: model.to_owned(), ..track(path, "jazz", "A") }
    }

    fn order<'a>(ranked: &Ranked<'a>) -> Vec<&'a str> {
        ranked.tracks.iter().filter_map(|(track, _)| track.path.to_str()).collect()
    }

    #[test]
    fn the_nearest_comes_first_and_other_models_are_left_out() {
        let like = heard("like", "m1", &[1.0, 0.0]);
        let tracks = [
            heard("far", "m1", &[0.0, 1.0]),
            heard("other", "m2", &[1.0, 0.0]),
            heard("near", "m1", &[0.8, 0.6]),
            like.clone(),
        ];
        let ranked = rank(&tracks.each_ref(), &like);
        assert_eq!(order(&ranked), ["like", "near", "far"]);
        assert!((ranked.tracks[1].1 - 0.8).abs() < 1e-6);
        assert!(!ranked.by_probabilities);
        assert_eq!(ranked.left_out, 1);
    }

    #[test]
    fn without_embeddings_the_probabilities_say_what_is_alike() {
        let said = |path: &str, jazz: f64| KnownTrack {
            probabilities: vec![("jazz".to_owned(), jazz), ("blues".to_owned(), 1.0 - jazz)],
            ..track(path, "jazz", "A")
        };
        let tracks = [said("blues", 0.1), said("like", 0.9), said("near", 0.8)];
        let ranked = rank(&tracks.each_ref(), &tracks[1]);
        assert_eq!(order(&ranked), ["like", "near", "blues"]);
        assert!(ranked.by_probabilities);
        assert_eq!(ranked.left_out, 0);
    }

    #[test]
    fn nonsense_in_an_index_is_left_out() {
        let like = heard("like", "m1", &[1.0, 0.0]);
        let tracks =
            [heard("nan", "m1", &[f32::NAN, 0.0]), heard("short", "m1", &[1.0]), heard("well", "m1", &[0.5, 0.5])];
        assert_eq!(order(&rank(&tracks.each_ref(), &like)), ["well"]);
    }
}
