//! How often a model says `unknown`: of what is no music, where it should, and of music, where it should not.

use std::{collections::BTreeMap, fmt};

use chorale_model::Manifest;
use serde::Serialize;

use crate::{
    Prediction, Skipped,
    metrics::{self, ScoredTrack, wilson_interval},
};

/// The share of music that a threshold may reject, for [`UnknownReport::best_threshold`].
pub const MUSIC_REJECTED_AT_MOST: f64 = 0.05;

/// What a model says `unknown` to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnknownReport {
    /// The model's threshold: a confidence below it is `unknown`.
    pub unknown_below: f64,
    /// Labelled tracks.
    pub music: UnknownShare,
    /// All files that are no music.
    pub not_music: UnknownShare,
    /// The same by kind.
    pub kinds: BTreeMap<String, UnknownShare>,
    /// What [`choose_threshold`] says about these tracks and files. Chosen on files, a threshold is to be judged on
    /// others.
    pub best_threshold: f64,
    /// Every file that is no music.
    pub files: Vec<NotMusic>,
    /// Files that could not be measured.
    pub skipped: Vec<Skipped>,
}

/// How many verdicts are `unknown`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnknownShare {
    /// Tracks or files.
    pub tracks: usize,
    /// Those whose verdict is `unknown`.
    pub unknown: usize,
    /// `unknown / tracks`; none where there are none.
    pub share: Option<f64>,
    /// The 95 % Wilson interval of `share`: low, high.
    pub interval: [f64; 2],
}

/// The verdict on one file that is no music.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NotMusic {
    /// The file's name.
    pub file: String,
    /// What it is.
    pub kind: String,
    /// The most probable genre; none for silence.
    pub nearest: Option<String>,
    /// Its probability; 0 for silence.
    pub confidence: f32,
    /// Whether the verdict is `unknown`.
    pub unknown: bool,
}

impl UnknownShare {
    fn new(verdicts: impl Iterator<Item = bool>) -> Self {
        let (mut tracks, mut unknown) = (0, 0);
        for is_unknown in verdicts {
            tracks += 1;
            unknown += usize::from(is_unknown);
        }
        let share = (tracks > 0).then(|| unknown as f64 / tracks as f64);
        Self { tracks, unknown, share, interval: wilson_interval(unknown, tracks) }
    }
}

impl NotMusic {
    /// A file of which something was heard.
    pub(crate) fn heard(kind: &str, track: &ScoredTrack, manifest: &Manifest) -> Self {
        let probabilities = track.probabilities(manifest.temperature);
        let nearest = metrics::greatest(&probabilities);
        let confidence = probabilities.get(nearest).copied().unwrap_or_default();
        Self {
            file: track.name.clone(),
            kind: kind.to_owned(),
            nearest: manifest.labels.get(nearest).cloned(),
            confidence,
            unknown: f64::from(confidence) < manifest.unknown_below,
        }
    }

    /// A file of nothing but silence, which is `unknown` whatever the threshold.
    pub(crate) fn silent(kind: &str, file: &str) -> Self {
        Self { file: file.to_owned(), kind: kind.to_owned(), nearest: None, confidence: 0.0, unknown: true }
    }
}

impl UnknownReport {
    pub(crate) fn new(
        unknown_below: f64,
        music: &[Prediction],
        mut files: Vec<NotMusic>,
        skipped: Vec<Skipped>,
    ) -> Self {
        files.sort_by(|left, right| left.file.cmp(&right.file));
        let mut kinds: BTreeMap<String, Vec<bool>> = BTreeMap::new();
        for file in &files {
            kinds.entry(file.kind.clone()).or_default().push(file.unknown);
        }
        let of_music: Vec<f32> = music.iter().map(|prediction| prediction.confidence).collect();
        let of_files: Vec<f32> = files.iter().map(|file| file.confidence).collect();
        Self {
            unknown_below,
            music: UnknownShare::new(of_music.iter().map(|confidence| f64::from(*confidence) < unknown_below)),
            not_music: UnknownShare::new(files.iter().map(|file| file.unknown)),
            kinds: kinds.into_iter().map(|(kind, unknown)| (kind, UnknownShare::new(unknown.into_iter()))).collect(),
            best_threshold: choose_threshold(&of_music, &of_files, MUSIC_REJECTED_AT_MOST),
            files,
            skipped,
        }
    }
}

/// A plain text table.
impl fmt::Display for UnknownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MUSIC: &str = "music";
        const NOT_MUSIC: &str = "not music";
        let width = self.kinds.keys().map(|kind| kind.chars().count()).max().unwrap_or(0).max(NOT_MUSIC.len());
        let row = |f: &mut fmt::Formatter<'_>, name: &str, row: &UnknownShare| {
            let share = row.share.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0));
            let [low, high] = row.interval.map(|share| share * 100.0);
            writeln!(f, "  {name:width$}  {:>5}  {share:>9}   {low:.1} to {high:.1} %", row.tracks)
        };
        writeln!(
            f,
            "  Verdicts that are `unknown`: a confidence below {:.4}, or nothing but silence\n",
            self.unknown_below
        )?;
        writeln!(f, "  {:width$}  files    unknown   95 % interval", "kind")?;
        for (kind, share) in &self.kinds {
            row(f, kind, share)?;
        }
        row(f, NOT_MUSIC, &self.not_music)?;
        row(f, MUSIC, &self.music)?;
        writeln!(
            f,
            "\n  Rejecting at most {:.0} % of this music, a threshold of {:.4} would reject the most of the rest.",
            MUSIC_REJECTED_AT_MOST * 100.0,
            self.best_threshold
        )?;
        if !self.skipped.is_empty() {
            writeln!(f, "\n  {} files were left out:", self.skipped.len())?;
        }
        for skipped in &self.skipped {
            writeln!(f, "  {}: {}", skipped.track, skipped.reason)?;
        }
        Ok(())
    }
}

