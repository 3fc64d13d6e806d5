//! What a model says about chunks in memory.

use chorale_model::Classifier;

use crate::{Examples, Progress, Result, metrics::ScoredTrack};

/// The logits of every chunk, by the code that serves.
pub(crate) fn hear(classifier: &Classifier, examples: &Examples, progress: Progress) -> Result<Vec<ScoredTrack>> {
    let bar = progress.bar("listening", examples.tracks().len());
    let scored = examples.tracks().iter().zip(examples.genres()).map(|(track, genre)| {
        let chunks: Vec<&[u8]> = track.chunks.iter().map(Vec::as_slice).collect();
        let logits = classifier.logits(&chunks)?;
        bar.inc(1);
        Ok(ScoredTrack { name: track.name.clone(), genre: *genre, logits })
    });
    let scored = scored.collect();
    bar.finish_and_clear();
    scored
}
