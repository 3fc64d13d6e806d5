//! The numbers about a model, for people and for programs.

use std::{fmt, path::Path};

use chorale_model::{Manifest, SplitMetrics};
use serde::Serialize;

use crate::{
    GenreScores, Prediction, ReliabilityBin, Result, Skipped, SurestMistake, UnknownReport, calibration,
    metrics::{self, ScoredTrack},
    page,
};

/// Letters of a genre in the heading of the confusion matrix.
const SHORT_NAME: usize = 5;

/// What a model did on labelled tracks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// The hash of its weights.
    pub version: String,
    /// The split that was measured; none for all tracks, or a list.
    pub split: Option<String>,
    /// Whether the model has learnt from a split of this name.
    pub learnt: bool,
    /// Tracks measured.
    pub tracks: usize,
    /// Their chunks that voted.
    pub chunks: usize,
    /// Share of tracks whose probability is greatest for their genre.
    pub track_accuracy: f64,
    /// The 95 % Wilson interval of `track_accuracy`: low, high.
    pub track_accuracy_interval: [f64; 2],
    /// Share of chunks whose probability is greatest for their genre.
    pub chunk_accuracy: f64,
    /// Mean over tracks of −ln of the probability of their genre.
    pub log_loss: f64,
    /// The mean F1 of the genres that have tracks.
    pub macro_f1: f64,
    /// How far confidence is from accuracy: the mean over ten bins of confidence, weighted by their tracks.
    pub expected_calibration_error: f64,
    /// What that would be by chance alone, on so many tracks, for a model that is right exactly as often as it is sure.
    pub calibration_error_by_chance: f64,
    /// The same without bins, as the smooth calibration error has it.
    pub smooth_calibration_error: f64,
    /// What verdicts that need not hear the whole track would save, and change.
    pub early: EarlyVerdicts,
    /// Those bins, the least confident first.
    pub reliability: Vec<ReliabilityBin>,
    /// Scores by genre, in the order of the labels.
    pub genres: Vec<GenreScores>,
    /// Tracks by genre (rows) and by what the model says (columns), in the order of the labels.
    pub confusion: Vec<Vec<usize>>,
    /// The tracks that the model is most surely wrong about, the surest first: ten at most.
    pub surest_mistakes: Vec<SurestMistake>,
    /// The verdict on every track.
    pub predictions: Vec<Prediction>,
    /// Tracks that could not be measured.
    pub skipped: Vec<Skipped>,
    /// How often the verdict is `unknown`, if that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<UnknownReport>,
}

/// Verdicts over as many chunks as settle the vote.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EarlyVerdicts {
    /// How often they may be other ones than those over the whole track, if its evidence scatters as expected.
    pub error_rate: f64,
    /// The share of all chunks that were heard.
    pub chunks_heard: f64,
    /// The share of tracks whose genre is another one.
    pub changed: f64,
}

/// The error rate at which reports measure early verdicts.
const EARLY_ERROR_RATE: f64 = 0.05;

impl EarlyVerdicts {
    fn new(scored: &[ScoredTrack], temperature: f64) -> Self {
        let (mut heard, mut chunks, mut changed) = (0, 0, 0);
        for track in scored {
            let (early, needed) = track.early(temperature, EARLY_ERROR_RATE);
            heard += needed;
            chunks += track.logits.len();
            changed += usize::from(metrics::greatest(&early) != metrics::greatest(&track.probabilities(temperature)));
        }
        Self {
            error_rate: EARLY_ERROR_RATE,
            chunks_heard: heard as f64 / chunks as f64,
            changed: changed as f64 / scored.len() as f64,
        }
    }
}

