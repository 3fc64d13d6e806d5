//! Files whose bytes changed, and whose audio did not.

use std::path::Path;

use rusqlite::{OptionalExtension, TransactionBehavior, named_params};

use super::now;
use crate::{Credits, Index, LibraryError, path_bytes, reading::Reading};

impl Index {
    /// Says that the file at `path` had the bytes with the digest `old`, and has those with the digest `new`, which have the
    /// same audio, as after its tags were written: what is known of the old bytes is known of the new ones, and no scan has to
    /// listen again. If somebody has put other bytes there meanwhile, nothing is known of them, and the next scan looks at the
    /// file.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn audio_is_unchanged(&mut self, path: &Path, old: &[u8; 32], new: &[u8; 32]) -> Result<(), LibraryError> {
        let Some(Reading { state, .. }) = Reading::of(path).ok().flatten().filter(|reading| reading.digest == *new)
        else {
            return Ok(());
        };
        let credits = Credits::read(path);
        let mut write = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "INSERT INTO verdicts (digest, model_id, genre, confidence, duration_seconds, probabilities, segments, warnings,
                                       embedding, early, made_at)
                 SELECT :new, model_id, genre, confidence, duration_seconds, probabilities, segments, warnings, embedding, early,
                        made_at
                 FROM verdicts WHERE digest = :old ON CONFLICT (digest, model_id) DO NOTHING",
                named_params! {":new": new, ":old": old},
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
                    ":size": state.size, ":modified_ns": state.modified_ns, ":new": new, ":old": old,
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
