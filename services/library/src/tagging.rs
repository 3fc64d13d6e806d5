//! Genres in the files' own tags: what would change, the change, and its undoing.
//!
//! What is written is the genre that players show (`TCON`, `GENRE`, `©gen`, `Genre`) and three fields of our own beside it,
//! as `TXXX`, comment, freeform atom or item: `CHORALE_GENRE`, `CHORALE_CONFIDENCE` and `CHORALE_MODEL`. They tell a genre
//! that Chorale wrote, which it may change later, from one that somebody else did.
//!
//! A file is changed in memory. It is put in place only if its audio, packet by packet, is what it was, and no other tag is
//! missing, by a rename of a file that lies on the disk in full. Before that, the journal has what the new file lacks of the
//! old one; mostly the old tags, not a second copy of the music. The new file has the permissions, the extended attributes and
//! the access control list of the old one, and its owner where the system lets it be given away. A link is followed. Other hard
//! links to a file keep the old version.

mod attributes;
mod audio_digest;
mod delta;
mod frames;
mod journal;
mod other_tag;
mod own_tag;
mod replace;
mod state;
mod tag_file;
mod undo;
mod writer;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde::Serialize;

pub(crate) use self::state::same_genre;
use self::{journal::Journal, writer::Writer};
pub use self::{
    journal::TagRun,
    state::{ExistingGenre, FieldChange, TagState},
};
use crate::{Index, KnownTrack, LibraryError};

/// What became, or would become, of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum TagAction {
    /// Its tags are as they should be.
    Same,
    /// Its genre is `unknown`.
    NoGenre,
    /// It names these genres, and they are not ours to change.
    Kept(Vec<String>),
    /// These fields change.
    Change(Vec<FieldChange>),
}

/// The journal of an index: beside it, with `.undo` behind its name.
#[must_use]
pub fn journal_of(index: &Path) -> PathBuf {
    let mut name = OsString::from(index);
    name.push(".undo");
    name.into()
}

/// Says for each of `tracks` what [`write_tags`] would do, and changes nothing.
pub fn preview_tags(
    tracks: &[KnownTrack],
    existing: ExistingGenre,
    mut on_track: impl FnMut(&KnownTrack, Result<TagAction, LibraryError>),
) {
    for track in tracks {
        on_track(track, writer::preview(track, existing));
    }
}

/// Writes the genres of `tracks` into their files; `on_track` hears of each. Returns the number of the run, if anything
/// changed: [`undo_tags`] takes it.
///
/// # Errors
/// If the journal cannot be used, or another process uses it. What is wrong with one file, `on_track` hears.
pub fn write_tags(
    index: &mut Index,
    journal: &Path,
    tracks: &[KnownTrack],
    existing: ExistingGenre,
    mut on_track: impl FnMut(&KnownTrack, Result<TagAction, LibraryError>),
) -> Result<Option<i64>, LibraryError> {
    let mut writer = Writer::new(index, Journal::open(journal)?)?;
    for track in tracks {
        match writer.write(track, existing) {
            Err(error) if is_of_every_file(&error) => return Err(error),
            outcome => on_track(track, outcome),
        }
    }
    Ok(writer.run())
}

/// Restores every file that a run changed, byte for byte and with its old time. One that was changed since, is gone, or cannot
/// be written is left alone. By default, it is the last run that no undo has tried yet; what was left alone of the others is
/// tried again when they are named. `on_file` hears of each file. Returns the number of the run.
///
/// # Errors
/// If there is no such run, or the journal or the index cannot be used.
pub fn undo_tags(
    index: &mut Index,
    journal: &Path,
    run: Option<i64>,
    on_file: impl FnMut(&Path, Result<(), LibraryError>),
) -> Result<i64, LibraryError> {
    if !journal.exists() {
        return Err(LibraryError::NoRun(Vec::new()));
    }
    undo::undo(index, Journal::open(journal)?, run, on_file)
}

/// The runs of which something can be undone, the last one first.
///
/// # Errors
/// If the journal cannot be used, or another process uses it.
pub fn tag_runs(journal: &Path) -> Result<Vec<TagRun>, LibraryError> {
    if !journal.exists() {
        return Ok(Vec::new());
    }
    Journal::open(journal)?.runs()
}

/// True if no other file would fare better.
fn is_of_every_file(error: &LibraryError) -> bool {
    matches!(error, LibraryError::Journal { .. } | LibraryError::Index { .. } | LibraryError::Damaged { .. })
}

#[cfg(test)]
mod tests;