impl Report {
    pub(crate) fn new(manifest: &Manifest, split: Option<&str>, scored: &[ScoredTrack], skipped: Vec<Skipped>) -> Self {
        let labels = &manifest.labels;
        let label = |index: usize| labels.get(index).cloned().unwrap_or_default();
        let mut confusion = vec![vec![0; labels.len()]; labels.len()];
        let mut predictions = Vec::new();
        let mut right = 0;
        for track in scored {
            let probabilities = track.probabilities(manifest.temperature);
            let predicted = metrics::greatest(&probabilities);
            right += usize::from(predicted == track.genre);
            if let Some(cell) = confusion.get_mut(track.genre).and_then(|row| row.get_mut(predicted)) {
                *cell += 1;
            }
            predictions.push(Prediction {
                track: track.name.clone(),
                genre: label(track.genre),
                predicted: label(predicted),
                confidence: probabilities.get(predicted).copied().unwrap_or_default(),
                probabilities,
                chunks: track.logits.len(),
            });
        }
        let chunks: usize = scored.iter().map(|track| track.logits.len()).sum();
        let chunks_right: usize = scored.iter().map(ScoredTrack::chunks_right).sum();
        let genres = metrics::genre_scores(labels, &confusion);
        let supported: Vec<f64> =
            genres.iter().filter(|genre| genre.support > 0).map(|genre| genre.f1.unwrap_or(0.0)).collect();
        let reliability = calibration::reliability(&predictions);
        Self {
            model: manifest.name.clone(),
            version: manifest.version.clone(),
            learnt: split.is_some_and(|split| manifest.learnt_splits.iter().any(|learnt| learnt == split)),
            split: split.map(str::to_owned),
            tracks: scored.len(),
            chunks,
            track_accuracy: right as f64 / scored.len() as f64,
            track_accuracy_interval: metrics::wilson_interval(right, scored.len()),
            chunk_accuracy: chunks_right as f64 / chunks as f64,
            log_loss: metrics::track_log_loss(scored, manifest.temperature),
            macro_f1: supported.iter().sum::<f64>() / supported.len() as f64,
            expected_calibration_error: calibration::expected_calibration_error(&reliability),
            calibration_error_by_chance: calibration::calibration_error_by_chance(&reliability),
            smooth_calibration_error: calibration::smooth_calibration_error(&predictions),
            early: EarlyVerdicts::new(scored, manifest.temperature),
            reliability,
            genres,
            confusion,
            surest_mistakes: calibration::surest_mistakes(&predictions, labels),
            predictions,
            skipped,
            unknown: None,
        }
    }

    /// Writes the report for people into `folder`, creating it where it is missing: `index.html`, a page that needs no other
    /// file; its pictures `confusion.svg`, `reliability.svg` and `genres.svg`; and `report.json`, the numbers. Every file
    /// appears whole.
    ///
    /// # Errors
    /// [`TrainerError::Write`](crate::TrainerError::Write).
    pub fn save(&self, folder: &Path) -> Result<()> {
        page::save(self, folder)
    }

    /// The numbers that a model's manifest keeps.
    #[must_use]
    pub fn summary(&self) -> SplitMetrics {
        SplitMetrics {
            track_accuracy: self.track_accuracy,
            track_accuracy_interval: self.track_accuracy_interval,
            chunk_accuracy: self.chunk_accuracy,
            tracks: self.tracks,
            chunks: self.chunks,
        }
    }
}

/// What is said of a report that flatters its model.
pub(crate) const LEARNT: &str =
    "The model has learnt from a split of this name: it is examined on what it may remember.";

