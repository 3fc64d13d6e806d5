//! What the operating system tells of folders.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use notify_debouncer_full::{
    DebounceEventResult, Debouncer, RecommendedCache, new_debouncer,
    notify::{EventKind, RecommendedWatcher, RecursiveMode},
};
use tokio::sync::mpsc;

use crate::LibraryError;

/// Changes that wait to be noted. When there are more, they wait in the debouncer.
const WAITING: usize = 1024;

/// Something changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A file or folder at this path came, went, or changed.
    At(PathBuf),
    /// The system lost count of what changed.
    Anywhere,
}

/// What changes from now on.
#[derive(Debug)]
pub(super) struct Changes {
    receiver: mpsc::Receiver<Change>,
    _watcher: Debouncer<RecommendedWatcher, RecommendedCache>,
}

impl Changes {
    /// Tells of changes in `roots` and the folders in them, in bursts of `span`.
    pub(super) fn start(roots: &[PathBuf], span: Duration) -> Result<Self, LibraryError> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let tell = move |result: DebounceEventResult| {
            for change in changes(result) {
                // Nobody listens any more.
                let _ = sender.blocking_send(change);
            }
        };
        let failed = |path: &Path, source| LibraryError::Watch { path: path.to_owned(), source };
        let first = roots.first().map_or(Path::new("/"), PathBuf::as_path);
        let mut watcher = new_debouncer(span, None, tell).map_err(|error| failed(first, error))?;
        for root in roots {
            watcher.watch(root, RecursiveMode::Recursive).map_err(|error| failed(root, error))?;
        }
        Ok(Self { receiver, _watcher: watcher })
    }

    /// The next change.
    pub(super) async fn next(&mut self) -> Result<Change, LibraryError> {
        self.receiver.recv().await.ok_or(LibraryError::WatchEnded)
    }
}

fn changes(result: DebounceEventResult) -> Vec<Change> {
    let Ok(events) = result else { return vec![Change::Anywhere] };
    let mut changes = Vec::new();
    for event in events {
        if event.need_rescan() {
            changes.push(Change::Anywhere);
        }
        // Reading is no change; it is what a scan does.
        if !matches!(event.kind, EventKind::Access(_)) {
            changes.extend(event.event.paths.into_iter().map(Change::At));
        }
    }
    changes
}
