//! A file as it was while it was read.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

use crate::FileState;

/// A file as it was while it was read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) state: FileState,
    /// The BLAKE3 digest of its bytes.
    pub(crate) digest: [u8; 32],
}

impl Reading {
    /// Reads the whole file at `path`; `None` if it changed meanwhile.
    pub(crate) fn of(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        let before = FileState::new(path.to_owned(), &file.metadata()?);
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file)?;
        // By its path: another file may have taken its place.
        let after = FileState::new(path.to_owned(), &path.metadata()?);
        let digest = *hasher.finalize().as_bytes();
        Ok((before == after).then_some(Self { state: after, digest }))
    }
}

/// Opens a file to read it. What is no file is an error: who opens a pipe would wait for its other end, perhaps for ever.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(at_once).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_the_other_end_of_a_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.mp3");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(Reading::of(&pipe).unwrap_err().to_string(), "it is no file");
        assert_eq!(Reading::of(folder.path()).unwrap_err().to_string(), "it is no file");
        assert_eq!(Reading::of(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
