//! What can go wrong in a library.

use std::{io, path::PathBuf};

use chorale_client::ClientError;

/// Why something cannot be done with a library.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// There is no index yet.
    #[error("there is no index at {}; `chorale library scan DIR` makes one", .0.display())]
    NoIndex(PathBuf),
    /// Nothing says where the user's data is.
    #[error("neither XDG_DATA_HOME nor HOME says where the index is to be; name a file with --index FILE")]
    NoHome,
    /// The index is there, and cannot be used by this user or at this time.
    #[error("the index {} cannot be used: {source}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The index holds what none of ours can.
    #[error("the index {} is damaged ({what}); move it away and scan again, which makes a new one", path.display())]
    Damaged {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A database of somebody else.
    #[error("{} is a database, but no index of a music library; name another file with --index FILE", .0.display())]
    Foreign(PathBuf),
    /// An index that a newer version wrote.
    #[error(
        "the index {} has schema version {found}, and this chorale knows those up to {known}: a newer chorale wrote it; \
         use that one, or name another file with --index FILE", path.display()
    )]
    Newer {
        /// The index.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// Somebody else scans into this index.
    #[error("another `chorale library scan` or `watch` works on the index {}; wait until it has ended", .0.display())]
    Busy(PathBuf),
    /// A genre that no model of this library knows.
    #[error("no model in this library knows the genre {genre:?}; known are {}", known.join(", "))]
    UnknownGenre {
        /// What was asked for.
        genre: String,
        /// Every genre that verdicts of this library may have.
        known: Vec<String>,
    },
    /// A file or folder cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system does not tell what changes.
    #[error("{} cannot be watched: {source}", path.display())]
    Watch {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: notify_debouncer_full::notify::Error,
    },
    /// The system told of changes, and does no more.
    #[error("the system does not tell any more what changes; start the watch again")]
    WatchEnded,
    /// The server gives no answers, whatever the file.
    #[error(transparent)]
    Server(#[from] ClientError),
}