/// Plain text tables.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.track_accuracy_interval.map(|share| share * 100.0);
        let split = self.split.as_deref().map_or(String::new(), |split| format!(" of the split `{split}`"));
        writeln!(f, "{} {} on {} tracks{split}, {} chunks", self.model, self.version, self.tracks, self.chunks)?;
        if self.learnt {
            writeln!(f, "{LEARNT}")?;
        }
        writeln!(f)?;
        writeln!(f, "  track accuracy  {:5.1} %   95 % interval {low:.1} to {high:.1} %", self.track_accuracy * 100.0)?;
        writeln!(f, "  chunk accuracy  {:5.1} %", self.chunk_accuracy * 100.0)?;
        writeln!(f, "  macro F1        {:5.1} %", self.macro_f1 * 100.0)?;
        writeln!(f, "  log loss        {:5.3}", self.log_loss)?;
        let [error, chance, smooth] =
            [self.expected_calibration_error, self.calibration_error_by_chance, self.smooth_calibration_error]
                .map(|share| share * 100.0);
        writeln!(
            f,
            "  calibration     {error:5.1} %   expected error in 10 bins of confidence; {chance:.1} % by chance alone"
        )?;
        writeln!(f, "                  {smooth:5.1} %   the same without bins (smooth calibration error)")?;
        let EarlyVerdicts { error_rate, chunks_heard, changed } = self.early;
        let [rate, heard, changed] = [error_rate, chunks_heard, changed].map(|share| share * 100.0);
        writeln!(
            f,
            "  early verdicts  {heard:5.1} %   of the chunks heard with an error rate of {rate:.0} %; {changed:.1} % of the genres change"
        )?;
        writeln!(f)?;

        let width = self.genres.iter().map(|genre| genre.genre.chars().count()).max().unwrap_or(0).max("genre".len());
        writeln!(f, "  {:width$}  precision  recall     F1  tracks", "genre")?;
        for genre in &self.genres {
            let [precision, recall, f1] = [genre.precision, genre.recall, genre.f1]
                .map(|share| share.map_or("–".to_owned(), |share| format!("{:.1}", share * 100.0)));
            writeln!(f, "  {:width$}  {precision:>9}  {recall:>6}  {f1:>5}  {:>6}", genre.genre, genre.support)?;
        }
        writeln!(f)?;

        write!(f, "  {:width$}", "is \\ said")?;
        for genre in &self.genres {
            write!(f, "  {:>SHORT_NAME$}", genre.genre.chars().take(SHORT_NAME).collect::<String>())?;
        }
        writeln!(f)?;
        for (genre, row) in self.genres.iter().zip(&self.confusion) {
            write!(f, "  {:width$}", genre.genre)?;
            for count in row {
                let cell = if *count == 0 { "·".to_owned() } else { count.to_string() };
                write!(f, "  {cell:>SHORT_NAME$}")?;
            }
            writeln!(f)?;
        }
        if !self.skipped.is_empty() {
            writeln!(f, "\n  {} tracks were left out:", self.skipped.len())?;
        }
        for skipped in &self.skipped {
            writeln!(f, "  {}: {}", skipped.track, skipped.reason)?;
        }
        if let Some(unknown) = &self.unknown {
            write!(f, "\n{unknown}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chorale_model::Logits;

    use super::*;

    fn report() -> Report {
        let labels = ["blues", "classical"].map(str::to_owned).to_vec();
        let manifest = Manifest {
            name: "test".to_owned(),
            version: "0123456789ab".to_owned(),
            labels,
            feature_id: String::new(),
            architecture: String::new(),
            temperature: 1.0,
            unknown_below: 0.0,
            metrics: Default::default(),
            learnt_splits: vec!["train".to_owned()],
            provenance: Default::default(),
            licences: Vec::new(),
        };
        let track = |name: &str, genre, logits: Vec<Vec<f32>>| ScoredTrack {
            name: name.to_owned(),
            genre,
            logits: logits.into_iter().map(Logits::of_music).collect(),
        };
        let scored = [
            track("a", 0, vec![vec![2.0, 0.0], vec![1.0, 0.0]]),
            track("b", 0, vec![vec![0.0, 3.0]]),
            track("c", 0, vec![vec![3.0, 0.0]]),
        ];
        let skipped = vec![Skipped { track: "d".to_owned(), reason: "no audio".to_owned() }];
        Report::new(&manifest, Some("valid"), &scored, skipped)
    }

    #[test]
    fn numbers_are_counted() {
        let report = report();
        assert_eq!((report.tracks, report.chunks), (3, 4));
        assert_eq!((report.track_accuracy, report.chunk_accuracy), (2.0 / 3.0, 0.75));
        assert_eq!(report.confusion, [[2, 1], [0, 0]]);
        assert_eq!(report.predictions[1].predicted, "classical");
        assert!((report.macro_f1 - 0.8).abs() < 1e-12, "a genre without tracks has no say");
        assert_eq!((report.early.chunks_heard, report.early.changed), (1.0, 0.0), "two chunks settle nothing");
    }

    #[test]
    fn what_was_learnt_from_is_told() {
        let learnt = Report { learnt: true, ..report() };
        assert!(!report().learnt && !report().to_string().contains("learnt"));
        assert!(learnt.to_string().contains("has learnt from a split of this name"), "{learnt}");
    }

    #[test]
    fn the_table_is_aligned() {
        let text = report().to_string();
        let expected = "  genre      precision  recall     F1  tracks\n  \
                          blues          100.0    66.7   80.0       3\n  \
                          classical        0.0       –    0.0       0\n\n  \
                          is \\ said  blues  class\n  \
                          blues          2      1\n  \
                          classical      ·      ·\n\n  \
                          1 tracks were left out:\n  \
                          d: no audio\n";
        assert!(text.ends_with(expected), "{text}");
        assert!(text.starts_with("test 0123456789ab on 3 tracks of the split `valid`, 4 chunks\n"), "{text}");
    }
}
