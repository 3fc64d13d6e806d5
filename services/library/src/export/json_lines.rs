//! The library as one JSON object a line.

use std::{borrow::Cow, io::Write, path::Path};

use serde::{Serialize, Serializer};

use super::{hex, unwritten};
use crate::{Filter, Index, IndexedTrack, LibraryError, Stretch};

#[derive(Serialize)]
struct Line<'a> {
    path: Cow<'a, str>,
    artist: Option<&'a str>,
    album: Option<&'a str>,
    title: Option<&'a str>,
    genre: &'a str,
    confidence: f64,
    #[serde(serialize_with = "in_their_order")]
    probabilities: &'a [(String, f64)],
    duration_seconds: f64,
    early: bool,
    warnings: &'a [String],
    segments: &'a [Stretch],
    model_version: &'a str,
    blake3_digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
}

/// Pairs as an object, most probable first.
fn in_their_order<S: Serializer>(pairs: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(genre, probability)| (genre, probability)))
}

/// What is known of a track, as a JSON object on one line. What is not UTF-8 in its path is replaced.
///
/// # Errors
/// None that is known of: everything in a track has a JSON text.
pub fn json_line(indexed: &IndexedTrack, with_embedding: bool) -> serde_json::Result<String> {
    let track = &indexed.track;
    serde_json::to_string(&Line {
        path: track.path.to_string_lossy(),
        artist: track.artist.as_deref(),
        album: track.album.as_deref(),
        title: track.title.as_deref(),
        genre: &track.genre,
        confidence: track.confidence,
        probabilities: &track.probabilities,
        duration_seconds: track.duration_seconds,
        early: indexed.early,
        warnings: &indexed.warnings,
        segments: &indexed.segments,
        model_version: &track.model_version,
        blake3_digest: hex(&track.digest),
        embedding: with_embedding.then_some(track.embedding.as_slice()),
    })
}

pub(super) fn export(index: &Index, filter: &Filter, mut out: impl Write, name: &Path) -> Result<u64, LibraryError> {
    let unwritten = unwritten(name);
    let mut count = 0;
    index.visit(filter, |indexed| {
        count += 1;
        let line = json_line(&indexed, true).map_err(|error| unwritten(error.into()))?;
        writeln!(out, "{line}").map_err(&unwritten)
    })?;
    out.flush().map_err(&unwritten)?;
    Ok(count)
}
