//! Counting right and wrong answers.

use chorale_model::{Logits, Votes};
use serde::Serialize;

/// 95 % of a normal distribution lie within this many standard deviations.
const Z_95: f64 = 1.959_963_984_540_054;
const LEAST_PROBABILITY: f64 = 1e-12;

/// The verdict on one track.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The track's name.
    pub track: String,
    /// What it is.
    pub genre: String,
    /// What the model says: the genre with the greatest probability.
    pub predicted: String,
    /// The probability of `predicted`.
    pub confidence: f32,
    /// The probability of every genre: the geometric mean over the track's chunks, made to sum to 1 together with that of
    /// being none of them. In the order of the model's labels.
    pub probabilities: Vec<f32>,
    /// Chunks that voted.
    pub chunks: usize,
}

impl Prediction {
    /// Whether the track is what the model says.
    pub(crate) fn is_right(&self) -> bool {
        self.genre == self.predicted
    }
}

/// How well one genre is told from the others. A ratio over nothing is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GenreScores {
    /// The genre.
    pub genre: String,
    /// Of the tracks said to be of this genre, the share that are.
    pub precision: Option<f64>,
    /// Of the tracks of this genre, the share said to be.
    pub recall: Option<f64>,
    /// The harmonic mean of both.
    pub f1: Option<f64>,
    /// Tracks of this genre.
    pub support: usize,
}

/// The logits of a track's chunks, and its genre as an index of the labels.
pub(crate) struct ScoredTrack {
    pub(crate) name: String,
    pub(crate) genre: usize,
    /// Those of every chunk, at least one.
    pub(crate) logits: Vec<Logits>,
}

impl ScoredTrack {
    /// The track's probabilities, as the gateway's vote has them.
    pub(crate) fn probabilities(&self, temperature: f64) -> Vec<f32> {
        self.early(temperature, 0.0).0
    }

    /// The track's probabilities after the chunks that a vote needs to be settled at `error_rate`, and how many those are:
    /// all of them where it never is.
    pub(crate) fn early(&self, temperature: f64, error_rate: f64) -> (Vec<f32>, usize) {
        let mut votes = Votes::new(self.logits.first().map_or(0, |logits| logits.genres.len()));
        let mut heard = 0;
        for logits in &self.logits {
            votes.add(&logits.probabilities(temperature));
            heard += 1;
            if votes.is_settled(error_rate) {
                break;
            }
        }
        (votes.probabilities().iter().map(|probability| *probability as f32).collect(), heard)
    }

    /// Chunks whose greatest logit is that of the track's genre.
    pub(crate) fn chunks_right(&self) -> usize {
        self.logits.iter().filter(|logits| greatest(&logits.genres) == self.genre).count()
    }
}

/// The index of the greatest value, the first among equals.
pub(crate) fn greatest(values: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, value) in values.iter().enumerate() {
        if *value > best.1 {
            best = (index, *value);
        }
    }
    best.0
}

/// Share of tracks whose greatest probability is that of their genre.
pub(crate) fn track_accuracy(tracks: &[ScoredTrack], temperature: f64) -> f64 {
    let right = tracks.iter().filter(|track| greatest(&track.probabilities(temperature)) == track.genre).count();
    right as f64 / tracks.len() as f64
}

/// The mean over tracks of minus the logarithm of the probability of the track's genre.
pub(crate) fn track_log_loss(tracks: &[ScoredTrack], temperature: f64) -> f64 {
    let loss = |track: &ScoredTrack| {
        let mean = track.probabilities(temperature);
        -mean.get(track.genre).map_or(0.0, |mean| f64::from(*mean)).max(LEAST_PROBABILITY).ln()
    };
    tracks.iter().map(loss).sum::<f64>() / tracks.len() as f64
}

/// The temperature from 0.25 to 4 with the least [`track_log_loss`], to a hundredth.
///
/// Where all tracks are right, as few tracks easily are, the surest model has the least loss, which says nothing about how sure
/// it may be: then it becomes no surer than it is.
pub(crate) fn fit_temperature(tracks: &[ScoredTrack]) -> f64 {
    let least = if track_accuracy(tracks, 1.0) < 1.0 { 25 } else { 100 };
    let candidates = (least..=400).map(|hundredths| f64::from(hundredths) / 100.0);
    let losses = candidates.map(|temperature| (track_log_loss(tracks, temperature), temperature));
    losses.min_by(|(left, _), (right, _)| left.total_cmp(right)).map_or(1.0, |(_, temperature)| temperature)
}

