//! `chorale library`: a folder of music, sorted by genre.

mod export;
mod find;
mod listening;
mod outcome;
mod report;
mod scan;
mod stats;
mod watch;

use std::{io, path::PathBuf};

use chorale_library::{LibraryError, default_index, roots};

pub(crate) use self::stats::tracks;
use crate::{
    cli::library::{IndexFlag, LibraryArguments, LibraryCommand},
    exit::{Exit, UsageError},
};

pub(crate) fn run(arguments: &LibraryArguments) -> anyhow::Result<Exit> {
    match &arguments.command {
        LibraryCommand::Scan(arguments) => scan::run(arguments),
        LibraryCommand::Stats(arguments) => stats::run(arguments),
        LibraryCommand::Find(arguments) => find::run(arguments),
        LibraryCommand::Export(arguments) => export::run(arguments),
        LibraryCommand::Watch(arguments) => watch::run(arguments),
    }
}

/// Where the index is.
pub(super) fn index_path(flag: &IndexFlag) -> Result<PathBuf, LibraryError> {
    flag.index.clone().map_or_else(default_index, Ok)
}

/// The files and folders that are named, if all of them are there.
pub(super) fn places(named: &[PathBuf]) -> Result<Vec<PathBuf>, UsageError> {
    // The index may have them by links that `roots` does away with.
    let (_, missing) = roots(named);
    match missing.first() {
        Some(missing) => Err(UsageError(format!("{}: {}", missing.path.display(), missing.why))),
        None => Ok(named.to_vec()),
    }
}

/// A genre that nobody knows is wrong usage.
pub(super) fn usage(error: LibraryError) -> anyhow::Error {
    match error {
        LibraryError::UnknownGenre { .. } => UsageError(error.to_string()).into(),
        error => error.into(),
    }
}

/// Who reads the output may have seen enough, as `head` does: no more is written, and nothing is wrong.
pub(super) fn unless_closed(written: Result<(), LibraryError>) -> Result<(), LibraryError> {
    match written {
        Err(LibraryError::Write { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// `error` in the words of standard output.
pub(super) fn unwritten(source: io::Error) -> LibraryError {
    LibraryError::Write { path: "standard output".into(), source }
}
