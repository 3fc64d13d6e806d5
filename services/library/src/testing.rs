//! A small library for unit tests.

use std::path::Path;

use crate::{Credits, FileState, Finding, Found, Index, ServedModel, Stretch, TrackVerdict};

pub(crate) fn model(version: &str) -> ServedModel {
    ServedModel {
        name: "test".to_owned(),
        version: version.to_owned(),
        labels: vec!["jazz".to_owned(), "hip hop".to_owned(), "blues".to_owned()],
    }
}

pub(crate) fn file(path: impl AsRef<Path>) -> FileState {
    FileState { path: path.as_ref().to_owned(), size: 1000, modified_ns: 7 }
}

pub(crate) fn verdict(genre: &str, confidence: f64) -> TrackVerdict {
    let segment = |start_seconds, genre: &str| Stretch {
        start_seconds,
        end_seconds: start_seconds + 15.0,
        genre: genre.to_owned(),
        confidence,
    };
    TrackVerdict {
        genre: genre.to_owned(),
        confidence,
        duration_seconds: 30.0,
        probabilities: vec![(genre.to_owned(), confidence), ("blues".to_owned(), 0.1)],
        segments: vec![segment(0.0, genre), segment(15.0, "blues")],
        warnings: Vec::new(),
        embedding: vec![0.6, 0.8],
        early: false,
    }
}

pub(crate) fn classified(path: impl AsRef<Path>, digest: u8, verdict: TrackVerdict) -> Finding {
    Finding {
        file: file(path),
        digest: Some([digest; 32]),
        credits: Credits::default(),
        found: Found::Classified(verdict),
    }
}

pub(crate) fn failed(path: impl AsRef<Path>, code: &str) -> Finding {
    let found = Found::Failed { code: code.to_owned(), message: "no good".to_owned() };
    Finding { file: file(path), digest: None, credits: Credits::default(), found }
}

/// Three tracks and a failure: `/m/a.mp3` is sure to be jazz and credited, `/m/b/c.mp3` may be, `/n/d.mp3` is unknown.
pub(crate) fn small_library(folder: &Path) -> Index {
    let mut index = Index::create(&folder.join("library.sqlite")).unwrap();
    let id = index.adopt(&model("1")).unwrap();
    let mut sure = classified("/m/a.mp3", 1, verdict("jazz", 0.9));
    sure.credits = Credits { artist: Some("ÉTIENNE, \"X\"".to_owned()), album: None, title: Some("So".to_owned()) };
    let unknown = TrackVerdict { embedding: Vec::new(), segments: Vec::new(), ..verdict("unknown", 0.2) };
    let findings = [
        classified("/n/d.mp3", 3, TrackVerdict { duration_seconds: 90.0, ..unknown }),
        sure,
        classified("/m/b/c.mp3", 2, verdict("jazz", 0.5)),
        failed("/m/z.mp3", "AUDIO_UNSUPPORTED"),
    ];
    index.record(&findings, id).unwrap();
    index
}
