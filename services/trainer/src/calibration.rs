//! Whether a confidence means what it says, and which mistakes it should have prevented.

use serde::Serialize;

use crate::Prediction;

/// Bins of a reliability diagram, all equally wide.
const BINS: usize = 10;
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
