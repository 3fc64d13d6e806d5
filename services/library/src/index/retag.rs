//! Files whose bytes changed, and whose audio did not.

use std::{fs::File, path::Path};

use rusqlite::{OptionalExtension, TransactionBehavior, named_params};

use super::now;
use crate::{Credits, FileState, Index, LibraryError, path_bytes};

impl Index {
    /// Says that the file at `path` has other bytes than those of `digest`, but the same audio, as after its tags were written: what
    /// is known of the old bytes is known of the new ones, and no scan has to listen again.
    ///
    /// # Errors
    /// If the file cannot be read, or the index cannot be written.
    pub fn audio_is_unchanged(&mut self, path: &Path, digest: &[u8; 32]) -> Result<(), LibraryError> {
        let failed = |source| LibraryError::Read { path: path.to_owned(), source };
        let file = FileState::new(path.to_owned(), &path.metadata().map_err(failed)?);
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path).map_err(failed)?).map_err(failed)?;
        let (new_digest, credits) = (*hasher.finalize().as_bytes(), Credits::read(path));
        let mut write = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "INSERT INTO verdicts (digest, model_id, genre, confidence, duration_seconds, probabilities, segments, warnings,
                                       embedding, early, made_at)
                 SELECT :new, model_id, genre, confidence, duration_seconds, probabilities, segments, warnings, embedding, early,
                        made_at
                 FROM verdicts WHERE digest = :old ON CONFLICT (digest, model_id) DO NOTHING",
                named_params! {":new": new_digest, ":old": digest},
            )?;
            let heard =
                "SELECT model_id FROM verdicts JOIN files ON files.verdict_id = verdicts.id WHERE files.path = ?1";
            let key = path_bytes::to_bytes(path);
            let model_id: Option<i64> = transaction.query_row(heard, [key], |row| row.get(0)).optional()?;
            transaction.execute(
                "UPDATE files SET size = :size, modified_ns = :modified_ns, digest = :new, artist = :artist, album = :album,
                     title = :title, looked_at = :now,
                     verdict_id = (SELECT id FROM verdicts WHERE digest = :new AND model_id = :model_id)
                 WHERE path = :path AND digest = :old",
                named_params! {
                    ":size": file.size, ":modified_ns": file.modified_ns, ":new": new_digest, ":old": digest,
                    ":artist": credits.artist, ":album": credits.album, ":title": credits.title, ":now": now(),
                    ":model_id": model_id, ":path": key,
                },
            )?;
            transaction.commit()
        };
        let written: rusqlite::Result<()> = write();
        written.map_err(|source| self.error(source))
    }
}
