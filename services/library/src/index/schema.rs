//! The tables, and how an index of an older version comes to have them.

use rusqlite::{Connection, TransactionBehavior};

use crate::{Index, LibraryError};

/// `Chor`: what tells an index from any other database.
pub(super) const APPLICATION_ID: i64 = 0x4368_6f72;

/// Each brings the schema from its position in this list to the next version. Never change one that was released: add one.
const MIGRATIONS: [&str; 1] = [FIRST];

const FIRST: &str = "
-- Every model that gave a verdict. The one that was served last is the current one.
CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,               -- a JSON array
    served_at INTEGER NOT NULL          -- milliseconds since 1970, as all times
) STRICT;

-- What a model says of audio, whatever file it is in.
CREATE TABLE verdicts (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,               -- BLAKE3 of the file's bytes
    model_id INTEGER NOT NULL REFERENCES models (id),
    genre TEXT NOT NULL,
    confidence REAL NOT NULL,
    duration_seconds REAL NOT NULL,
    probabilities TEXT NOT NULL,        -- a JSON array of [genre, probability], most probable first
    segments TEXT NOT NULL,             -- a JSON array of objects
    warnings TEXT NOT NULL,             -- a JSON array of texts
    embedding BLOB NOT NULL,            -- little-endian 32-bit floats
    early INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    UNIQUE (digest, model_id)
) STRICT;

-- Every file that was looked at. It has a verdict or an error.
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,          -- absolute; not always UTF-8
    size INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,       -- nanoseconds since 1970
    digest BLOB,
    verdict_id INTEGER REFERENCES verdicts (id),
    error_code TEXT,
    error_message TEXT,
    artist TEXT,
    album TEXT,
    title TEXT,
    looked_at INTEGER NOT NULL,
    gone_at INTEGER                     -- since when there is no such file
) STRICT;

-- The one scan that makes everything anew and has not come to its end.
CREATE TABLE rescan (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    model_id INTEGER NOT NULL REFERENCES models (id),
    roots BLOB NOT NULL,                -- the paths, each with a zero byte after it
    since INTEGER NOT NULL
) STRICT;

CREATE INDEX files_by_digest ON files (digest);
CREATE INDEX files_by_verdict ON files (verdict_id);
";

pub(super) fn bring_up_to_date(index: &mut Index) -> Result<(), LibraryError> {
    let known = MIGRATIONS.len() as i64;
    let found = version(index)?;
    if found == known {
        return Ok(());
    }
    // Only a database in this mode can be read while it is written. Somebody who migrates at this moment has set it already.
    let mode = index.connection.pragma_update(None, "journal_mode", "wal");
    mode.map_err(|source| index.error(source))?;
    let migrated = migrate(&mut index.connection);
    migrated.map_err(|source| index.error(source))?;
    version(index).map(|_| ())
}

/// The schema version of a database that is ours, or empty.
fn version(index: &Index) -> Result<i64, LibraryError> {
    let pragma = |name: &str| {
        let value = index.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        value.map_err(|source| index.error(source))
    };
    let (application, found) = (pragma("application_id")?, pragma("user_version")?);
    if application != APPLICATION_ID && !index.is_empty()? {
        return Err(LibraryError::Foreign(index.path.clone()));
    }
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(LibraryError::Newer { path: index.path.clone(), found, known });
    }
    if found < 0 {
        return Err(index.damaged(format!("schema version {found}")));
    }
    Ok(found)
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been first.
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(found).unwrap_or_default();
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(migration)?;
    }
    if done < MIGRATIONS.len() {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    }
    transaction.commit()
}
