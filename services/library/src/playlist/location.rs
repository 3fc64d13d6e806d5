//! How a playlist names files.

use std::path::{Component, Path, PathBuf};

use url::Url;

/// How files are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathStyle {
    /// From the folder of the playlist: both can be moved together.
    Relative,
    /// From the root.
    Absolute,
}

/// Where `path` is, seen from `folder`; both are absolute.
pub(crate) fn relative_to(folder: &Path, path: &Path) -> PathBuf {
    let mut from: Vec<Component<'_>> = folder.components().collect();
    let mut to: Vec<Component<'_>> = path.components().collect();
    let common = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
    from.drain(..common);
    to.drain(..common);
    from.iter().map(|_| Component::ParentDir).chain(to).collect()
}

/// `path` as a line of an M3U file: text, or a URI where there is no such text.
pub(crate) fn line_of(path: &Path, folder: &Path, style: PathStyle) -> String {
    let shown = match style {
        PathStyle::Relative => relative_to(folder, path),
        PathStyle::Absolute => path.to_owned(),
    };
    match shown.to_str() {
        // A line that begins with # is a comment, blanks at its ends are cut off, and some see a URI in `a:b`.
        Some(text) if !text.contains(char::is_control) && text.trim() == text => {
            let looks_other = text.starts_with('#') || text.split('/').next().is_some_and(|first| first.contains(':'));
            if looks_other { format!("./{text}") } else { text.to_owned() }
        }
        _ => uri_of(path, folder, PathStyle::Absolute),
    }
}

/// `path` as a URI, relative or with `file://`.
pub(crate) fn uri_of(path: &Path, folder: &Path, style: PathStyle) -> String {
    let Ok(absolute) = Url::from_file_path(path) else { return path.display().to_string() };
    if style == PathStyle::Relative
        && let Ok(base) = Url::from_directory_path(folder)
        && let Some(relative) = base.make_relative(&absolute)
    {
        return relative;
    }
    absolute.to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn paths_lead_from_the_playlist_to_the_track() {
        let relative = |path: &str| line_of(Path::new(path), Path::new("/music/lists"), PathStyle::Relative);
        assert_eq!(relative("/music/lists/a b.mp3"), "a b.mp3");
        assert_eq!(relative("/music/jazz/é.mp3"), "../jazz/é.mp3");
        assert_eq!(relative("/music/lists/#1.mp3"), "./#1.mp3");
        assert_eq!(relative("/music/lists/12:30.mp3"), "./12:30.mp3");
        assert_eq!(line_of(Path::new("/a:b/#c"), Path::new("/"), PathStyle::Absolute), "/a:b/#c");
    }

    #[test]
    fn what_is_no_line_of_text_becomes_a_uri() {
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/music/a\xff\n.mp3"));
        assert_eq!(line_of(odd, Path::new("/music"), PathStyle::Relative), "file:///music/a%FF%0A.mp3");
    }

    #[test]
    fn uris_are_escaped() {
        let uri = |style| uri_of(Path::new("/music/50 % é?#.mp3"), Path::new("/music/lists"), style);
        assert_eq!(uri(PathStyle::Absolute), "file:///music/50%20%25%20%C3%A9%3F%23.mp3");
        assert_eq!(uri(PathStyle::Relative), "../50%20%25%20%C3%A9%3F%23.mp3");
    }
}
