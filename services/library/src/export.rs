//! The library as a table for other programs.

mod comma_separated;
mod json_lines;
mod parquet;

use std::{
    io::{BufWriter, Write},
    path::Path,
};

use chorale_model::WholeFile;

use crate::{Filter, Index, LibraryError};

pub use self::json_lines::json_line;

/// What other programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table of texts with a header; a column for the probability of each genre.
    Csv,
    /// A JSON object a line, with segments and embedding.
    JsonLines,
    /// A table of typed columns, with segments and embedding.
    Parquet,
}

impl Format {
    /// The format that a file's name stands for.
    #[must_use]
    pub fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Writes the tracks that `filter` takes to `out`, and returns their number. `out_name` is what errors call it. One track is in
/// memory at a time; with [`Format::Parquet`], as many as a row group has.
///
/// # Errors
/// If the index cannot be read, or `out` cannot be written.
pub fn export<W: Write + Send>(
    index: &Index,
    filter: &Filter,
    format: Format,
    out: W,
    out_name: &Path,
) -> Result<u64, LibraryError> {
    match format {
        Format::Csv => comma_separated::export(index, filter, out, out_name),
        Format::JsonLines => json_lines::export(index, filter, out, out_name),
        Format::Parquet => parquet::export(index, filter, out, out_name),
    }
}

/// As [`export`], into a file that is there when it is whole, and until then as it was.
///
/// # Errors
/// As [`export`].
pub fn export_to_file(index: &Index, filter: &Filter, format: Format, path: &Path) -> Result<u64, LibraryError> {
    let unwritten = unwritten(path);
    let mut file = WholeFile::create(path).map_err(&unwritten)?;
    let count = export(index, filter, format, BufWriter::new(&mut file), path)?;
    file.finish().map_err(&unwritten)?;
    Ok(count)
}

/// An error of a file format's library, as what it is about: a file that cannot be written.
fn unwritten(name: &Path) -> impl Fn(std::io::Error) -> LibraryError + '_ {
    |source| LibraryError::Write { path: name.to_owned(), source }
}

fn hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

#[cfg(test)]
mod tests;
