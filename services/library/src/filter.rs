//! Which tracks of the library are meant.

use std::path::PathBuf;

/// Tracks have to be as every field says; the default takes all that have a verdict, ordered by path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// One of these genres, in any case; any if empty.
    pub genres: Vec<String>,
    /// At least this probability of the most probable genre, 0 to 1.
    pub min_confidence: Option<f64>,
    /// A part of the artist's name, in any case.
    pub artist: Option<String>,
    /// Under one of these folders, or one of these files; anywhere if empty.
    pub under: Vec<PathBuf>,
    /// At least this long.
    pub min_seconds: Option<f64>,
    /// At most this long.
    pub max_seconds: Option<f64>,
    /// In which order.
    pub order: Order,
    /// The first so many in that order.
    pub limit: Option<usize>,
}

/// In which order tracks come. Equal ones are ordered by path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// By path, byte by byte.
    #[default]
    Path,
    /// Surest first.
    Confidence,
    /// Longest first.
    Duration,
    /// By the name of the genre, in it the surest first.
    Genre,
    /// By artist, album and title; those without come last.
    Artist,
}
