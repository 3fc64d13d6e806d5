//! A file is replaced as a whole or not at all.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::attributes;

/// A name beside `path` that nobody has yet.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".chorale-{:016x}.tmp", rand::random::<u64>()))
}

/// Writes `bytes` to the new file `temporary`, with all that the old one has beside its bytes (see [`attributes::copy`]), and
/// puts it in the place of `path` when it is safe on the disk. `modified` is its time; now, if there is none. If this fails,
/// `path` is as it was.
pub(crate) fn replace(
    path: &Path,
    temporary: &Path,
    bytes: &[u8],
    old: &Metadata,
    modified: Option<SystemTime>,
) -> io::Result<()> {
    let replaced = write_like(path, temporary, bytes, old, modified).and_then(|()| {
        let now = fs::symlink_metadata(path)?;
        if !same_version(&now, old) {
            return Err(io::Error::other("it was changed by somebody else meanwhile"));
        }
        fs::rename(temporary, path)
    });
    if replaced.is_err() {
        let _ = fs::remove_file(temporary);
        return replaced;
    }
    // The file itself is safe; that the folder names the new one is safe only now. Not every folder can be asked for that, and
    // the file is replaced all the same.
    if let Some(Err(error)) = path.parent().map(|folder| File::open(folder)?.sync_all()) {
        tracing::debug!(path = %path.display(), %error, "a folder cannot be made safe on the disk");
    }
    Ok(())
}

fn write_like(
    path: &Path,
    temporary: &Path,
    bytes: &[u8],
    old: &Metadata,
    modified: Option<SystemTime>,
) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(bytes)?;
    attributes::copy(path, old, &file)?;
    if let Some(modified) = modified {
        file.set_modified(modified)?;
    }
    file.sync_all()
}

fn same_version(one: &Metadata, other: &Metadata) -> bool {
    let version = |metadata: &Metadata| (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    version(one) == version(other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_new_file_has_the_permissions_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp3");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let old = fs::metadata(&path).unwrap();
        let modified = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        replace(&path, &temporary_beside(&path), b"new", &old, Some(modified)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let new = fs::metadata(&path).unwrap();
        assert_eq!(new.permissions().mode() & 0o777, 0o640);
        assert_eq!(new.modified().unwrap(), modified);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_somebody_else_changed_stays_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp3");
        fs::write(&path, "old").unwrap();
        let old = fs::metadata(&path).unwrap();
        fs::write(&path, "changed").unwrap();
        let error = replace(&path, &temporary_beside(&path), b"new", &old, None).unwrap_err();
        assert!(error.to_string().contains("somebody else"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"changed");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
