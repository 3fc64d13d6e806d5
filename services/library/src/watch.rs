//! Files that are new or changed, as soon as they are whole.

mod changes;
mod settling;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chorale_feature::has_audio_extension;
use tokio::time::{MissedTickBehavior, interval};

use self::{
    changes::{Change, Changes},
    settling::Settling,
};
use crate::{LibraryError, Plan, ScanEvent, Scanner, Stop, audio_files, walk::is_hidden_below};

/// How long to leave a server in peace that gave no answers.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Folders that are watched.
#[derive(Debug)]
pub struct Watch {
    roots: Vec<PathBuf>,
    changes: Changes,
    settling: Settling,
    tick: Duration,
    retry_at: Option<Instant>,
}

impl Watch {
    /// Watches `roots` and all folders in them from now on. A file is looked at when it has not changed for `quiet`.
    ///
    /// # Errors
    /// If the system does not tell of changes there.
    pub fn start(roots: &[PathBuf], quiet: Duration) -> Result<Self, LibraryError> {
        let tick = (quiet / 2).clamp(Duration::from_millis(50), Duration::from_millis(500));
        let changes = Changes::start(roots, tick)?;
        Ok(Self { roots: roots.to_vec(), changes, settling: Settling::new(quiet), tick, retry_at: None })
    }

    /// Looks at what changes until somebody wishes to stop; what is in flight then is finished. A server that is away is waited
    /// for.
    ///
    /// # Errors
    /// If the index cannot be written, or the system tells of no more changes.
    pub async fn follow(
        &mut self,
        scanner: &Scanner,
        stop: &mut Stop,
        on_event: &mut dyn FnMut(ScanEvent<'_>),
    ) -> Result<(), LibraryError> {
        let mut ticks = interval(self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.wanted() => return Ok(()),
                change = self.changes.next() => match change? {
                    Change::At(path) => self.note(&path, scanner, on_event)?,
                    Change::Anywhere => self.note_everything(scanner, on_event)?,
                },
                _ = ticks.tick() => self.look(scanner, stop, on_event).await?,
            }
        }
    }

    /// Something happened at `path`: to a file, or to a folder with all that is in it.
    fn note(
        &mut self,
        path: &Path,
        scanner: &Scanner,
        on_event: &mut dyn FnMut(ScanEvent<'_>),
    ) -> Result<(), LibraryError> {
        let is_hidden = self.roots.iter().any(|root| is_hidden_below(root, path));
        if is_hidden {
            return Ok(());
        }
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => audio_files(path).flatten().for_each(|file| self.settling.note(file)),
            Ok(metadata) if metadata.is_file() && (has_audio_extension(path) || self.is_root(path)) => {
                self.settling.note(path.to_owned());
            }
            Ok(_) => {}
            // Gone, or out of reach: the index knows whether it was there.
            Err(_) => scanner.mark_gone(&[path.to_owned()], on_event)?,
        }
        Ok(())
    }

    fn note_everything(
        &mut self,
        scanner: &Scanner,
        on_event: &mut dyn FnMut(ScanEvent<'_>),
    ) -> Result<(), LibraryError> {
        scanner.mark_gone(&self.roots, on_event)?;
        self.roots.iter().flat_map(|root| audio_files(root)).flatten().for_each(|file| self.settling.note(file));
        Ok(())
    }

    async fn look(
        &mut self,
        scanner: &Scanner,
        stop: &Stop,
        on_event: &mut dyn FnMut(ScanEvent<'_>),
    ) -> Result<(), LibraryError> {
        if let Some(at) = self.retry_at {
            if Instant::now() < at {
                return Ok(());
            }
            self.retry_at = None;
            self.note_everything(scanner, on_event)?;
        }
        let mut plan = Plan::default();
        for file in self.settling.settled(Instant::now()) {
            // What is known already is no news.
            scanner.sort_out(file, &mut plan, &mut |_event| ())?;
        }
        if plan.todo.is_empty() {
            return Ok(());
        }
        if let Some(error) = scanner.run(plan.todo, stop, on_event).await? {
            on_event(ScanEvent::Waiting(&error));
            self.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
        Ok(())
    }

    fn is_root(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| root == path)
    }
}
