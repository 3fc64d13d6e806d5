//! From what a user names to the audio files in it.

use std::{
    io,
    path::{Path, PathBuf},
};

use chorale_feature::has_audio_extension;
use walkdir::{DirEntry, WalkDir};

/// A folder or file that cannot be looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// Why not.
    pub why: String,
}

/// The audio files in a folder and the folders in it, in the order of their names, or the file itself if it is one. Links are
/// followed; what is hidden is left out, and so are links that lead back or nowhere.
pub fn audio_files(root: &Path) -> impl Iterator<Item = Result<PathBuf, Unreadable>> {
    let walk = WalkDir::new(root).follow_links(true).sort_by_file_name().into_iter();
    let root = root.to_owned();
    walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.file_name())).filter_map(
        move |entry| match entry {
            Ok(entry) => is_wanted(&entry).then(|| Ok(entry.into_path())),
            Err(error) => unreadable(&root, &error).map(Err),
        },
    )
}

/// The folders and files that are named, as absolute paths without links, without those that lie in others; and those that are
/// not there.
#[must_use]
pub fn roots(named: &[PathBuf]) -> (Vec<PathBuf>, Vec<Unreadable>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for path in named {
        match path.canonicalize() {
            Ok(path) => found.push(path),
            Err(error) => missing.push(Unreadable { path: path.clone(), why: reason(&error) }),
        }
    }
    // A folder comes before what lies in it.
    found.sort();
    found.dedup_by(|later, earlier| later.starts_with(earlier));
    (found, missing)
}

/// True if a part of `path` below `root` is hidden.
pub(crate) fn is_hidden_below(root: &Path, path: &Path) -> bool {
    path.strip_prefix(root).is_ok_and(|below| below.iter().any(is_hidden))
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with('.')
}

fn is_wanted(entry: &DirEntry) -> bool {
    entry.file_type().is_file() && (entry.depth() == 0 || has_audio_extension(entry.path()))
}

/// `None` if nothing is lost: what is behind a link that leads back is found without it.
fn unreadable(root: &Path, error: &walkdir::Error) -> Option<Unreadable> {
    let path = error.path().unwrap_or(root);
    let why = error.io_error()?;
    let leads_nowhere = why.kind() == io::ErrorKind::NotFound && error.depth() > 0 && !has_audio_extension(path);
    (!leads_nowhere).then(|| Unreadable { path: path.to_owned(), why: reason(why) })
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied: this user may not look into it".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let name = |path: PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        audio_files(root).map(|found| found.map_or_else(|problem| format!("! {}", name(problem.path)), name)).collect()
    }

    #[test]
    fn a_folder_gives_its_audio_in_order() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("album")).unwrap();
        fs::create_dir(folder.path().join(".trash")).unwrap();
        for name in ["album/2.MP3", "album/1.flac", "cover.jpg", ".trash/3.mp3", "notes"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(names(folder.path()), ["album/1.flac", "album/2.MP3"]);
        let notes = folder.path().join("notes");
        assert_eq!(audio_files(&notes).collect::<Vec<_>>(), [Ok(notes)]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_unless_they_lead_back_or_nowhere() {
        use std::os::unix::fs::symlink;
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = |name: &str| folder.path().join(name);
        fs::write(elsewhere.path().join("a.mp3"), "").unwrap();
        fs::create_dir(path("own")).unwrap();
        fs::write(path("own/b.mp3"), "").unwrap();
        symlink(elsewhere.path(), path("linked")).unwrap();
        symlink(folder.path(), path("own/back")).unwrap();
        symlink("/no/such/cover", path("cover.jpg")).unwrap();
        symlink("/no/such/song", path("song.mp3")).unwrap();
        assert_eq!(names(folder.path()), ["linked/a.mp3", "own/b.mp3", "! song.mp3"]);
    }

    #[test]
    fn roots_are_absolute_and_none_lies_in_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().canonicalize().unwrap().join(name);
        for name in ["a", "a/b", "a-b"] {
            fs::create_dir(path(name)).unwrap();
        }
        let named = ["a/b", "a-b", "a/../a", "a", "gone"].map(path);
        let (found, missing) = roots(&named);
        assert_eq!(found, ["a", "a-b"].map(path));
        assert_eq!(missing, [Unreadable { path: path("gone"), why: "no such file or folder".to_owned() }]);
    }
}
