//! One scan of an index at a time.

use std::{ffi::OsString, path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode};

use crate::LibraryError;

/// While it lives, nobody else scans into the same index. It ends with the process that has it, however that ends.
#[derive(Debug)]
pub struct ScanLock(
    #[expect(dead_code, reason = "it holds a transaction, and with it a lock of the file system")] Connection,
);

impl ScanLock {
    /// Takes the lock of the index at `index`, in a file beside it.
    ///
    /// # Errors
    /// If somebody else has it, or the file cannot be made.
    pub fn take(index: &Path) -> Result<Self, LibraryError> {
        let mut name = OsString::from(index);
        name.push(".lock");
        let lock = || {
            let connection = Connection::open(&name)?;
            connection.busy_timeout(Duration::ZERO)?;
            connection.execute_batch("BEGIN EXCLUSIVE")?;
            Ok(connection)
        };
        lock().map(Self).map_err(|source: rusqlite::Error| match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LibraryError::Busy(index.to_owned()),
            _ => LibraryError::Index { path: name.clone().into(), source },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_the_lock_of_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("library.sqlite");
        let first = ScanLock::take(&index).unwrap();
        assert!(matches!(ScanLock::take(&index), Err(LibraryError::Busy(path)) if path == index));
        ScanLock::take(&folder.path().join("other.sqlite")).unwrap();
        drop(first);
        ScanLock::take(&index).unwrap();
    }
}
