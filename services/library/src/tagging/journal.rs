//! What is needed to undo, on the disk before any file is changed: one SQLite file beside the index.
//!
//! A change is written down before it is made. What was on its way when a process died is known by the digest of the file:
//! that of the original, and nothing happened, or that of the tagged file, and all of it did.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, config::DbConfig, named_params};
use serde::Serialize;

use super::{delta::Delta, state::FieldChange};
use crate::{LibraryError, path_bytes};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS runs (
        run INTEGER PRIMARY KEY AUTOINCREMENT, started_at INTEGER NOT NULL, tried INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE IF NOT EXISTS changes (
        run INTEGER NOT NULL REFERENCES runs, path BLOB NOT NULL, original BLOB NOT NULL, tagged BLOB NOT NULL,
        modified_ns INTEGER NOT NULL, fields TEXT NOT NULL, pieces TEXT NOT NULL, kept BLOB NOT NULL,
        settled INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run, path)
    ) STRICT;
    -- What was kept is long: nobody is to read past it for the few changes that are of interest.
    CREATE INDEX IF NOT EXISTS changes_unsettled ON changes (run, path) WHERE NOT settled;
    CREATE INDEX IF NOT EXISTS changes_by_tagged ON changes (tagged);
    CREATE TABLE IF NOT EXISTS temporaries (path BLOB PRIMARY KEY) STRICT;
    PRAGMA user_version = 1;";
const VERSION: i64 = 1;
/// `ChTa`: what tells a journal from other databases.
const APPLICATION_ID: i64 = 0x4368_5461;
/// What SQLite puts into a row at most, less what else is in it.
const MAX_KEPT: usize = 900 << 20;

/// An open journal. Nobody else can have it open.
pub(crate) struct Journal {
    connection: Connection,
    path: PathBuf,
}

/// A run of `chorale tag --write` that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TagRun {
    /// Its number.
    pub run: i64,
    /// When it began, in seconds since 1970.
    pub started_at: i64,
    /// Files that it changed, and that have not been restored.
    pub files: u64,
    /// Whether these could not be restored when an undo tried to.
    pub tried: bool,
}

/// A file that was, or is to be, tagged.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) path: PathBuf,
    /// The BLAKE3 digests of the file before and after.
    pub(crate) original: [u8; 32],
    pub(crate) tagged: [u8; 32],
    /// When the original was changed last.
    pub(crate) modified: SystemTime,
    /// What it was about, for people who look into the journal.
    pub(crate) fields: Vec<FieldChange>,
    /// How to get the original back.
    pub(crate) delta: Delta,
}

