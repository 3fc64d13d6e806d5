//! What a model says of a track, between the server and the index.

use std::error::Error;

use chorale_client::Verdict;
use rusqlite::{Row, types::Type};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What a model says of a track.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrackVerdict {
    /// The most probable genre, or `unknown`.
    pub genre: String,
    /// Its probability, 0 to 1.
    pub confidence: f64,
    /// Seconds of audio.
    pub duration_seconds: f64,
    /// Every genre with its probability, most probable first.
    pub probabilities: Vec<(String, f64)>,
    /// The track as runs of chunks with one winner.
    pub segments: Vec<Stretch>,
    /// What was wrong with the file without preventing an answer.
    pub warnings: Vec<String>,
    /// What the network heard on average, if the server says.
    pub embedding: Vec<f32>,
    /// True if the rest of the track was not heard.
    pub early: bool,
}

/// A run of chunks with one winner.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// Where it begins, in seconds from the start of the track.
    pub start_seconds: f64,
    /// Where it ends, in seconds.
    pub end_seconds: f64,
    /// The most probable genre of these chunks, or `unknown` for silence.
    pub genre: String,
    /// The mean probability of that genre over these chunks.
    pub confidence: f64,
}

impl From<Verdict> for TrackVerdict {
    fn from(verdict: Verdict) -> Self {
        let stretch = |segment: chorale_client::Segment| Stretch {
            start_seconds: finite(segment.start_seconds),
            end_seconds: finite(segment.end_seconds),
            genre: segment.genre,
            confidence: finite(segment.confidence),
        };
        Self {
            genre: verdict.genre,
            confidence: finite(verdict.confidence),
            duration_seconds: finite(verdict.duration_seconds),
            probabilities: verdict.scores.into_iter().map(|score| (score.genre, finite(score.probability))).collect(),
            segments: verdict.segments.into_iter().map(stretch).collect(),
            warnings: verdict.warnings.into_iter().map(|warning| warning.message).collect(),
            embedding: verdict.embedding,
            early: verdict.early,
        }
    }
}

/// A server may send anything; neither SQLite nor JSON has a place for what is no number.
fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

impl TrackVerdict {
    /// Reads the columns genre, confidence, duration_seconds, probabilities, segments, warnings, embedding and early, which
    /// begin at `first`.
    pub(crate) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            genre: row.get(first)?,
            confidence: row.get(first + 1)?,
            duration_seconds: row.get(first + 2)?,
            probabilities: parsed(row, first + 3)?,
            segments: parsed(row, first + 4)?,
            warnings: parsed(row, first + 5)?,
            embedding: floats(row, first + 6)?,
            early: row.get(first + 7)?,
        })
    }

    pub(crate) fn probabilities_text(&self) -> String {
        text(&self.probabilities)
    }

    pub(crate) fn segments_text(&self) -> String {
        text(&self.segments)
    }

    pub(crate) fn warnings_text(&self) -> String {
        text(&self.warnings)
    }

    pub(crate) fn embedding_bytes(&self) -> Vec<u8> {
        self.embedding.iter().flat_map(|number| number.to_le_bytes()).collect()
    }
}

/// Lists of texts and finite numbers have a JSON text; it is a list all the same.
fn text(list: &impl Serialize) -> String {
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
}

fn parsed<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| unreadable(column, Type::Text, error))
}

fn floats(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<f32>> {
    let bytes = row.get_ref(column)?.as_blob()?;
    let (numbers, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        let what = format!("an embedding of {} bytes, expected 4 for each number", bytes.len());
        return Err(unreadable(column, Type::Blob, what));
    }
    Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

fn unreadable(column: usize, kind: Type, why: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, why.into())
}
