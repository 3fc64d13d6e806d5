//! Writing files that are whole or not there.

use std::{fs, path::Path};

use chorale_model::write_whole;

use crate::{Result, TrainerError};

/// Writes a file under another name and renames it: whoever reads it finds the old file or the new one.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, bytes).map_err(|source| TrainerError::Write { path: path.to_owned(), source })
}

/// Creates a folder and those above it, where they are missing.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| TrainerError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        for contents in ["first", "second"] {
            write(&path, contents.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("folder");
        create_folder(&folder.join("inner")).unwrap();
        let missing = place.path().join("missing/file");
        for path in [&folder, &missing] {
            let error = write(path, b"bytes").unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing is left over");
        write(&place.path().join("file"), b"").unwrap();
        let error = create_folder(&place.path().join("file/inner")).unwrap_err().to_string();
        assert!(error.contains("file/inner"), "{error}");
    }
}
