//! What a model says about chunks in memory.

use chorale_model::{Classifier, Logits};

use crate::{ChunkedTrack, Examples, Progress, Result, metrics::ScoredTrack};

/// Chunks that go through the network in one call: bounds memory for long tracks.
const CHUNKS_AT_ONCE: usize = 64;

/// The logits of every chunk, by the code that serves.
pub(crate) fn hear(classifier: &Classifier, examples: &Examples, progress: Progress) -> Result<Vec<ScoredTrack>> {
    let bar = progress.bar("listening", examples.tracks().len());
    let scored = examples.tracks().iter().zip(examples.genres()).map(|(track, genre)| {
        let logits = hear_chunks(classifier, track)?;
        bar.inc(1);
        Ok(ScoredTrack { name: track.name.clone(), genre: *genre, logits })
    });
    let scored = scored.collect();
    bar.finish_and_clear();
    scored
}

/// The logits of every chunk of a track.
pub(crate) fn hear_chunks(classifier: &Classifier, track: &ChunkedTrack) -> Result<Vec<Logits>> {
    let mut logits = Vec::with_capacity(track.chunks.len());
    for chunks in track.chunks.chunks(CHUNKS_AT_ONCE) {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        logits.extend(classifier.logits(&chunks)?);
    }
    Ok(logits)
}
