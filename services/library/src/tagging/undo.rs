//! Puts tagged files back, byte for byte.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    journal::Journal,
    replace::{replace, temporary_beside},
    writer::{finish_interrupted, read_whole},
};
use crate::{Index, LibraryError};

/// Restores what the run with this number changed, the last one by default; `on_file` hears how it went for each file.
/// Returns the number of the run.
pub(crate) fn undo(
    index: &mut Index,
    mut journal: Journal,
    run: Option<i64>,
    mut on_file: impl FnMut(&Path, Result<(), LibraryError>),
) -> Result<i64, LibraryError> {
    finish_interrupted(index, &mut journal)?;
    let runs = journal.runs()?;
    let known = runs.iter().find(|known| run.is_none_or(|run| known.run == run));
    let run = known.ok_or_else(|| LibraryError::NoRun(runs.iter().map(|known| known.run).collect()))?.run;
    for path in journal.paths(run, false)? {
        let restored = restore(index, &mut journal, run, &path);
        on_file(&path, restored);
    }
    Ok(run)
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
        index.audio_is_unchanged(path, &change.tagged)?;
        return journal.forget(run, path, &PathBuf::new());
    }
    if digest != change.tagged {
        return Err(match journal.later_run(run, path)? {
            Some(later) => LibraryError::TaggedAgain(later),
            None => LibraryError::ChangedSinceTagged,
        });
    }
    let original = change.delta.restore(&tagged).filter(|original| blake3::hash(original) == change.original);
    let original = original.ok_or_else(|| LibraryError::Undo("the journal is damaged".to_owned()))?;
    let temporary = temporary_beside(&place);
    journal.announce_temporary(&temporary)?;
    replace(&place, &temporary, &original, &metadata, Some(change.modified))
        .map_err(|source| LibraryError::Write { path: place, source })?;
    index.audio_is_unchanged(path, &change.tagged)?;
    journal.forget(run, path, &temporary)
}
