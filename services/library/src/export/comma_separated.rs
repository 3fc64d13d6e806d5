//! The library as a CSV file.

use std::{
    io::{self, Write},
    path::Path,
};

use super::{hex, unwritten};
use crate::{Filter, Index, LibraryError};

const COLUMNS: [&str; 10] = [
    "path",
    "artist",
    "album",
    "title",
    "genre",
    "confidence",
    "duration_seconds",
    "early",
    "model_version",
    "blake3_digest",
];

pub(super) fn export(index: &Index, filter: &Filter, out: impl Write, name: &Path) -> Result<u64, LibraryError> {
    let unwritten = unwritten(name);
    let failed = |error: csv::Error| {
        unwritten(match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        })
    };
    let labels = index.labels()?;
    let mut writer = csv::Writer::from_writer(out);
    let header = COLUMNS.iter().map(|&column| column.to_owned());
    let probabilities = labels.iter().map(|label| format!("probability_{label}"));
    writer.write_record(header.chain(probabilities)).map_err(failed)?;
    let mut count = 0;
    index.visit(filter, |indexed| {
        let track = indexed.track;
        let fields = [
            track.path.to_string_lossy().into_owned(),
            track.artist.unwrap_or_default(),
            track.album.unwrap_or_default(),
            track.title.unwrap_or_default(),
            track.genre,
            track.confidence.to_string(),
            track.duration_seconds.to_string(),
            indexed.early.to_string(),
            track.model_version,
            hex(&track.digest),
        ];
        let probability = |label: &String| {
            let found = track.probabilities.iter().find(|(genre, _)| genre == label);
            found.map(|(_, probability)| probability.to_string()).unwrap_or_default()
        };
        count += 1;
        writer.write_record(fields.into_iter().chain(labels.iter().map(probability))).map_err(failed)
    })?;
    writer.flush().map_err(&unwritten)?;
    Ok(count)
}
