//! Tracks for unit tests.

use crate::KnownTrack;

/// A track of 200 s that the model is 80 % sure of. Its digest is that of its path.
pub(crate) fn track(path: &str, genre: &str, artist: &str) -> KnownTrack {
    KnownTrack {
        path: path.into(),
        digest: *blake3::hash(path.as_bytes()).as_bytes(),
        genre: genre.to_owned(),
        confidence: 0.8,
        probabilities: vec![(genre.to_owned(), 0.8)],
        embedding: Vec::new(),
        duration_seconds: 200.0,
        model_version: "m1".to_owned(),
        artist: (!artist.is_empty()).then(|| artist.to_owned()),
        album: None,
        title: None,
    }
}
