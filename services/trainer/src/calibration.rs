//! Whether a confidence means what it says, and which mistakes it should have prevented.

use serde::Serialize;

use crate::Prediction;

/// Bins of a reliability diagram, all equally wide.
const BINS: usize = 10;
/// Steps of confidence from 0 to 1 that the smooth calibration error tells apart.
const STEPS: usize = 500;
/// Halvings of the interval in which the width of its smoothing is looked for.
const HALVINGS: usize = 20;
/// How many of the surest mistakes are told.
const MISTAKES: usize = 10;

/// The tracks whose confidence is from `lower` to below `upper`; the last bin holds a confidence of 1 too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// The least confidence of the bin.
    pub lower: f64,
    /// Where the next bin starts.
    pub upper: f64,
    /// Tracks in the bin.
    pub tracks: usize,
    /// The share of them that the model is right about; none in an empty bin.
    pub accuracy: Option<f64>,
    /// Their mean confidence; none in an empty bin.
    pub mean_confidence: Option<f64>,
}

/// A track that the model is sure of, and wrong about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SurestMistake {
    /// The track's name.
    pub track: String,
    /// What it is.
    pub genre: String,
    /// What the model says.
    pub predicted: String,
    /// The probability of `predicted`.
    pub confidence: f64,
    /// The probability of `genre`.
    pub genre_probability: f64,
}

/// Tracks by confidence, in bins of equal width, the least confident first.
pub(crate) fn reliability(predictions: &[Prediction]) -> Vec<ReliabilityBin> {
    // A cast keeps the last bin from a confidence of 1, or one that rounding took beyond it.
    let bin_of = |confidence: f32| ((f64::from(confidence) * BINS as f64) as usize).min(BINS - 1);
    (0..BINS)
        .map(|bin| {
            let inside = || predictions.iter().filter(move |prediction| bin_of(prediction.confidence) == bin);
            let tracks = inside().count();
            let right = inside().filter(|prediction| prediction.is_right()).count();
            let confidence: f64 = inside().map(|prediction| f64::from(prediction.confidence)).sum();
            let mean = |sum: f64| (tracks > 0).then(|| sum / tracks as f64);
            ReliabilityBin {
                lower: bin as f64 / BINS as f64,
                upper: (bin + 1) as f64 / BINS as f64,
                tracks,
                accuracy: mean(right as f64),
                mean_confidence: mean(confidence),
            }
        })
        .collect()
}

/// The mean over tracks of how far the confidence of a track's bin is from the accuracy of the bin.
pub(crate) fn expected_calibration_error(bins: &[ReliabilityBin]) -> f64 {
    let tracks: usize = bins.iter().map(|bin| bin.tracks).sum();
    let gap = |bin: &ReliabilityBin| Some((bin.accuracy? - bin.mean_confidence?).abs() * bin.tracks as f64);
    bins.iter().filter_map(gap).sum::<f64>() / tracks.max(1) as f64
}

/// About the [`expected_calibration_error`] of a model that is right exactly as often as it is sure: with few tracks in a
/// bin, their accuracy is off by chance. It is the mean absolute deviation of a binomial share, by its normal approximation.
pub(crate) fn calibration_error_by_chance(bins: &[ReliabilityBin]) -> f64 {
    let tracks: usize = bins.iter().map(|bin| bin.tracks).sum();
    let deviation = |bin: &ReliabilityBin| {
        let confidence = bin.mean_confidence?;
        let variance = confidence * (1.0 - confidence).max(0.0) * bin.tracks as f64;
        Some((variance * std::f64::consts::FRAC_2_PI).sqrt())
    };
    bins.iter().filter_map(deviation).sum::<f64>() / tracks.max(1) as f64
}

/// How far confidence is from accuracy, without bins: how much is left of the differences when those at similar confidences
/// have cancelled each other, under a Gaussian that is as wide as the error itself and mirrored at 0 and 1. It changes as
/// little as the confidences do, where bins change when a track moves from one to the next (Błasiok and Nakkiran, "Smooth
/// ECE: principled reliability diagrams via kernel smoothing", 2024).
pub(crate) fn smooth_calibration_error(predictions: &[Prediction]) -> f64 {
    let mut gaps = vec![0.0_f64; STEPS];
    for prediction in predictions {
        let confidence = f64::from(prediction.confidence);
        let step = ((confidence * STEPS as f64) as usize).min(STEPS - 1);
        let gap = f64::from(u8::from(prediction.is_right())) - confidence;
        gaps.iter_mut().skip(step).take(1).for_each(|sum| *sum += gap / predictions.len() as f64);
    }
    // What is left falls as the width grows.
    let (mut narrow, mut wide) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let width = f64::midpoint(narrow, wide);
        if left_under(&gaps, width) > width {
            narrow = width;
        } else {
            wide = width;
        }
    }
    f64::midpoint(narrow, wide)
}

