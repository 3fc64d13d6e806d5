//! What there is to do: the files that are there, less those that are known.

use std::path::{Path, PathBuf};

use super::{ScanEvent, Scanner};
use crate::{FileState, Knowledge, LibraryError, Stop, Unreadable, audio_files};

/// What there is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The files to look at, in the order of their names.
    pub todo: Vec<FileState>,
    /// Files that have a verdict, and did not change.
    pub unchanged: u64,
    /// Files that failed, would fail again, and did not change.
    pub failed_before: u64,
    /// Files and folders that cannot be looked into.
    pub unreadable: u64,
    /// Whether somebody wished to stop before everything was found.
    pub interrupted: bool,
    /// What was found out before this time does not count, in milliseconds since 1970.
    since: i64,
}

impl Plan {
    /// Audio files that were found.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.todo.len() as u64 + self.unchanged + self.failed_before
    }
}

impl Scanner {
    /// Walks through `roots` and sorts out what is known. `on_progress` hears how many files there are so far. Blocks, for
    /// about a second for every 50,000 files on a local disk. Ends early if somebody wishes to stop.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn plan(
        &self,
        roots: &[PathBuf],
        stop: &Stop,
        mut on_progress: impl FnMut(u64),
        on_event: &mut dyn FnMut(ScanEvent<'_>),
    ) -> Result<Plan, LibraryError> {
        let mut plan = Plan { since: self.since(roots)?, ..Plan::default() };
        for found in roots.iter().flat_map(|root| audio_files(root)) {
            if stop.is_wanted() {
                plan.interrupted = true;
                break;
            }
            match found.and_then(|path| state_of(&path)) {
                Ok(file) => self.sort_out(file, &mut plan, on_event)?,
                Err(unreadable) => {
                    plan.unreadable += 1;
                    on_event(ScanEvent::Unreadable(&unreadable));
                }
            }
            on_progress(plan.files());
        }
        Ok(plan)
    }

    /// Adds `file` to where it belongs in `plan`.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub(crate) fn sort_out(
        &self,
        file: FileState,
        plan: &mut Plan,
        on_event: &mut dyn FnMut(ScanEvent<'_>),
    ) -> Result<(), LibraryError> {
        let knowledge = self.index().knowledge(&file, self.model_id, plan.since)?;
        match knowledge {
            Knowledge::Verdict => {
                plan.unchanged += 1;
                on_event(ScanEvent::Unchanged(&file.path));
            }
            Knowledge::Failure if !self.options.retry_failed => {
                plan.failed_before += 1;
                on_event(ScanEvent::FailedBefore(&file.path));
            }
            Knowledge::Failure | Knowledge::PassingFailure | Knowledge::Nothing => plan.todo.push(file),
        }
        Ok(())
    }

    fn since(&self, roots: &[PathBuf]) -> Result<i64, LibraryError> {
        if self.options.rescan { self.index().begin_rescan(roots, self.model_id) } else { Ok(0) }
    }
}

fn state_of(path: &Path) -> Result<FileState, Unreadable> {
    match path.metadata() {
        Ok(metadata) => Ok(FileState::new(path.to_owned(), &metadata)),
        Err(error) => Err(Unreadable { path: path.to_owned(), why: error.to_string() }),
    }
}
