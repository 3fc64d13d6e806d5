//! A folder of music that the library has scanned.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Finished, run};

/// Files in a folder of their own, with an index beside it.
#[derive(Debug)]
pub struct Music {
    folder: TempDir,
    /// Where the files are.
    pub music: PathBuf,
    /// Where the index is.
    pub index: PathBuf,
}

impl Music {
    /// Copies of `files`, scanned. Files that cannot be classified may be among them.
    pub fn scanned(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let folder = tempfile::tempdir().expect("a folder for music");
        let root = folder.path().canonicalize().expect("the folder is there");
        let (music, index) = (root.join("music"), root.join("library.sqlite"));
        fs::create_dir(&music).expect("a folder can be made");
        for file in files {
            fs::copy(&file, music.join(file.file_name().expect("a file has a name"))).expect("a file can be copied");
        }
        let made = Self { folder, music, index };
        made.scan();
        made
    }

    /// Scans, and returns the number of files by outcome.
    pub fn scan(&self) -> BTreeMap<String, usize> {
        let scan = self.run(&["library", "scan", "--json"], &[&self.music]);
        let mut counts = BTreeMap::new();
        for outcome in lines(&scan).iter().filter_map(|line| line["outcome"].as_str()) {
            *counts.entry(outcome.to_owned()).or_default() += 1;
        }
        counts
    }

    /// The command line of a command that uses the index.
    #[must_use]
    pub fn arguments(&self, words: &[&str], paths: &[&Path]) -> Vec<String> {
        let paths = paths.iter().map(|path| path.to_str().expect("paths of tests are text").to_owned());
        let index = ["--index".to_owned(), self.index.to_str().expect("paths of tests are text").to_owned()];
        words.iter().map(|&word| word.to_owned()).chain(index).chain(paths).collect()
    }

    /// Runs a command that uses the index.
    pub fn run(&self, words: &[&str], paths: &[&Path]) -> Finished {
        run(self.arguments(words, paths))
    }

    /// A path outside of the music that nothing is at.
    #[must_use]
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The bytes of every file by its name, hidden ones too.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(&self.music).expect("the folder can be read");
        let paths = entries.map(|entry| entry.expect("the folder can be read").path());
        paths.map(|path| (name_of(&path), fs::read(&path).expect("a file can be read"))).collect()
    }
}

/// The lines of `--json`.
#[must_use]
pub fn lines(finished: &Finished) -> Vec<Value> {
    let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    finished.stdout.lines().map(line).collect()
}

/// The name of a file.
#[must_use]
pub fn name_of(path: &Path) -> String {
    path.file_name().expect("a file has a name").to_string_lossy().into_owned()
}
