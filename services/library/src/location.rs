//! Where the index is unless the user says otherwise.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::LibraryError;

/// `chorale/library.sqlite` in the user's data folder: `$XDG_DATA_HOME`, or `~/.local/share`.
///
/// # Errors
/// If the environment does not say where that is.
pub fn default_index() -> Result<PathBuf, LibraryError> {
    index_in(env::var_os("XDG_DATA_HOME"), env::home_dir())
}

fn index_in(data_home: Option<OsString>, home: Option<PathBuf>) -> Result<PathBuf, LibraryError> {
    // A relative path is to be ignored, says the XDG Base Directory Specification.
    let data_home = data_home.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.filter(|path| !path.as_os_str().is_empty());
    let data = data_home.or_else(|| home.map(|home| home.join(".local/share"))).ok_or(LibraryError::NoHome)?;
    Ok(data.join(Path::new("chorale").join("library.sqlite")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_in_the_users_data_folder() {
        let place = |data: Option<&str>, home: Option<&str>| {
            index_in(data.map(OsString::from), home.map(PathBuf::from)).map_err(|error| error.to_string())
        };
        assert_eq!(place(Some("/data"), Some("/home/me")).unwrap(), Path::new("/data/chorale/library.sqlite"));
        for ignored in [None, Some(""), Some("relative")] {
            let expected = Path::new("/home/me/.local/share/chorale/library.sqlite");
            assert_eq!(place(ignored, Some("/home/me")).unwrap(), expected);
        }
        assert!(place(None, None).unwrap_err().contains("--index FILE"));
        assert!(place(None, Some("")).is_err());
    }
}
