//! What the library knows of a track.

use std::path::PathBuf;

use crate::Stretch;

/// A file that has a verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownTrack {
    /// Where the file is, absolute.
    pub path: PathBuf,
    /// The BLAKE3 digest of its bytes.
    pub digest: [u8; 32],
    /// The most probable genre, or `unknown`.
    pub genre: String,
    /// The probability of the most probable genre, 0 to 1, also where `genre` is `unknown`.
    pub confidence: f64,
    /// Every genre with its probability, most probable first. Empty for silence.
    pub probabilities: Vec<(String, f64)>,
    /// What the network heard on average, of length 1; empty if the server gave none. Only those of one model can be compared.
    pub embedding: Vec<f32>,
    /// Seconds of audio.
    pub duration_seconds: f64,
    /// The version of the model that gave the verdict.
    pub model_version: String,
    /// Who plays, if the file's tags say.
    pub artist: Option<String>,
    /// The album, if the file's tags say.
    pub album: Option<String>,
    /// The title, if the file's tags say.
    pub title: Option<String>,
}

/// A track with all that the index has on it.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexedTrack {
    /// What most want to know.
    pub track: KnownTrack,
    /// The track as runs of chunks with one winner.
    pub segments: Vec<Stretch>,
    /// What was wrong with the file without preventing a verdict.
    pub warnings: Vec<String>,
    /// True if the rest of the track was not heard, as `--early` allows.
    pub early: bool,
}
