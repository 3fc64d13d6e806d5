//! Verdicts on their way into the index.

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, named_params};

use super::{files::mark_one_gone, now};
use crate::{Credits, FileState, Index, LibraryError, path_bytes, verdict::TrackVerdict};

/// What became of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The file, as it was when it was read.
    pub file: FileState,
    /// The BLAKE3 digest of its bytes, if they could be read.
    pub digest: Option<[u8; 32]>,
    /// What its tags say.
    pub credits: Credits,
    /// What it is.
    pub found: Found,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The model has heard it.
    Classified(TrackVerdict),
    /// Its bytes are those of a file that the model has heard before.
    Recognised(TrackVerdict),
    /// There is no verdict.
    Failed {
        /// Why, as a name for programs: see [`crate::failure_title`].
        code: String,
        /// Why, in words.
        message: String,
    },
    /// It is not there any more.
    Gone,
}

impl Index {
    /// The verdict of the model with this id on the audio with this digest.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn verdict(&self, digest: &[u8; 32], model_id: i64) -> Result<Option<TrackVerdict>, LibraryError> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT genre, confidence, duration_seconds, probabilities, segments, warnings, embedding, early
                 FROM verdicts WHERE digest = ?1 AND model_id = ?2",
            )?;
            statement.query_row((digest, model_id), |row| TrackVerdict::read(row, 0)).optional()
        };
        read().map_err(|source| self.error(source))
    }

    /// Writes down what became of files, all of it or nothing.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn record(&mut self, findings: &[Finding], model_id: i64) -> Result<(), LibraryError> {
        let mut record = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for finding in findings {
                record_one(&transaction, finding, model_id)?;
            }
            transaction.commit()
        };
        let recorded: rusqlite::Result<()> = record();
        recorded.map_err(|source| self.error(source))
    }
}

fn record_one(transaction: &Transaction<'_>, finding: &Finding, model_id: i64) -> rusqlite::Result<()> {
    let (verdict_id, failure) = match (&finding.found, &finding.digest) {
        (Found::Gone, _) => return mark_one_gone(transaction, &finding.file.path),
        (Found::Failed { code, message }, _) => (None, Some((code, message))),
        (Found::Classified(verdict) | Found::Recognised(verdict), Some(digest)) => {
            (Some(record_verdict(transaction, digest, verdict, model_id)?), None)
        }
        // Who has a verdict has been read.
        (Found::Classified(_) | Found::Recognised(_), None) => return Ok(()),
    };
    let mut statement = transaction.prepare_cached(
        "INSERT INTO files (path, size, modified_ns, digest, verdict_id, error_code, error_message, artist, album, title,
                            looked_at)
         VALUES (:path, :size, :modified_ns, :digest, :verdict_id, :error_code, :error_message, :artist, :album, :title, :now)
         ON CONFLICT (path) DO UPDATE SET size = :size, modified_ns = :modified_ns, digest = :digest,
             verdict_id = :verdict_id, error_code = :error_code, error_message = :error_message, artist = :artist,
             album = :album, title = :title, looked_at = :now, gone_at = NULL",
    )?;
    statement.execute(named_params! {
        ":path": path_bytes::to_bytes(&finding.file.path),
        ":size": finding.file.size,
        ":modified_ns": finding.file.modified_ns,
        ":digest": finding.digest.as_ref().map(<[u8; 32]>::as_slice),
        ":verdict_id": verdict_id,
        ":error_code": failure.map(|(code, _)| code),
        ":error_message": failure.map(|(_, message)| message),
        ":artist": finding.credits.artist,
        ":album": finding.credits.album,
        ":title": finding.credits.title,
        ":now": now(),
    })?;
    Ok(())
}

/// Returns the id of the verdict.
fn record_verdict(
    transaction: &Transaction<'_>,
    digest: &[u8; 32],
    verdict: &TrackVerdict,
    model_id: i64,
) -> rusqlite::Result<i64> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO verdicts (digest, model_id, genre, confidence, duration_seconds, probabilities, segments, warnings,
                               embedding, early, made_at)
         VALUES (:digest, :model_id, :genre, :confidence, :duration_seconds, :probabilities, :segments, :warnings,
                 :embedding, :early, :now)
         ON CONFLICT (digest, model_id) DO UPDATE SET genre = :genre, confidence = :confidence,
             duration_seconds = :duration_seconds, probabilities = :probabilities, segments = :segments,
             warnings = :warnings, embedding = :embedding, early = :early, made_at = :now
         RETURNING id",
    )?;
    statement.query_row(
        named_params! {
            ":digest": digest,
            ":model_id": model_id,
            ":genre": verdict.genre,
            ":confidence": verdict.confidence,
            ":duration_seconds": verdict.duration_seconds,
            ":probabilities": verdict.probabilities_text(),
            ":segments": verdict.segments_text(),
            ":warnings": verdict.warnings_text(),
            ":embedding": verdict.embedding_bytes(),
            ":early": verdict.early,
            ":now": now(),
        },
        |row| row.get(0),
    )
}
