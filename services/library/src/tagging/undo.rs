//! Puts tagged files back, byte for byte.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    is_of_every_file,
    journal::{Journal, TagRun},
    replace::{replace, temporary_beside},
    writer::{finish_interrupted, is_writable, read_whole},
};
use crate::{Index, LibraryError};

/// Restores what the run with this number changed, by default the last one that no undo has tried; `on_file` hears how it went
/// for each file. Returns the number of the run.
pub(crate) fn undo(
    index: &mut Index,
    mut journal: Journal,
    run: Option<i64>,
    mut on_file: impl FnMut(&Path, Result<(), LibraryError>),
) -> Result<i64, LibraryError> {
    finish_interrupted(index, &mut journal)?;
    let runs = journal.runs()?;
    let known = runs.iter().find(|known| run.map_or(!known.tried, |run| known.run == run));
    let Some(&TagRun { run: number, .. }) = known else {
        let left: Vec<i64> = runs.iter().map(|known| known.run).collect();
        let all_tried = run.is_none() && !left.is_empty();
        return Err(if all_tried { LibraryError::AllTried(left) } else { LibraryError::NoRun(left) });
    };
    let mut is_early = false;
    for path in journal.paths(number)? {
        match restore(index, &mut journal, number, &path) {
            Err(error) if is_of_every_file(&error) => return Err(error),
            restored => {
                is_early |= matches!(restored, Err(LibraryError::TaggedAgain(_)));
                on_file(&path, restored);
            }
        }
    }
    // Who names a run before its time has it in its turn all the same.
    if run.is_none() || !is_early {
        journal.note_tried(number)?;
    }
    Ok(number)
}

fn restore(index: &mut Index, journal: &mut Journal, run: i64, path: &Path) -> Result<(), LibraryError> {
    let Some(change) = journal.change(run, path)? else { return Ok(()) };
    let unreadable = |source| LibraryError::Read { path: path.to_owned(), source };
    let place = fs::canonicalize(path).map_err(unreadable)?;
    let metadata = fs::metadata(&place).map_err(unreadable)?;
    let tagged = read_whole(&place, &metadata)?;
    let digest = *blake3::hash(&tagged).as_bytes();
    if digest == change.original {
        // A process died between this file's return and the note of it.
        index.audio_is_unchanged(path, &change.tagged, &change.original)?;
        return journal.forget(run, path, &PathBuf::new());
    }
    if digest != change.tagged {
        return Err(match journal.later_run(run, path, &digest)? {
            Some(later) => LibraryError::TaggedAgain(later),
            None => LibraryError::ChangedSinceTagged,
        });
    }
    if !is_writable(&place, &metadata)? {
        return Err(LibraryError::ReadOnly);
    }
    let original = change.delta.restore(&tagged).filter(|original| blake3::hash(original) == change.original);
    let original = original.ok_or_else(|| LibraryError::Undo("the journal is damaged".to_owned()))?;
    let temporary = temporary_beside(&place);
    journal.announce_temporary(&temporary)?;
    replace(&place, &temporary, &original, &metadata, Some(change.modified))
        .map_err(|source| LibraryError::Write { path: place, source })?;
    index.audio_is_unchanged(path, &change.tagged, &change.original)?;
    journal.forget(run, path, &temporary)
}
