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
    /// A database of somebody else.
    #[error("{} is a database, but no journal of what was tagged; name another file with --backup FILE", .0.display())]
    ForeignJournal(PathBuf),
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
    /// A kind of file that has no tags we could write.
    #[error("its format has no tags that can be written; formats with tags are mp3, flac, ogg, m4a, wav and aiff")]
    NotTaggable,
    /// The tags of a file cannot be read or written.
    #[error("its tags cannot be changed: {0}")]
    Tags(String),
    /// Nothing can be said about the audio of a file.
    #[error("its audio cannot be compared before and after ({0}), so it is left alone")]
    AudioUnreadable(String),
    /// New tags would not leave the audio of a file as it is.
    #[error("with new tags its audio would not be the same, so it is left alone")]
    AudioWouldChange,
    /// A file is too large for its tags to be changed.
    #[error("it is larger than 1 GiB, too large for its tags to be changed")]
    TooLarge,
    /// A file that its owner wants to stay as it is.
    #[error("it is read-only, so it is left alone; `chmod u+w` lets it be tagged")]
    ReadOnly,
    /// The index knows another version of a file.
    #[error("it was changed since it was scanned; scan it again first")]
    ChangedSinceScan,
    /// A file cannot be restored, as it is not what tagging made of it.
    #[error("it was changed since it was tagged, so it is left alone")]
    ChangedSinceTagged,
    /// A file cannot be restored before a later change is undone.
    #[error("run {0} has changed it since; undo that first")]
    TaggedAgain(i64),
    /// What was kept to undo is no use.
    #[error("it cannot be restored: {0}")]
    Undo(String),
    /// There is nothing to undo.
    #[error("{}", no_run(.0))]
    NoRun(Vec<i64>),
    /// Of every run that is left, an undo has tried what it can.
    #[error("no run is left that an undo has not tried; `chorale tag --undo RUN` tries again what was left alone of {}", list(.0))]
    AllTried(Vec<i64>),
    /// The journal of changed tags cannot be used.
    #[error("the journal of changed tags {} cannot be used: {source}", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Somebody else changes tags.
    #[error("another `chorale tag` uses the journal {}; wait until it has ended", .0.display())]
    JournalBusy(PathBuf),
    /// A mix of genres that makes no sense.
    #[error("{0}; a mix looks like `70 % jazz, 30 % blues`")]
    Mix(String),
    /// A genre of a mix without tracks.
    #[error("there is no track of {0} to mix in; loosen the filters, or scan more music")]
    NoTrackOf(String),
    /// A track that the library does not know.
    #[error("{} has no verdict in the library; `chorale library scan` gives it one", .0.display())]
    NotInIndex(PathBuf),
    /// No track fits.
    #[error("no track fits; loosen the filters, or scan more music")]
    EmptyPlaylist,
    /// A playlist cannot be written down.
    #[error("the playlist cannot be written down: {0}")]
    PlaylistTemplate(String),
    /// The server gives no answers, whatever the file.
    #[error(transparent)]
    Server(#[from] ClientError),
}

fn no_run(runs: &[i64]) -> String {
    match runs {
        [] => "nothing can be undone: no run of `chorale tag --write` has changed what is still changed".to_owned(),
        runs => format!("there is no such run to undo; those that can be undone are {}", list(runs)),
    }
}

fn list(runs: &[i64]) -> String {
    runs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