/// The threshold that has the most of `not_music` below it, of those that have at most the share `music_rejected` of
/// `music` below it: in the middle of the gap where several do equally well, 0 where none rejects anything.
///
/// Both are confidences: the greatest probability of each track.
#[must_use]
pub fn choose_threshold(music: &[f32], not_music: &[f32], music_rejected: f64) -> f64 {
    let mut music: Vec<f32> = music.iter().copied().filter(|confidence| confidence.is_finite()).collect();
    music.sort_by(f32::total_cmp);
    let may_reject = (music.len() as f64 * music_rejected) as usize;
    // No higher: what is equal to a threshold is not rejected.
    let highest = music.get(may_reject).copied().unwrap_or(1.0);
    let rejected = not_music.iter().copied().filter(|confidence| *confidence < highest).max_by(f32::total_cmp);
    let Some(rejected) = rejected else { return 0.0 };
    let next = (music.iter().chain(not_music)).copied().filter(|confidence| *confidence > rejected);
    let next = next.fold(highest, f32::min);
    f64::midpoint(f64::from(rejected), f64::from(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(confidences: &[f32], threshold: f64) -> usize {
        confidences.iter().filter(|confidence| f64::from(**confidence) < threshold).count()
    }

    #[test]
    fn the_threshold_is_in_the_middle_of_the_gap_where_there_is_one() {
        let threshold = choose_threshold(&[0.5, 0.9, 0.7], &[0.25, 0.125, 0.0], 0.05);
        assert_eq!(threshold, 0.375);
        assert_eq!(choose_threshold(&[], &[0.5], 0.05), 0.75);
    }

    #[test]
    fn no_more_music_is_rejected_than_allowed() {
        let music: Vec<f32> = (0..100).map(|percent| 0.2 + percent as f32 / 200.0).collect();
        let not_music: Vec<f32> = (0..100).map(|percent| percent as f32 / 250.0).collect();
        for (allowed, rejected) in [(0.0, 0), (0.05, 5), (0.1, 10)] {
            let threshold = choose_threshold(&music, &not_music, allowed);
            assert!(below(&music, threshold) <= rejected, "{threshold}");
            // To reject more, one more track of music would have to go.
            assert_eq!(below(&not_music, threshold), below(&not_music, music[rejected].into()), "{threshold}");
            assert!(below(&not_music, threshold) >= 50 + rejected, "{threshold}");
        }
    }

    #[test]
    fn where_nothing_can_be_told_apart_nothing_is_rejected() {
        assert_eq!(choose_threshold(&[0.3; 10], &[0.3, 0.6], 0.05), 0.0);
        assert_eq!(choose_threshold(&[0.3], &[], 0.05), 0.0);
        assert_eq!(choose_threshold(&[], &[], 0.05), 0.0);
        assert_eq!(choose_threshold(&[0.5], &[f32::NAN], 0.05), 0.0);
        assert!(choose_threshold(&[1.0; 3], &[0.999], 0.05) < 1.0);
    }

    #[test]
    fn shares_are_counted_by_kind_and_silence_is_unknown() {
        let prediction = |confidence| Prediction {
            track: String::new(),
            genre: String::new(),
            predicted: String::new(),
            confidence,
            probabilities: Vec::new(),
            chunks: 1,
        };
        let file = |kind: &str, confidence: f32| NotMusic {
            file: format!("{kind}/{confidence}"),
            kind: kind.to_owned(),
            nearest: Some("jazz".to_owned()),
            confidence,
            unknown: confidence < 0.25,
        };
        let files = vec![file("speech", 0.2), file("speech", 0.5), NotMusic::silent("silence", "silence/a")];
        let music: Vec<_> = [0.2, 0.9, 0.8, 0.7].map(prediction).into();
        let skipped = vec![Skipped { track: "b".to_owned(), reason: "no audio".to_owned() }];
        let report = UnknownReport::new(0.25, &music, files, skipped);
        assert_eq!(report.music.share, Some(0.25));
        assert_eq!((report.not_music.unknown, report.not_music.tracks), (2, 3));
        assert_eq!(report.kinds["speech"].share, Some(0.5));
        assert_eq!(report.kinds["silence"].share, Some(1.0));
        let text = report.to_string();
        let expected = "  kind       files    unknown   95 % interval\n  \
                          silence        1    100.0 %   20.7 to 100.0 %\n  \
                          speech         2     50.0 %   9.5 to 90.5 %\n  \
                          not music      3     66.7 %   20.8 to 93.9 %\n  \
                          music          4     25.0 %   4.6 to 69.9 %\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.ends_with("1 files were left out:\n  b: no audio\n"), "{text}");
    }
}
