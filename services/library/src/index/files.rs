//! What is known of files: the same as before, changed, failed, gone.

use std::{
    fs::Metadata,
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use rusqlite::{OptionalExtension, Transaction, named_params};

use super::now;
use crate::{Index, LibraryError, failures, path_bytes};

/// Files that are looked at between two writes.
const PAGE: i64 = 1_000;

/// A file as the file system shows it without its being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: i64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified_ns: i64,
}

impl FileState {
    /// The file at `path` by what the file system says of it.
    #[must_use]
    pub fn new(path: PathBuf, metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let nanoseconds = modified.map_or(0, |since| since.as_nanos());
        Self {
            path,
            size: i64::try_from(metadata.len()).unwrap_or(i64::MAX),
            modified_ns: i64::try_from(nanoseconds).unwrap_or(i64::MAX),
        }
    }
}

/// What the index knows of a file that looks like this now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// The current model's verdict on it is there.
    Verdict,
    /// It failed, and would fail again.
    Failure,
    /// It failed for a reason that may be over.
    PassingFailure,
    /// There is no verdict of the current model: the file is new, or changed, or another model heard it.
    Nothing,
}

/// A file without a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Why, as a name for programs.
    pub code: String,
    /// Why, in words.
    pub message: String,
}

impl Index {
    /// What is known of `file` by its path, size and time, of the model with this id, if it was looked at at this time or
    /// later. A file that was gone is back.
    ///
    /// # Errors
    /// If the index cannot be read or written.
    pub fn knowledge(&self, file: &FileState, model_id: i64, since: i64) -> Result<Knowledge, LibraryError> {
        let look = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT files.error_code, files.gone_at, verdicts.model_id FROM files
                 LEFT JOIN verdicts ON verdicts.id = files.verdict_id
                 WHERE path = :path AND size = :size AND modified_ns = :modified_ns AND looked_at >= :since",
            )?;
            let path = path_bytes::to_bytes(&file.path);
            let parameters = named_params! {
                ":path": path, ":size": file.size, ":modified_ns": file.modified_ns, ":since": since,
            };
            let row = |row: &rusqlite::Row<'_>| {
                Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, Option<i64>>(2)?))
            };
            let Some((error_code, gone_at, verdict_model)) = statement.query_row(parameters, row).optional()? else {
                return Ok(Knowledge::Nothing);
            };
            if gone_at.is_some() {
                self.connection.prepare_cached("UPDATE files SET gone_at = NULL WHERE path = ?1")?.execute([path])?;
            }
            Ok(match error_code {
                Some(code) if failures::is_lasting(&code) => Knowledge::Failure,
                Some(_) => Knowledge::PassingFailure,
                None if verdict_model == Some(model_id) => Knowledge::Verdict,
                None => Knowledge::Nothing,
            })
        };
        look().map_err(|source| self.error(source))
    }

    /// Looks for every file of the index that was last seen in `folder`, or at this path, and marks those that are not there
    /// any more; `on_gone` hears of each. What cannot be looked for is left as it is.
    ///
    /// # Errors
    /// If the index cannot be read or written.
    pub fn mark_gone(&mut self, folder: &Path, mut on_gone: impl FnMut(&Path)) -> Result<(), LibraryError> {
        let mut last = -1;
        loop {
            let page = self.present_files(folder, last).map_err(|source| self.error(source))?;
            let Some((last_of_page, _)) = page.last() else { return Ok(()) };
            last = *last_of_page;
            let gone: Vec<_> = page.into_iter().filter(|(_, path)| is_gone(path)).collect();
            let mut mark = || {
                let transaction = self.connection.transaction()?;
                for (id, _) in &gone {
                    let mut statement = transaction.prepare_cached("UPDATE files SET gone_at = ?2 WHERE id = ?1")?;
                    statement.execute([*id, now()])?;
                }
                transaction.commit()
            };
            let marked: rusqlite::Result<()> = mark();
            marked.map_err(|source| self.error(source))?;
            gone.iter().for_each(|(_, path)| on_gone(path));
        }
    }

    /// Forgets the files under `folder` that are gone, and the verdicts that no file has any more. Returns the number of files.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn prune(&mut self, folder: &Path) -> Result<u64, LibraryError> {
        let (first, end) = path_bytes::range_under(folder);
        let prune = || {
            let transaction = self.connection.transaction()?;
            let files = "DELETE FROM files WHERE gone_at IS NOT NULL AND path >= ?1 AND path < ?2";
            let count = transaction.execute(files, [first, end])?;
            let in_no_file =
                "DELETE FROM verdicts WHERE digest NOT IN (SELECT digest FROM files WHERE digest NOT NULL)";
            transaction.execute(in_no_file, [])?;
            transaction.commit()?;
            Ok(count as u64)
        };
        let pruned: rusqlite::Result<u64> = prune();
        pruned.map_err(|source| self.error(source))
    }

    /// Every file that failed and is still there, by path.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn failed_files(&self) -> Result<Vec<FailedFile>, LibraryError> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT path, error_code, coalesce(error_message, '') FROM files
                 WHERE error_code IS NOT NULL AND gone_at IS NULL ORDER BY path",
            )?;
            let file = |row: &rusqlite::Row<'_>| {
                Ok(FailedFile { path: path_bytes::from_bytes(row.get(0)?), code: row.get(1)?, message: row.get(2)? })
            };
            statement.query_map([], file)?.collect()
        };
        let files: rusqlite::Result<_> = read();
        files.map_err(|source| self.error(source))
    }

    fn present_files(&self, folder: &Path, after: i64) -> rusqlite::Result<Vec<(i64, PathBuf)>> {
        let (first, end) = path_bytes::range_under(folder);
        let mut statement = self.connection.prepare_cached(
            "SELECT id, path FROM files WHERE gone_at IS NULL AND id > :after
             AND (path >= :first AND path < :end OR path = :folder) ORDER BY id LIMIT :page",
        )?;
        let folder = path_bytes::to_bytes(folder);
        let parameters =
            named_params! {":first": first, ":end": end, ":after": after, ":folder": folder, ":page": PAGE};
        let rows = statement.query_map(parameters, |row| Ok((row.get(0)?, path_bytes::from_bytes(row.get(1)?))))?;
        rows.collect()
    }
}

/// Marks one file.
pub(super) fn mark_one_gone(transaction: &Transaction<'_>, path: &Path) -> rusqlite::Result<()> {
    let mut statement =
        transaction.prepare_cached("UPDATE files SET gone_at = ?2 WHERE path = ?1 AND gone_at IS NULL")?;
    statement.execute((path_bytes::to_bytes(path), now()))?;
    Ok(())
}

fn is_gone(path: &Path) -> bool {
    matches!(path.metadata(), Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()))
}
