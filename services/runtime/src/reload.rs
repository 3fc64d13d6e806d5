//! What is made from files, and made anew when they change: certificates, keys, tokens.

use std::{
    fmt,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often files are read. Reading them finds every kind of change, also the renamed links under a Kubernetes secret, which
/// watches of a file miss.
const INTERVAL: Duration = Duration::from_secs(2);
/// More than any certificate chain, key or list of callers needs, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Files from which something cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {message}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected and what came. Never what the file holds.
        message: String,
    },
}

impl ReloadError {
    /// Says what is wrong with `path`.
    pub fn content(path: &Path, message: impl fmt::Display) -> Self {
        Self::Content { path: path.to_owned(), message: message.to_string() }
    }
}

/// A value made from files. Cheap to clone; the files are read until the last clone is dropped.
#[derive(Debug)]
pub struct Reloaded<T> {
    current: watch::Receiver<Arc<T>>,
    _stop: Arc<DropGuard>,
}

impl<T> Clone for Reloaded<T> {
    fn clone(&self) -> Self {
        Self { current: self.current.clone(), _stop: Arc::clone(&self._stop) }
    }
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Makes a value from the contents of `paths`, in their order, and again whenever one of them changes. While what they
    /// hold cannot be used, the last value stands, and the log says why.
    ///
    /// # Errors
    /// If nothing can be made of them now.
    pub fn follow(
        what: &'static str,
        paths: Vec<PathBuf>,
        make: impl Fn(&[Vec<u8>]) -> Result<T, ReloadError> + Send + 'static,
    ) -> Result<Self, ReloadError> {
        Self::follow_every(INTERVAL, what, paths, make)
    }

    fn follow_every(
        interval: Duration,
        what: &'static str,
        paths: Vec<PathBuf>,
        make: impl Fn(&[Vec<u8>]) -> Result<T, ReloadError> + Send + 'static,
    ) -> Result<Self, ReloadError> {
        let mut seen = read_all(&paths)?;
        let (sender, current) = watch::channel(Arc::new(make(&seen)?));
        let stop = CancellationToken::new();
        let watching = async move {
            let mut failed = None;
            loop {
                tokio::time::sleep(interval).await;
                let made = match read_all(&paths) {
                    Ok(contents) if contents == seen => continue,
                    Ok(contents) => {
                        seen = contents;
                        make(&seen)
                    }
                    Err(error) => Err(error),
                };
                match made {
                    Ok(value) => {
                        failed = None;
                        tracing::info!(what, "read again");
                        sender.send_replace(Arc::new(value));
                    }
                    Err(error) => {
                        // Said once, not at every look.
                        let message = error.to_string();
                        if failed.as_ref() != Some(&message) {
                            tracing::error!(what, %error, "not usable; what was read before stays in use");
                        }
                        failed = Some(message);
                    }
                }
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
        Ok(Self { current, _stop: Arc::new(stop.drop_guard()) })
    }

    /// The value of now.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.borrow())
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, ReloadError> {
    let read = |path: &PathBuf| {
        let error = |source| ReloadError::Read { path: path.clone(), source };
        let mut content = Vec::new();
        let file = std::fs::File::open(path).map_err(error)?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(error)?;
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(ReloadError::content(path, format_args!("expected at most {MAX_FILE_BYTES} bytes")));
        }
        Ok(content)
    };
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    fn number(contents: &[Vec<u8>]) -> Result<u32, ReloadError> {
        let text = String::from_utf8_lossy(&contents[0]);
        text.trim().parse().map_err(|error| ReloadError::content(Path::new("number"), error))
    }

    #[tokio::test]
    async fn what_changes_is_made_anew_and_what_cannot_be_used_changes_nothing() {
        let path = std::env::temp_dir().join(format!("chorale-reload-{}", std::process::id()));
        let follow = || Reloaded::follow_every(SOON, "a number", vec![path.clone()], number);
        assert!(follow().unwrap_err().to_string().contains("chorale-reload"));
        std::fs::write(&path, "one").unwrap();
        assert!(follow().is_err());

        std::fs::write(&path, "1").unwrap();
        let mut followed = follow().unwrap();
        assert_eq!(*followed.get(), 1);
        std::fs::write(&path, "2").unwrap();
        followed.current.changed().await.unwrap();
        assert_eq!(*followed.clone().get(), 2);

        std::fs::write(&path, "two").unwrap();
        tokio::time::sleep(10 * SOON).await;
        std::fs::remove_file(&path).unwrap();
        tokio::time::sleep(10 * SOON).await;
        assert_eq!(*followed.get(), 2);
        std::fs::write(&path, "3").unwrap();
        followed.current.changed().await.unwrap();
        assert_eq!(*followed.get(), 3);
        std::fs::remove_file(&path).unwrap();
    }
}
