//! A playlist becomes a file as a whole or not at all.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path};

use crate::LibraryError;

/// Writes the playlist `text` to `file`.
///
/// # Errors
/// If it cannot be written; a file that was there before is there still.
pub fn save_playlist(file: &Path, text: &str) -> Result<(), LibraryError> {
    let failed = |source| LibraryError::Write { path: file.to_owned(), source };
    let folder = file.parent().unwrap_or(Path::new("."));
    // As others may see any new file: less what the user's mask takes away.
    let for_all = fs::Permissions::from_mode(0o666);
    let mut builder = tempfile::Builder::new();
    let mut temporary = builder.prefix(".chorale-").permissions(for_all).tempfile_in(folder).map_err(failed)?;
    temporary.write_all(text.as_bytes()).map_err(failed)?;
    if let Ok(old) = fs::metadata(file) {
        temporary.as_file().set_permissions(old.permissions()).map_err(failed)?;
    }
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(file).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_playlist_takes_the_place_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.m3u8");
        save_playlist(&file, "one").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        save_playlist(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let nowhere = folder.path().join("none/a.m3u8");
        assert!(save_playlist(&nowhere, "x").unwrap_err().to_string().contains("cannot be written"));
    }
}
