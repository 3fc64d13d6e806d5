//! The committed audio files, and the data that only some machines have.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{skip, workspace};

/// One track in every format that is read, in the order of the file names.
#[must_use]
pub fn formats() -> Vec<PathBuf> {
    folder("formats")
}

/// A track in each of the ten genres, in the order of the file names.
#[must_use]
pub fn genres() -> Vec<PathBuf> {
    folder("genres")
}

/// A file that is damaged, mislabelled or no audio at all.
#[must_use]
pub fn broken(name: &str) -> PathBuf {
    existing(root().join("broken").join(name))
}

/// A track as a caller would send it.
#[must_use]
pub fn clip() -> Bytes {
    read(&existing(root().join("formats/clip.mp3")))
}

/// The bytes of a file.
#[must_use]
pub fn read(path: &Path) -> Bytes {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

/// The data set that lies beside the checkout on some machines, but is not ours to commit. `None`, with a message,
/// if it is not there.
#[must_use]
pub fn shared_data() -> Option<PathBuf> {
    let data = workspace().join("../shared/data");
    if data.is_dir() {
        return Some(data);
    }
    skip("no data set in ../shared/data");
    None
}

fn root() -> PathBuf {
    workspace().join("tests/fixtures")
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.is_file(), "no fixture {}", path.display());
    path
}

fn folder(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(name)).expect("the fixtures are there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("the fixtures can be read").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no fixtures in {name}");
    paths
}
