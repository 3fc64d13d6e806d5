//! One file: its digest, its tags, and its verdict, from the index or the server.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use chorale_client::{ClassifyOptions, ClientError, Priority, Reason};
use tokio::task::spawn_blocking;

use super::{Scanner, lock};
use crate::{Credits, FileState, Finding, Found, TrackVerdict, failures, reading::Reading};

/// How often a file is read that changes meanwhile.
const READINGS: usize = 3;

impl Scanner {
    /// Finds out what `file` is.
    ///
    /// # Errors
    /// If the server gives no answers, whatever the file.
    pub(super) async fn look(&self, file: FileState) -> Result<Finding, ClientError> {
        let mut finding = Finding { file, digest: None, credits: Credits::default(), found: changing() };
        for _ in 0..READINGS {
            let reading = match read(finding.file.path.clone()).await {
                Ok(Some(reading)) => reading,
                Ok(None) => continue,
                Err(error) => {
                    finding.found = unread(error);
                    break;
                }
            };
            finding.file = reading.state;
            finding.digest = Some(reading.digest);
            if let Some(found) = self.hear(&finding.file.path, reading.digest).await? {
                finding.credits = credits(&finding.file.path).await;
                finding.found = found;
                break;
            }
        }
        Ok(finding)
    }

    /// `None` if the file is not any more what its digest says.
    async fn hear(&self, path: &Path, digest: [u8; 32]) -> Result<Option<Found>, ClientError> {
        if let Some(verdict) = self.remembered(digest).await {
            return Ok(Some(Found::Recognised(verdict)));
        }
        let options = ClassifyOptions {
            blake3_digest: digest.to_vec().into(),
            early_error_rate: self.options.early_error_rate,
            priority: Priority::Bulk.into(),
            model_version: self.model.version.clone(),
            bypass_cache: self.options.rescan,
            want_embedding: true,
            ..ClassifyOptions::default()
        };
        match self.client.classify_file(path, options, |_event| ()).await {
            Ok(verdict) => Ok(Some(Found::Classified(verdict.into()))),
            Err(ClientError::Server(failure)) if failure.reason == Reason::DigestMismatch => Ok(None),
            Err(error) if failures::is_of_file(&error) => Ok(Some(failed(&error))),
            Err(error) => Err(error),
        }
    }

    /// What the model said of the same bytes before. An index that cannot be read will be heard of when it is written.
    async fn remembered(&self, digest: [u8; 32]) -> Option<TrackVerdict> {
        if self.options.rescan {
            return None;
        }
        let (index, model_id) = (Arc::clone(&self.index), self.model_id);
        let look = spawn_blocking(move || lock(&index).verdict(&digest, model_id).ok().flatten());
        look.await.ok().flatten()
    }
}

/// Reads the whole file; `None` if it changed meanwhile.
async fn read(path: PathBuf) -> io::Result<Option<Reading>> {
    spawn_blocking(move || Reading::of(&path)).await.map_err(io::Error::other)?
}

/// Tags that a parser stumbles over are as none.
async fn credits(path: &Path) -> Credits {
    let path = path.to_owned();
    spawn_blocking(move || Credits::read(&path)).await.unwrap_or_default()
}

fn unread(error: io::Error) -> Found {
    if error.kind() == io::ErrorKind::NotFound { Found::Gone } else { failed(&error.into()) }
}

fn failed(error: &ClientError) -> Found {
    match error {
        ClientError::Read(error) if error.kind() == io::ErrorKind::NotFound => Found::Gone,
        error => Found::Failed { code: failures::code_of(error).to_owned(), message: error.to_string() },
    }
}

fn changing() -> Found {
    let message = "the file changes while it is read; the next scan tries again".to_owned();
    Found::Failed { code: failures::CHANGING.to_owned(), message }
}
