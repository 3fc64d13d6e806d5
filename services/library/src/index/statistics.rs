//! The library in numbers.

use rusqlite::Row;

use crate::{Index, LibraryError};

/// The library in numbers: files that are there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// Tracks with a verdict.
    pub tracks: u64,
    /// Seconds of audio in them.
    pub seconds: f64,
    /// By genre, the most common one first, `unknown` among them.
    pub genres: Vec<GenreStatistics>,
    /// Files that failed, by reason, the most common one first.
    pub failures: Vec<FailureStatistics>,
    /// Files that are not there any more.
    pub gone: u64,
    /// By model, the one that was served last first.
    pub models: Vec<ModelStatistics>,
}

/// A genre in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct GenreStatistics {
    /// The genre, or `unknown`.
    pub genre: String,
    /// Its tracks.
    pub tracks: u64,
    /// Seconds of audio in them.
    pub seconds: f64,
    /// The mean of their confidence, 0 to 1.
    pub mean_confidence: f64,
}

/// A reason for which files failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureStatistics {
    /// The reason, as a name for programs.
    pub code: String,
    /// Files that failed for it.
    pub files: u64,
}

/// A model in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatistics {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Tracks whose verdict is its.
    pub tracks: u64,
}

const GENRES: &str = "\
    SELECT verdicts.genre, count(*), total(verdicts.duration_seconds), avg(verdicts.confidence)
    FROM files JOIN verdicts ON verdicts.id = files.verdict_id WHERE files.gone_at IS NULL
    GROUP BY verdicts.genre ORDER BY count(*) DESC, verdicts.genre";
const FAILURES: &str = "\
    SELECT error_code, count(*) FROM files WHERE error_code IS NOT NULL AND gone_at IS NULL
    GROUP BY error_code ORDER BY count(*) DESC, error_code";
const MODELS: &str = "\
    SELECT models.name, models.version, count(files.id) FROM models
    LEFT JOIN verdicts ON verdicts.model_id = models.id
    LEFT JOIN files ON files.verdict_id = verdicts.id AND files.gone_at IS NULL
    GROUP BY models.id ORDER BY models.served_at DESC, models.id DESC";
const GONE: &str = "SELECT count(*) FROM files WHERE gone_at IS NOT NULL";

impl Index {
    /// The library in numbers.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn statistics(&self) -> Result<Statistics, LibraryError> {
        let read = || {
            // One view of a library that somebody may be scanning.
            let transaction = self.connection.unchecked_transaction()?;
            let genres = all(&transaction, GENRES, |row| {
                Ok(GenreStatistics {
                    genre: row.get(0)?,
                    tracks: count(row, 1)?,
                    seconds: row.get(2)?,
                    mean_confidence: row.get(3)?,
                })
            })?;
            let failure = |row: &Row<'_>| Ok(FailureStatistics { code: row.get(0)?, files: count(row, 1)? });
            let model =
                |row: &Row<'_>| Ok(ModelStatistics { name: row.get(0)?, version: row.get(1)?, tracks: count(row, 2)? });
            Ok(Statistics {
                tracks: genres.iter().map(|genre| genre.tracks).sum(),
                seconds: genres.iter().map(|genre| genre.seconds).sum(),
                failures: all(&transaction, FAILURES, failure)?,
                gone: transaction.query_row(GONE, [], |row| count(row, 0))?,
                models: all(&transaction, MODELS, model)?,
                genres,
            })
        };
        read().map_err(|source| self.error(source))
    }
}

fn all<T>(
    connection: &rusqlite::Connection,
    query: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(query)?.query_map([], read)?.collect()
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}
