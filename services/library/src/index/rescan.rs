//! A scan that makes everything anew, and goes on where it was ended.

use std::path::PathBuf;

use rusqlite::{OptionalExtension, named_params};

use super::now;
use crate::{Index, LibraryError, path_bytes};

impl Index {
    /// Since when verdicts on what is in `roots` are made anew, in milliseconds since 1970: since now, unless the last such
    /// scan of the same folders with the same model did not come to its end.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub(crate) fn begin_rescan(&mut self, roots: &[PathBuf], model_id: i64) -> Result<i64, LibraryError> {
        let roots: Vec<u8> = roots.iter().flat_map(|root| [path_bytes::to_bytes(root), &[0]].concat()).collect();
        let begin = || {
            let unfinished = "SELECT since FROM rescan WHERE model_id = ?1 AND roots = ?2";
            let since = self.connection.query_row(unfinished, (model_id, &roots), |row| row.get(0)).optional()?;
            if let Some(since) = since {
                return Ok(since);
            }
            self.connection.query_row(
                "INSERT INTO rescan (id, model_id, roots, since) VALUES (1, :model_id, :roots, :now)
                 ON CONFLICT (id) DO UPDATE SET model_id = :model_id, roots = :roots, since = :now RETURNING since",
                named_params! {":model_id": model_id, ":roots": roots, ":now": now()},
                |row| row.get(0),
            )
        };
        let since: rusqlite::Result<i64> = begin();
        since.map_err(|source| self.error(source))
    }

    /// Everything was made anew.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub(crate) fn end_rescan(&mut self) -> Result<(), LibraryError> {
        self.connection.execute("DELETE FROM rescan", []).map_err(|source| self.error(source))?;
        Ok(())
    }
}
