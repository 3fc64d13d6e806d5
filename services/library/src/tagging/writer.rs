//! Writes tags into files, one after the other, each as a whole or not at all.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    ExistingGenre, TagAction,
    audio_digest::audio_digest,
    delta::Delta,
    journal::{Change, Journal},
    replace::{replace, temporary_beside},
    state::{Plan, TagState},
    tag_file::{read_state, with_state},
};
use crate::{
    Index, KnownTrack, LibraryError,
    reading::{Reading, open},
};

/// Tags are changed in memory, in several copies of the file.
const MAX_FILE_BYTES: u64 = 1 << 30;
const UNKNOWN: &str = "unknown";

/// What tagging would do to a file, and whether it may. Reads its tags and nothing else.
pub(crate) fn preview(track: &KnownTrack, existing: ExistingGenre) -> Result<TagAction, LibraryError> {
    if track.genre == UNKNOWN {
        return Ok(TagAction::NoGenre);
    }
    let failed = |source| read_error(&track.path, source);
    let mut file = open(&track.path).map_err(failed)?;
    Ok(match plan(track, existing, &mut file)? {
        (_, Plan::Same) => TagAction::Same,
        (_, Plan::Keep(genres)) => TagAction::Kept(genres),
        (old, Plan::Change(new)) => {
            if !is_writable(&track.path, &file.metadata().map_err(failed)?)? {
                return Err(LibraryError::ReadOnly);
            }
            TagAction::Change(old.changes_to(&new))
        }
    })
}

fn plan(
    track: &KnownTrack,
    existing: ExistingGenre,
    file: &mut (impl std::io::Read + std::io::Seek),
) -> Result<(TagState, Plan), LibraryError> {
    let old = read_state(file)?;
    let plan = old.plan(track, existing);
    Ok((old, plan))
}

/// Writes tags, and keeps what is needed to undo that.
pub(crate) struct Writer<'a> {
    index: &'a mut Index,
    journal: Journal,
    run: Option<i64>,
    has_changed: bool,
}

impl<'a> Writer<'a> {
    /// Finishes what a run before this one may have left.
    pub(crate) fn new(index: &'a mut Index, mut journal: Journal) -> Result<Self, LibraryError> {
        finish_interrupted(index, &mut journal)?;
        Ok(Self { index, journal, run: None, has_changed: false })
    }

    /// The number of this run, if it has changed anything.
    pub(crate) fn run(&self) -> Option<i64> {
        self.run.filter(|_| self.has_changed)
    }

    /// Tags a file.
    pub(crate) fn write(&mut self, track: &KnownTrack, existing: ExistingGenre) -> Result<TagAction, LibraryError> {
        let preview = preview(track, existing)?;
        if !matches!(preview, TagAction::Change(_)) {
            return Ok(preview);
        }
        // A link stays one: it is its target that is tagged.
        let place = fs::canonicalize(&track.path).map_err(|source| read_error(&track.path, source))?;
        let metadata = fs::metadata(&place).map_err(|source| read_error(&place, source))?;
        let original = read_whole(&place, &metadata)?;
        if blake3::hash(&original) != track.digest {
            return Err(LibraryError::ChangedSinceScan);
        }
        let (old, Plan::Change(new)) = plan(track, existing, &mut std::io::Cursor::new(original.as_slice()))? else {
            return Ok(TagAction::Same);
        };
        let tagged = with_state(&original, &new)?;
        if tagged.len() as u64 > MAX_FILE_BYTES {
            // It could not be undone.
            return Err(LibraryError::TooLarge);
        }
        if audio_digest(&original)? != audio_digest(&tagged)? {
            return Err(LibraryError::AudioWouldChange);
        }
        let change = Change {
            path: track.path.clone(),
            original: track.digest,
            tagged: *blake3::hash(&tagged).as_bytes(),
            modified: metadata.modified().map_err(|source| read_error(&place, source))?,
            fields: old.changes_to(&new),
            delta: Delta::between(&original, &tagged),
        };
        if change.delta.restore(&tagged).is_none_or(|restored| restored != original) {
            return Err(LibraryError::Undo("what was kept does not make the original again".to_owned()));
        }
        self.put(&change, &place, &tagged, &metadata)?;
        Ok(TagAction::Change(change.fields))
    }

    pub(super) fn put(
        &mut self,
        change: &Change,
        place: &Path,
        tagged: &[u8],
        metadata: &fs::Metadata,
    ) -> Result<(), LibraryError> {
        let run = match self.run {
            Some(run) => run,
            None => *self.run.insert(self.journal.begin()?),
        };
        let temporary = temporary_beside(place);
        self.journal.announce(run, change, &temporary)?;
        if let Err(source) = replace(place, &temporary, tagged, metadata, None) {
            // Whether it was replaced all the same, as a network may have it, is seen by its digest.
            finish_interrupted(self.index, &mut self.journal)?;
            return Err(LibraryError::Write { path: place.to_owned(), source });
        }
        self.has_changed = true;
        self.index.audio_is_unchanged(&change.path, &change.original, &change.tagged)?;
        self.journal.settle(run, &change.path, &temporary)
    }
}

/// Tells the index of files that were tagged when a process died, forgets those that were not, and removes what it left.
pub(crate) fn finish_interrupted(index: &mut Index, journal: &mut Journal) -> Result<(), LibraryError> {
    journal.clean_up()?;
    let nowhere = PathBuf::new();
    for (run, path) in journal.unsettled()? {
        let Some(change) = journal.change(run, &path)? else { continue };
        let digest = Reading::of(&path).ok().flatten().map(|reading| reading.digest);
        if digest == Some(change.tagged) {
            index.audio_is_unchanged(&path, &change.original, &change.tagged)?;
            journal.settle(run, &path, &nowhere)?;
        } else if digest == Some(change.original) {
            journal.forget(run, &path, &nowhere)?;
        } else if digest.is_some() {
            // Somebody else's version: nothing to finish, and nothing to undo, as undoing will say.
            journal.settle(run, &path, &nowhere)?;
        }
    }
    Ok(())
}

/// Whether this user may write to the file itself. To replace it would take no more than the right to write to its folder.
pub(crate) fn is_writable(place: &Path, metadata: &fs::Metadata) -> Result<bool, LibraryError> {
    if metadata.permissions().readonly() {
        return Ok(false);
    }
    match fs::OpenOptions::new().write(true).open(place) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(false),
        Err(source) => Err(read_error(place, source)),
    }
}

/// The bytes of a file that can be changed in memory.
pub(crate) fn read_whole(path: &Path, metadata: &fs::Metadata) -> Result<Vec<u8>, LibraryError> {
    if metadata.len() > MAX_FILE_BYTES {
        return Err(LibraryError::TooLarge);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    let read = open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    let length = read.map_err(|source| read_error(path, source))?;
    if length as u64 > MAX_FILE_BYTES { Err(LibraryError::TooLarge) } else { Ok(bytes) }
}

fn read_error(path: &Path, source: std::io::Error) -> LibraryError {
    LibraryError::Read { path: path.to_owned(), source }
}
