//! The numbers about a model on chunks that were split one by one.

use std::fmt;

use chorale_model::Manifest;
use serde::Serialize;

use crate::{
    CHUNK_SPLIT_LEAKS, GenreScores,
    metrics::{self, ScoredTrack},
};

/// What a model did on one side of a split by chunk. Chunks are counted, not tracks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChunkReport {
    /// The model's name.
    pub model: String,
    /// The hash of its weights.
    pub version: String,
    /// The side of the split: `train` or `test`.
    pub split: String,
    /// The seed of the split.
    pub seed: u64,
    /// What these numbers are not.
    pub note: &'static str,
    /// Chunks measured.
    pub chunks: usize,
    /// Share of chunks whose probability is greatest for their genre.
    pub chunk_accuracy: f64,
    /// The 95 % Wilson interval of `chunk_accuracy`, as if every chunk were by itself: low, high.
    pub chunk_accuracy_interval: [f64; 2],
    /// The mean F1 of the genres that have chunks.
    pub macro_f1: f64,
    /// Scores over chunks by genre, in the order of the labels.
    pub genres: Vec<GenreScores>,
    /// Chunks by genre (rows) and by what the model says (columns), in the order of the labels.
    pub confusion: Vec<Vec<usize>>,
}

impl ChunkReport {
    pub(crate) fn new(manifest: &Manifest, split: &str, seed: u64, scored: &[ScoredTrack]) -> Self {
        let labels = &manifest.labels;
        let mut confusion = vec![vec![0_usize; labels.len()]; labels.len()];
        for track in scored {
            for logits in &track.logits {
                if let Some(cell) =
                    confusion.get_mut(track.genre).and_then(|row| row.get_mut(metrics::greatest(&logits.genres)))
                {
                    *cell += 1;
                }
            }
        }
        let chunks: usize = scored.iter().map(|track| track.logits.len()).sum();
        let right: usize = scored.iter().map(ScoredTrack::chunks_right).sum();
        let genres = metrics::genre_scores(labels, &confusion);
        let supported: Vec<f64> =
            genres.iter().filter(|genre| genre.support > 0).map(|genre| genre.f1.unwrap_or(0.0)).collect();
        Self {
            model: manifest.name.clone(),
            version: manifest.version.clone(),
            split: split.to_owned(),
            seed,
            note: CHUNK_SPLIT_LEAKS,
            chunks,
            chunk_accuracy: right as f64 / chunks as f64,
            chunk_accuracy_interval: metrics::wilson_interval(right, chunks),
            macro_f1: supported.iter().sum::<f64>() / supported.len() as f64,
            genres,
            confusion,
        }
    }
}

/// Plain text tables.
impl fmt::Display for ChunkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.chunk_accuracy_interval.map(|share| share * 100.0);
        let (split, seed) = (&self.split, self.seed);
        writeln!(
            f,
            "{} {} on {} chunks of the split `{split}` by chunk, seed {seed}",
            self.model, self.version, self.chunks
        )?;
        writeln!(f, "{}\n", self.note)?;
        writeln!(f, "  chunk accuracy  {:5.1} %   95 % interval {low:.1} to {high:.1} %", self.chunk_accuracy * 100.0)?;
        writeln!(f, "  macro F1        {:5.1} %\n", self.macro_f1 * 100.0)?;
        let width = self.genres.iter().map(|genre| genre.genre.chars().count()).max().unwrap_or(0).max("genre".len());
        writeln!(f, "  {:width$}  precision  recall     F1  chunks", "genre")?;
        for genre in &self.genres {
            let [precision, recall, f1] = [genre.precision, genre.recall, genre.f1]
                .map(|share| share.map_or("–".to_owned(), |share| format!("{:.1}", share * 100.0)));
            writeln!(f, "  {:width$}  {precision:>9}  {recall:>6}  {f1:>5}  {:>6}", genre.genre, genre.support)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chorale_model::Logits;

    use super::*;

    #[test]
    fn chunks_are_counted_and_the_leak_is_named() {
        let manifest = Manifest {
            name: "test".to_owned(),
            version: "0123456789ab".to_owned(),
            labels: vec!["jazz".to_owned(), "rock".to_owned()],
            ..chorale_model::ModelFolder::embedded().unwrap().manifest().clone()
        };
        let track = |genre, logits: Vec<Vec<f32>>| ScoredTrack {
            name: String::new(),
            genre,
            logits: logits.into_iter().map(Logits::of_music).collect(),
        };
        let scored = [track(0, vec![vec![2.0, 0.0], vec![0.0, 1.0], vec![1.0, 0.0]]), track(1, vec![vec![0.0, 1.0]])];
        let report = ChunkReport::new(&manifest, "test", 7, &scored);
        assert_eq!((report.chunks, report.chunk_accuracy), (4, 0.75));
        assert_eq!(report.confusion, [[2, 1], [0, 1]]);
        assert_eq!((report.genres[1].precision, report.genres[0].support), (Some(0.5), 3));
        let text = report.to_string();
        assert!(text.contains("4 chunks of the split `test` by chunk, seed 7") && text.contains(CHUNK_SPLIT_LEAKS));
    }
}
