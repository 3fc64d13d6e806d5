//! The places that a user names, as the index may have them.

use std::path::{Path, PathBuf};

use crate::path_bytes;

/// Half-open ranges of keys.
pub(crate) type KeyRanges = Vec<(Vec<u8>, Vec<u8>)>;

/// Every name that the index may have for `path`. A scan names files by the folder that it was told, without links, and keeps
/// the links that it followed from there on. What is not there any more can still be asked for.
pub(crate) fn names_of(path: &Path) -> Vec<PathBuf> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = |folder: &Path| {
        let rest = path.strip_prefix(folder).ok()?;
        let folder = folder.canonicalize().ok()?;
        Some(if rest.as_os_str().is_empty() { folder } else { folder.join(rest) })
    };
    let mut names: Vec<PathBuf> = path.ancestors().filter_map(name).collect();
    names.sort();
    names.dedup();
    names
}

/// The keys of `paths` and of all that lies under them, in order, and none twice.
pub(crate) fn keys_of(paths: &[PathBuf]) -> KeyRanges {
    let of_one = |name: &PathBuf| {
        let itself = path_bytes::to_bytes(name);
        [(itself.to_vec(), [itself, &[0]].concat()), path_bytes::range_under(name)]
    };
    let mut ranges: KeyRanges = paths.iter().flat_map(|path| names_of(path)).flat_map(|name| of_one(&name)).collect();
    ranges.sort();
    let mut apart: KeyRanges = Vec::with_capacity(ranges.len());
    for (first, end) in ranges {
        match apart.last_mut() {
            Some((_, last_end)) if first <= *last_end => *last_end = end.max(std::mem::take(last_end)),
            _ => apart.push((first, end)),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_place_has_a_name_for_each_link_on_the_way_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("disk/music")).unwrap();
        fs::create_dir(root.join("album")).unwrap();
        symlink(root.join("disk/music"), root.join("music")).unwrap();
        symlink(root.join("album"), root.join("music/linked")).unwrap();
        let expected = ["album", "disk/music/linked", "music/linked"].map(|name| root.join(name));
        assert_eq!(names_of(&root.join("music/linked")), expected);
        let expected = ["album/gone", "disk/music/linked/gone", "music/linked/gone"].map(|name| root.join(name));
        assert_eq!(names_of(&root.join("music/linked/gone")), expected);
        assert_eq!(names_of(Path::new("/")), [Path::new("/")]);
    }

    #[test]
    fn keys_are_apart() {
        let keys = |paths: &[&str]| keys_of(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        let one = keys(&["/m"]);
        assert_eq!(one, [(b"/m".to_vec(), b"/m\0".to_vec()), (b"/m/".to_vec(), b"/m0".to_vec())]);
        assert_eq!(keys(&["/m/a", "/m", "/m", "/m/b/c"]), one);
        assert_eq!(keys(&["/m", "/n"]).len(), 4);
        assert_eq!(keys(&["/", "/n"]), [(b"/".to_vec(), b"0".to_vec())]);
    }
}