/// The 95 % Wilson score interval of `right` out of `all`: low, high.
#[must_use]
pub fn wilson_interval(right: usize, all: usize) -> [f64; 2] {
    if all == 0 {
        return [0.0, 1.0];
    }
    let (all, share) = (all as f64, right as f64 / all as f64);
    let z2 = Z_95 * Z_95;
    let centre = (share + z2 / (2.0 * all)) / (1.0 + z2 / all);
    let half = Z_95 / (1.0 + z2 / all) * (share * (1.0 - share) / all + z2 / (4.0 * all * all)).sqrt();
    [(centre - half).max(0.0), (centre + half).min(1.0)]
}

/// The scores of every genre from the confusion matrix `[genre][said to be]`.
pub(crate) fn genre_scores(labels: &[String], confusion: &[Vec<usize>]) -> Vec<GenreScores> {
    let ratio = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    (labels.iter().zip(confusion).enumerate())
        .map(|(index, (genre, row))| {
            let right = row.get(index).copied().unwrap_or(0);
            let support: usize = row.iter().sum();
            let said: usize = confusion.iter().filter_map(|row| row.get(index)).sum();
            GenreScores {
                genre: genre.clone(),
                precision: ratio(right, said),
                recall: ratio(right, support),
                f1: ratio(2 * right, said + support),
                support,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(genre: usize, logits: &[[f32; 2]]) -> ScoredTrack {
        ScoredTrack {
            name: String::new(),
            genre,
            logits: logits.iter().map(|logits| Logits::of_music(logits.to_vec())).collect(),
        }
    }

    #[test]
    fn a_track_is_decided_by_the_mean_of_probabilities_not_of_votes() {
        let tracks = [track(0, &[[3.0, 0.0], [0.0, 0.1], [0.0, 0.1]]), track(1, &[[1.0, 0.0]])];
        assert_eq!(track_accuracy(&tracks, 1.0), 0.5);
        assert_eq!(tracks[0].chunks_right(), 1);
        assert!((tracks[0].probabilities(1.0).iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_temperature_makes_confidence_as_great_as_accuracy() {
        // Three of four are right, so the best confidence is 0.75: a logit of ln 3.
        let tracks: Vec<ScoredTrack> = (0..4).map(|index| track(usize::from(index == 0), &[[2.0, 0.0]])).collect();
        let temperature = fit_temperature(&tracks);
        assert!((temperature - 2.0 / 3.0_f64.ln()).abs() < 0.01, "{temperature}");
    }

    #[test]
    fn a_model_that_is_right_about_every_track_becomes_no_surer() {
        let tracks = [track(0, &[[2.0, 0.0]]), track(1, &[[0.0, 1.0]])];
        assert_eq!(fit_temperature(&tracks), 1.0);
        let wrong = [track(0, &[[4.0, 0.0]]), track(1, &[[0.0, 4.0]]), track(1, &[[0.01, 0.0]])];
        assert!(fit_temperature(&wrong) < 1.0);
    }

    #[test]
    fn wilson_intervals_are_those_of_the_textbook() {
        let [low, high] = wilson_interval(140, 197);
        assert!((low - 0.6437).abs() < 5e-4 && (high - 0.7695).abs() < 5e-4, "{low} {high}");
        assert_eq!(wilson_interval(0, 0), [0.0, 1.0]);
        assert!(wilson_interval(0, 10)[0] < 1e-12 && wilson_interval(10, 10)[1] > 1.0 - 1e-12);
    }

    #[test]
    fn scores_follow_from_the_confusion_matrix() {
        let labels = ["a", "b", "c"].map(str::to_owned);
        let scores = genre_scores(&labels, &[vec![3, 1, 0], vec![2, 2, 0], vec![0, 0, 0]]);
        assert_eq!((scores[0].precision, scores[0].recall, scores[0].support), (Some(0.6), Some(0.75), 4));
        assert!((scores[0].f1.unwrap() - 2.0 * 0.6 * 0.75 / 1.35).abs() < 1e-12);
        assert_eq!((scores[2].precision, scores[2].recall, scores[2].f1), (None, None, None));
    }
}
