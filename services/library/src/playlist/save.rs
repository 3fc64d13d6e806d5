//! A playlist becomes a file as a whole or not at all.

use std::path::Path;

use chorale_model::write_whole;

use crate::LibraryError;

/// Writes the playlist `text` to `file`.
///
/// # Errors
/// If it cannot be written; a file that was there before is there still.
pub fn save_playlist(file: &Path, text: &str) -> Result<(), LibraryError> {
    write_whole(file, text.as_bytes()).map_err(|source| LibraryError::Write { path: file.to_owned(), source })
}
