//! Files that may still be growing.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::FileState;

/// Files that may still be growing.
#[derive(Debug)]
pub(super) struct Settling {
    quiet: Duration,
    /// How each file looked, and since when; nothing for one that was not looked at yet.
    files: BTreeMap<PathBuf, Option<(FileState, Instant)>>,
}

impl Settling {
    /// Files are whole when they have not changed for `quiet`.
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, files: BTreeMap::new() }
    }

    /// Something happened to `file`.
    pub(super) fn note(&mut self, file: PathBuf) {
        self.files.entry(file).or_default();
    }

    /// Looks at all files, and takes those that are whole. Those that are not there any more are forgotten.
    pub(super) fn settled(&mut self, now: Instant) -> Vec<FileState> {
        let mut whole = Vec::new();
        let quiet = self.quiet;
        self.files.retain(|path, seen| {
            let Ok(metadata) = path.metadata() else { return false };
            let state = FileState::new(path.clone(), &metadata);
            match seen {
                Some((before, since)) if *before == state => {
                    let is_whole = now.saturating_duration_since(*since) >= quiet;
                    if is_whole {
                        whole.push(state);
                    }
                    !is_whole
                }
                seen => {
                    *seen = Some((state, now));
                    true
                }
            }
        });
        whole
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_whole_when_it_has_not_changed_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let (growing, gone) = (folder.path().join("growing.wav"), folder.path().join("gone.wav"));
        fs::write(&growing, "a").unwrap();
        fs::write(&gone, "a").unwrap();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut settling = Settling::new(Duration::from_secs(2));
        settling.note(growing.clone());
        settling.note(gone.clone());
        assert_eq!(settling.settled(after(0)), []);
        fs::write(&growing, "ab").unwrap();
        fs::remove_file(&gone).unwrap();
        assert_eq!(settling.settled(after(1)), []);
        settling.note(growing.clone());
        assert_eq!(settling.settled(after(2)), [], "it has been as it is for a second only");
        let whole = settling.settled(after(3));
        assert_eq!(whole.iter().map(|file| (&file.path, file.size)).collect::<Vec<_>>(), [(&growing, 2)]);
        assert_eq!(settling.settled(after(9)), [], "it is news once");
    }
}