/// The sum over confidences of the absolute of `gaps` under a Gaussian of this width, mirrored at both ends.
fn left_under(gaps: &[f64], width: f64) -> f64 {
    let count = gaps.len();
    let gaussian = |steps: usize| (-0.5 * (steps as f64 / count as f64 / width).powi(2)).exp();
    let all = (1..5 * count).map(gaussian).sum::<f64>() * 2.0 + gaussian(0);
    // Seen in two mirrors, everything comes again after twice the range.
    let seen = |steps: usize| {
        let again = (1..3).map(|times| gaussian(2 * times * count - steps) + gaussian(2 * times * count + steps));
        (gaussian(steps) + again.sum::<f64>()) / all
    };
    let kernel: Vec<f64> = (0..2 * count).map(seen).collect();
    let smooth = |at: usize| {
        let parts = gaps.iter().enumerate().filter(|(_, gap)| **gap != 0.0).map(|(from, gap)| {
            let share = [at.abs_diff(from), at + from + 1].iter().filter_map(|steps| kernel.get(*steps)).sum::<f64>();
            gap * share
        });
        parts.sum::<f64>().abs()
    };
    (0..count).map(smooth).sum()
}

/// The tracks that the model is most surely wrong about, the surest first.
pub(crate) fn surest_mistakes(predictions: &[Prediction], labels: &[String]) -> Vec<SurestMistake> {
    let mut mistakes: Vec<&Prediction> = predictions.iter().filter(|prediction| !prediction.is_right()).collect();
    mistakes
        .sort_by(|left, right| right.confidence.total_cmp(&left.confidence).then_with(|| left.track.cmp(&right.track)));
    mistakes.truncate(MISTAKES);
    (mistakes.into_iter())
        .map(|mistake| {
            let genre = labels.iter().position(|label| *label == mistake.genre);
            let probability = genre.and_then(|genre| mistake.probabilities.get(genre)).copied().unwrap_or_default();
            SurestMistake {
                track: mistake.track.clone(),
                genre: mistake.genre.clone(),
                predicted: mistake.predicted.clone(),
                confidence: f64::from(mistake.confidence),
                genre_probability: f64::from(probability),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::chance::source;

    /// A track that is `a`, with these probabilities of `a` and `b`.
    fn prediction(track: &str, probabilities: [f32; 2]) -> Prediction {
        let [right, wrong] = probabilities;
        Prediction {
            track: track.to_owned(),
            genre: "a".to_owned(),
            predicted: if right >= wrong { "a" } else { "b" }.to_owned(),
            confidence: right.max(wrong),
            probabilities: probabilities.to_vec(),
            chunks: 1,
        }
    }

    #[test]
    fn bins_are_equally_wide_and_hold_their_lower_end() {
        let bins = reliability(&[
            prediction("half", [0.5, 0.5]),
            prediction("wrong", [0.4375, 0.5625]),
            prediction("sure", [1.0, 0.0]),
            prediction("rounded up", [1.000_001, 0.0]),
        ]);
        assert_eq!(bins.len(), 10);
        assert_eq!((bins[5].lower, bins[5].upper, bins[5].tracks), (0.5, 0.6, 2));
        assert_eq!((bins[5].accuracy, bins[5].mean_confidence), (Some(0.5), Some(0.531_25)));
        assert_eq!((bins[9].tracks, bins[9].accuracy), (2, Some(1.0)));
        assert_eq!((bins[0].tracks, bins[0].accuracy, bins[0].mean_confidence), (0, None, None));
        assert_eq!(bins.iter().map(|bin| bin.tracks).sum::<usize>(), 4);
    }

    #[test]
    fn the_calibration_error_is_the_weighted_gap_of_the_bins() {
        let predictions = [
            prediction("a", [0.75, 0.25]),
            prediction("b", [0.25, 0.75]),
            prediction("c", [0.75, 0.25]),
            prediction("d", [1.0, 0.0]),
        ];
        // Two of three are right at a confidence of 0.75, and one of one at 1.
        let expected = 0.75 * (0.75 - 2.0 / 3.0);
        let found = expected_calibration_error(&reliability(&predictions));
        assert!((found - expected).abs() < 1e-12, "{found}");
        assert_eq!(expected_calibration_error(&reliability(&[])), 0.0);
    }

    #[test]
    fn the_smooth_error_is_a_steady_gap_and_differences_nearby_cancel() {
        let error = |shares: &[(f32, usize, usize)]| {
            let tracks = shares.iter().flat_map(|(confidence, right, wrong)| {
                let right = (0..*right).map(move |_| prediction("a", [*confidence, 1.0 - confidence]));
                right.chain((0..*wrong).map(move |_| prediction("b", [1.0 - confidence, *confidence])))
            });
            let tracks: Vec<Prediction> = tracks.collect();
            (smooth_calibration_error(&tracks), expected_calibration_error(&reliability(&tracks)))
        };
        // Right half as often as it says, wherever that is: nothing cancels, and nothing is lost beyond the ends.
        for (confidence, gap) in [(0.752, 0.252), (0.998, 0.498), (0.502, 0.002)] {
            let (smooth, _) = error(&[(confidence, 1, 1)]);
            assert!((smooth - gap).abs() < 1e-3, "{smooth} {gap}");
        }
        // On either side of the end of a bin, too unsure and too sure by as much.
        let (smooth, binned) = error(&[(0.699, 9, 1), (0.701, 5, 5)]);
        assert!(smooth < 0.025 && binned > 0.19, "{smooth} {binned}");
        // Far apart, they do not cancel.
        let (smooth, binned) = error(&[(0.55, 8, 2), (0.95, 7, 3)]);
        assert!(smooth > 0.15 && binned > 0.24, "{smooth} {binned}");
        assert!(smooth_calibration_error(&[]) < 1e-5);
    }

    #[test]
    fn chance_alone_makes_a_calibration_error_that_fades_with_the_number_of_tracks() {
        let mut random = source(1, "calibration", 0);
        for (tracks, within) in [(200, 0.07), (20_000, 0.007)] {
            let simulate = |_| {
                let drawn = (0..tracks).map(|_| {
                    let confidence = random.random_range(0.5..1.0_f32);
                    let is_right = random.random::<f32>() < confidence;
                    // The genre is `a`.
                    prediction(
                        "a",
                        if is_right { [confidence, 1.0 - confidence] } else { [1.0 - confidence, confidence] },
                    )
                });
                let bins = reliability(&drawn.collect::<Vec<_>>());
                [expected_calibration_error(&bins), calibration_error_by_chance(&bins)]
            };
            let runs: Vec<[f64; 2]> = (0..20).map(simulate).collect();
            let mean = |column: usize| runs.iter().map(|run| run[column]).sum::<f64>() / 20.0;
            assert!((mean(0) / mean(1) - 1.0).abs() < 0.25 && mean(1) < within, "{} {}", mean(0), mean(1));
        }
        assert_eq!(calibration_error_by_chance(&reliability(&[])), 0.0);
    }

    #[test]
    fn the_surest_mistakes_come_first_and_there_are_ten_at_most() {
        let labels = ["a", "b"].map(str::to_owned);
        let mut predictions = vec![
            prediction("right", [0.9, 0.1]),
            prediction("less sure", [0.375, 0.625]),
            prediction("surest", [0.125, 0.875]),
            prediction("as sure", [0.375, 0.625]),
        ];
        let mistakes = surest_mistakes(&predictions, &labels);
        let tracks: Vec<&str> = mistakes.iter().map(|mistake| mistake.track.as_str()).collect();
        assert_eq!(tracks, ["surest", "as sure", "less sure"]);
        assert_eq!((mistakes[0].genre.as_str(), mistakes[0].predicted.as_str()), ("a", "b"));
        assert_eq!((mistakes[0].confidence, mistakes[0].genre_probability), (0.875, 0.125));
        predictions.extend((0..20).map(|_| prediction("another", [0.25, 0.75])));
        assert_eq!(surest_mistakes(&predictions, &labels).len(), 10);
    }
}