impl Journal {
    /// Opens the journal at `path`, and makes it if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, LibraryError> {
        let failed = |source| LibraryError::Journal { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|source| LibraryError::Write { path: folder.to_owned(), source })?;
        }
        let connection = Connection::open(path).map_err(failed)?;
        let (is_foreign, version) = prepare(&connection).map_err(|source| match source {
            rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::DatabaseBusy => {
                LibraryError::JournalBusy(path.to_owned())
            }
            source => failed(source),
        })?;
        if is_foreign {
            return Err(LibraryError::ForeignJournal(path.to_owned()));
        }
        if version > VERSION {
            return Err(LibraryError::Newer { path: path.to_owned(), found: version, known: VERSION });
        }
        Ok(Self { connection, path: path.to_owned() })
    }

    fn error(&self, source: rusqlite::Error) -> LibraryError {
        LibraryError::Journal { path: self.path.clone(), source }
    }

    /// The number of a new run.
    pub(crate) fn begin(&self) -> Result<i64, LibraryError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        let run = "INSERT INTO runs (started_at) VALUES (?1) RETURNING run";
        self.connection.query_row(run, [now], |row| row.get(0)).map_err(|source| self.error(source))
    }

    /// Writes down a change that is about to be made by way of the file `temporary`.
    pub(crate) fn announce(&mut self, run: i64, change: &Change, temporary: &Path) -> Result<(), LibraryError> {
        let (pieces, kept) = change.delta.to_parts().map_err(|error| LibraryError::Tags(error.to_string()))?;
        if kept.len() > MAX_KEPT {
            return Err(LibraryError::TooLarge);
        }
        let fields = serde_json::to_string(&change.fields).map_err(|error| LibraryError::Tags(error.to_string()))?;
        let modified = change.modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut announce = || {
            let transaction = self.connection.transaction()?;
            transaction.execute(
                "INSERT INTO changes (run, path, original, tagged, modified_ns, fields, pieces, kept)
                 VALUES (:run, :path, :original, :tagged, :modified_ns, :fields, :pieces, :kept)",
                named_params! {
                    ":run": run,
                    ":path": path_bytes::to_bytes(&change.path),
                    ":original": change.original,
                    ":tagged": change.tagged,
                    ":modified_ns": i64::try_from(modified).unwrap_or(i64::MAX),
                    ":fields": fields,
                    ":pieces": pieces,
                    ":kept": kept,
                },
            )?;
            let path = path_bytes::to_bytes(temporary);
            transaction.execute("INSERT OR IGNORE INTO temporaries (path) VALUES (?1)", [path])?;
            transaction.commit()
        };
        let announced: rusqlite::Result<()> = announce();
        announced.map_err(|source| self.error(source))
    }

    /// Writes down that a file is about to be written by way of the file `temporary`.
    pub(crate) fn announce_temporary(&self, temporary: &Path) -> Result<(), LibraryError> {
        let insert = "INSERT OR IGNORE INTO temporaries (path) VALUES (?1)";
        let inserted = self.connection.execute(insert, [path_bytes::to_bytes(temporary)]);
        inserted.map(drop).map_err(|source| self.error(source))
    }

    /// Writes down that a change was made, and that the index knows of it.
    pub(crate) fn settle(&mut self, run: i64, path: &Path, temporary: &Path) -> Result<(), LibraryError> {
        let settled = "UPDATE changes SET settled = 1 WHERE run = ?1 AND path = ?2";
        self.conclude(settled, run, path, temporary)
    }

    /// Forgets a change: it was not made, or it is undone.
    pub(crate) fn forget(&mut self, run: i64, path: &Path, temporary: &Path) -> Result<(), LibraryError> {
        self.conclude("DELETE FROM changes WHERE run = ?1 AND path = ?2", run, path, temporary)
    }

    fn conclude(&mut self, statement: &str, run: i64, path: &Path, temporary: &Path) -> Result<(), LibraryError> {
        let mut conclude = || {
            let transaction = self.connection.transaction()?;
            transaction.execute(statement, (run, path_bytes::to_bytes(path)))?;
            transaction.execute("DELETE FROM temporaries WHERE path = ?1", [path_bytes::to_bytes(temporary)])?;
            transaction.commit()
        };
        let concluded: rusqlite::Result<()> = conclude();
        concluded.map_err(|source| self.error(source))
    }

    /// The runs of which something can be undone, the last one first.
    pub(crate) fn runs(&self) -> Result<Vec<TagRun>, LibraryError> {
        let read = || -> rusqlite::Result<Vec<TagRun>> {
            let mut statement = self.connection.prepare(
                "SELECT run, started_at, count(*), tried FROM runs JOIN changes USING (run) GROUP BY run ORDER BY run DESC",
            )?;
            let run = |row: &Row<'_>| {
                let files: i64 = row.get(2)?;
                Ok(TagRun {
                    run: row.get(0)?,
                    started_at: row.get(1)?,
                    files: files.unsigned_abs(),
                    tried: row.get(3)?,
                })
            };
            statement.query_map([], run)?.collect()
        };
        read().map_err(|source| self.error(source))
    }

    /// Notes that an undo has tried what it can for a run: the next one goes on with the run before.
    pub(crate) fn note_tried(&self, run: i64) -> Result<(), LibraryError> {
        let noted = self.connection.execute("UPDATE runs SET tried = 1 WHERE run = ?1", [run]);
        noted.map(drop).map_err(|source| self.error(source))
    }

    /// The files that a run changed, or was about to.
    pub(crate) fn paths(&self, run: i64) -> Result<Vec<PathBuf>, LibraryError> {
        let read = || -> rusqlite::Result<Vec<PathBuf>> {
            let mut statement = self.connection.prepare("SELECT path FROM changes WHERE run = ?1 ORDER BY path")?;
            statement.query_map([run], |row| Ok(path_bytes::from_bytes(row.get(0)?)))?.collect()
        };
        read().map_err(|source| self.error(source))
    }

    /// The files that runs were about to change, each with the run.
    pub(crate) fn unsettled(&self) -> Result<Vec<(i64, PathBuf)>, LibraryError> {
        let read = || -> rusqlite::Result<Vec<(i64, PathBuf)>> {
            let unsettled = "SELECT run, path FROM changes WHERE NOT settled ORDER BY run, path";
            let mut statement = self.connection.prepare(unsettled)?;
            statement.query_map([], |row| Ok((row.get(0)?, path_bytes::from_bytes(row.get(1)?))))?.collect()
        };
        read().map_err(|source| self.error(source))
    }

    /// What a run did to a file.
    pub(crate) fn change(&self, run: i64, path: &Path) -> Result<Option<Change>, LibraryError> {
        let change = "SELECT original, tagged, modified_ns, pieces, kept FROM changes WHERE run = ?1 AND path = ?2";
        let read = |row: &Row<'_>| {
            let nanoseconds: i64 = row.get(2)?;
            let modified = UNIX_EPOCH + Duration::from_nanos(nanoseconds.unsigned_abs());
            let (pieces, kept): (String, Vec<u8>) = (row.get(3)?, row.get(4)?);
            Ok((row.get(0)?, row.get(1)?, modified, pieces, kept))
        };
        let row = self.connection.query_row(change, (run, path_bytes::to_bytes(path)), read).optional();
        let row = row.map_err(|source| self.error(source))?;
        let Some((original, tagged, modified, pieces, kept)) = row else { return Ok(None) };
        let delta = Delta::from_parts(&pieces, kept).map_err(|error| LibraryError::Undo(error.to_string()))?;
        Ok(Some(Change { path: path.to_owned(), original, tagged, modified, fields: Vec::new(), delta }))
    }

    /// The last run after `run` that made of a file what now has this digest.
    pub(crate) fn later_run(&self, run: i64, path: &Path, digest: &[u8; 32]) -> Result<Option<i64>, LibraryError> {
        let later = "SELECT max(run) FROM changes WHERE tagged = ?3 AND path = ?2 AND run > ?1";
        let read = self.connection.query_row(later, (run, path_bytes::to_bytes(path), digest), |row| row.get(0));
        read.map_err(|source| self.error(source))
    }

    /// Removes the temporary files that a process left behind when it died.
    pub(crate) fn clean_up(&self) -> Result<(), LibraryError> {
        let read = || -> rusqlite::Result<Vec<PathBuf>> {
            let mut statement = self.connection.prepare("SELECT path FROM temporaries")?;
            statement.query_map([], |row| Ok(path_bytes::from_bytes(row.get(0)?)))?.collect()
        };
        for temporary in read().map_err(|source| self.error(source))? {
            match std::fs::remove_file(&temporary) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, file = %temporary.display(), "a temporary file cannot be removed");
                }
                _ => {
                    let path = path_bytes::to_bytes(&temporary);
                    let forgotten = self.connection.execute("DELETE FROM temporaries WHERE path = ?1", [path]);
                    forgotten.map_err(|source| self.error(source))?;
                }
            }
        }
        Ok(())
    }
}

/// Locks the journal until it is closed. Returns whether it is a database of somebody else, which is left as it is, and the
/// version of its schema.
fn prepare(connection: &Connection) -> rusqlite::Result<(bool, i64)> {
    connection.busy_timeout(Duration::ZERO)?;
    // The file may come from anywhere: nothing in its schema is to run.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.pragma_update(None, "locking_mode", "exclusive")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT;")?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let is_empty: bool = connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
    let is_foreign = application != APPLICATION_ID && !is_empty;
    if !is_foreign && version <= VERSION {
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    Ok((is_foreign, version))
}
