//! The index: one SQLite file with every file that was looked at, and every verdict.

mod files;
mod models;
mod rescan;
mod retag;
mod schema;
mod statistics;
mod tracks;
mod verdicts;

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use crate::LibraryError;

pub use self::{
    files::{FailedFile, FileState, Knowledge},
    models::ServedModel,
    statistics::{FailureStatistics, GenreStatistics, ModelStatistics, Statistics},
    verdicts::{Finding, Found},
};

/// Others hold a lock for the milliseconds of a small transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// An open index. Several processes may have it open; one scans at a time, see [`crate::ScanLock`].
#[derive(Debug)]
pub struct Index {
    connection: Connection,
    path: PathBuf,
}

impl Index {
    /// Opens the index at `path`, which has to be there.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or no index, or of a newer version.
    pub fn open(path: &Path) -> Result<Self, LibraryError> {
        let is_there = path.try_exists().map_err(|source| LibraryError::Read { path: path.to_owned(), source })?;
        if !is_there {
            return Err(LibraryError::NoIndex(path.to_owned()));
        }
        let index = Self::connect(path, OpenFlags::empty())?;
        if index.is_empty()? {
            return Err(LibraryError::NoIndex(path.to_owned()));
        }
        index.prepare()
    }

    /// Opens the index at `path`, or makes a new one with the folders that lead to it.
    ///
    /// # Errors
    /// As [`Index::open`], or if it cannot be made.
    pub fn create(path: &Path) -> Result<Self, LibraryError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let failed = |source| LibraryError::Write { path: folder.to_owned(), source };
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        Self::connect(path, OpenFlags::SQLITE_OPEN_CREATE)?.prepare()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn connect(path: &Path, more: OpenFlags) -> Result<Self, LibraryError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
        let connection = Connection::open_with_flags(path, flags).map_err(|source| error(path, source))?;
        Ok(Self { connection, path: path.to_owned() })
    }

    fn prepare(mut self) -> Result<Self, LibraryError> {
        self.configure().map_err(|source| self.error(source))?;
        schema::bring_up_to_date(&mut self)?;
        Ok(self)
    }

    /// The file may come from anywhere: nothing in its schema is to run.
    fn configure(&self) -> rusqlite::Result<()> {
        let connection = &self.connection;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        // With a write-ahead log, what a process wrote survives its end; what a power cut may take is scanned again.
        connection.pragma_update(None, "synchronous", "normal")
    }

    fn is_empty(&self) -> Result<bool, LibraryError> {
        let count = "SELECT count(*) FROM sqlite_schema";
        let tables: i64 =
            self.connection.query_row(count, [], |row| row.get(0)).map_err(|source| self.error(source))?;
        Ok(tables == 0)
    }

    fn error(&self, source: rusqlite::Error) -> LibraryError {
        error(&self.path, source)
    }

    fn damaged(&self, what: impl Into<String>) -> LibraryError {
        LibraryError::Damaged { path: self.path.clone(), what: what.into() }
    }
}

fn error(path: &Path, source: rusqlite::Error) -> LibraryError {
    let path = path.to_owned();
    let is_damage = match &source {
        rusqlite::Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SchemaChanged)
        }
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..)
        | rusqlite::Error::InvalidColumnType(..) => true,
        _ => false,
    };
    if is_damage {
        return LibraryError::Damaged { path, what: source.to_string() };
    }
    LibraryError::Index { path, source }
}

/// Now, in milliseconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
