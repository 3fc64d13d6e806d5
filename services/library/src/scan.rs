//! A scan: the audio files under some folders, what is known of them already, and the rest through a server.

mod listen;
mod plan;

use std::{
    future::ready,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chorale_client::{Client, ClientError};
use futures::StreamExt;

pub use self::plan::Plan;
use crate::{FileState, Finding, Index, LibraryError, ServedModel, Stop, Unreadable};

/// Findings that are written down in one transaction at most.
const MAX_BATCH: usize = 64;

/// How to scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScanOptions {
    /// Files in flight at a time.
    pub jobs: usize,
    /// As in [`chorale_client::ClassifyOptions::early_error_rate`].
    pub early_error_rate: f64,
    /// Classify anew what has a verdict already; what the same scan classified before it was ended is not done twice.
    pub rescan: bool,
    /// Try again what failed and would fail again.
    pub retry_failed: bool,
}

/// What a scan has to tell, file by file.
#[derive(Debug)]
pub enum ScanEvent<'a> {
    /// It has a verdict, and nothing changed.
    Unchanged(&'a Path),
    /// It failed before, and nothing changed.
    FailedBefore(&'a Path),
    /// It cannot be looked into.
    Unreadable(&'a Unreadable),
    /// It was looked at, and that is written down.
    Finding(&'a Finding),
    /// It was there before.
    Gone(&'a Path),
    /// No server answers; what could not be done is tried again later.
    Waiting(&'a ClientError),
}

/// What scans: an index, and a server.
#[derive(Debug)]
pub struct Scanner {
    index: Arc<Mutex<Index>>,
    client: Client,
    options: ScanOptions,
    model: ServedModel,
    model_id: i64,
    previous_model: Option<ServedModel>,
}

impl Scanner {
    /// Asks the server which model answers. Its verdicts are those that count from now on.
    ///
    /// # Errors
    /// If the server does not say, or the index cannot be written.
    pub async fn start(mut index: Index, client: Client, options: ScanOptions) -> Result<Self, LibraryError> {
        let model = client.model().await?.model.unwrap_or_default();
        let model = ServedModel { name: model.name, version: model.version, labels: model.labels };
        let previous_model = index.current_model()?.filter(|previous| previous.version != model.version);
        let model_id = index.adopt(&model)?;
        Ok(Self { index: Arc::new(Mutex::new(index)), client, options, model, model_id, previous_model })
    }

    /// The model that answers.
    #[must_use]
    pub fn model(&self) -> &ServedModel {
        &self.model
    }

    /// The model that answered in the last scan, if it was another one.
    #[must_use]
    pub fn previous_model(&self) -> Option<&ServedModel> {
        self.previous_model.as_ref()
    }

    /// Looks at `files`, as many at a time as the options say, and writes down what becomes of them: small transactions, so
    /// that hardly anything is lost when the process is killed. `on_event` hears of what is written. Ends early, when what is
    /// in flight is done, if somebody wishes to stop, or if the server gives no answers, which is returned.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub async fn run(
        &self,
        files: Vec<FileState>,
        stop: &Stop,
        on_event: &mut dyn FnMut(ScanEvent<'_>),
    ) -> Result<Option<ClientError>, LibraryError> {
        let away = std::cell::Cell::new(false);
        let looks = futures::stream::iter(files)
            .take_while(|_| ready(!stop.is_wanted() && !away.get()))
            .map(|file| Box::pin(self.look(file)))
            .buffer_unordered(self.options.jobs.max(1))
            .ready_chunks(MAX_BATCH);
        let mut looks = pin!(looks);
        let mut trouble = None;
        while let Some(batch) = looks.next().await {
            let mut findings = Vec::with_capacity(batch.len());
            for look in batch {
                match look {
                    Ok(finding) => findings.push(finding),
                    Err(error) => {
                        away.set(true);
                        trouble.get_or_insert(error);
                    }
                }
            }
            for finding in &self.record(findings).await? {
                on_event(ScanEvent::Finding(finding));
            }
        }
        Ok(trouble)
    }

    /// Marks the files of the index that were in `roots` and are not there any more.
    ///
    /// # Errors
    /// If the index cannot be read or written.
    pub fn mark_gone(&self, roots: &[PathBuf], on_event: &mut dyn FnMut(ScanEvent<'_>)) -> Result<(), LibraryError> {
        for root in roots {
            self.index().mark_gone(root, |path| on_event(ScanEvent::Gone(path)))?;
        }
        Ok(())
    }

    /// Says that nothing is left to do: a scan that makes everything anew begins with the first file again.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn complete(&self) -> Result<(), LibraryError> {
        if self.options.rescan { self.index().end_rescan() } else { Ok(()) }
    }

    /// Forgets the files that were in `roots` and are not there any more. Returns their number.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn prune(&self, roots: &[PathBuf]) -> Result<u64, LibraryError> {
        let mut index = self.index();
        roots.iter().map(|root| index.prune(root)).sum()
    }

    async fn record(&self, findings: Vec<Finding>) -> Result<Vec<Finding>, LibraryError> {
        let (index, model_id) = (Arc::clone(&self.index), self.model_id);
        let write = move || {
            lock(&index).record(&findings, model_id)?;
            Ok(findings)
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(written) => written,
            Err(_ended) => Ok(Vec::new()),
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }
}

/// A panic elsewhere leaves an index that can be used: its transaction was rolled back.
fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}
