//! Paths as the bytes that they are: file names need not be UTF-8.

use std::path::{Path, PathBuf};

/// The bytes of `path`.
#[cfg(unix)]
pub(crate) fn to_bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}

/// The path of which these are the bytes.
#[cfg(unix)]
pub(crate) fn from_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

/// What lies under the folder with these bytes is at or after the first key, and before the second.
pub(crate) fn range_under(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let mut first = to_bytes(folder).to_vec();
    if first.last() != Some(&b'/') {
        first.push(b'/');
    }
    let mut end = first.clone();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (first, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_a_folder_lies_between_two_keys() {
        let is_under = |path: &str, folder: &str| {
            let (first, end) = range_under(Path::new(folder));
            (first.as_slice()..end.as_slice()).contains(&path.as_bytes())
        };
        for inside in ["/music/a.mp3", "/music/a/b.mp3", "/music/\u{10ffff}"] {
            assert!(is_under(inside, "/music") && is_under(inside, "/music/") && is_under(inside, "/"), "{inside}");
        }
        for outside in ["/music", "/music.mp3", "/music2/a.mp3", "/mus", "/other"] {
            assert!(!is_under(outside, "/music"), "{outside}");
        }
    }
}
