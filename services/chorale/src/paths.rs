//! From what a user names, files and folders and `-`, to the tracks to classify.

use std::path::{Path, PathBuf};

use chorale_library::audio_files;

/// One thing to classify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Track {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
    /// Something that was named but cannot be read.
    Missing(PathBuf, String),
}

impl Track {
    /// As the user would name it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::File(path) | Self::Missing(path, _) => path.display().to_string(),
        }
    }
}

/// The tracks under `paths`, folders in the order of their file names: the audio in them, and what cannot be read. A file that
/// is named outright is tried whatever it is called.
pub(crate) fn expand(paths: &[PathBuf]) -> Vec<Track> {
    let mut tracks = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            tracks.push(Track::Stdin);
        } else if path.is_dir() {
            expand_folder(path, &mut tracks);
        } else {
            tracks.push(Track::File(path.clone()));
        }
    }
    tracks
}

fn expand_folder(folder: &Path, tracks: &mut Vec<Track>) {
    let before = tracks.len();
    tracks.extend(audio_files(folder).map(|found| match found {
        Ok(path) => Track::File(path),
        Err(unreadable) => Track::Missing(unreadable.path, unreadable.why),
    }));
    if tracks.len() == before {
        let message = "no audio files in this folder (known by their extension; name a file to have it tried anyway)";
        tracks.push(Track::Missing(folder.to_owned(), message.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_gives_its_audio_and_a_named_file_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("album")).unwrap();
        for name in ["album/2.MP3", "album/1.flac", "notes"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let notes = folder.path().join("notes");
        let tracks = expand(&["-".into(), folder.path().to_owned(), notes.clone()]);
        let file = |name| Track::File(folder.path().join(name));
        assert_eq!(tracks, [Track::Stdin, file("album/1.flac"), file("album/2.MP3"), Track::File(notes)]);
    }

    #[test]
    fn a_folder_without_audio_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let tracks = expand(&[folder.path().to_owned()]);
        assert!(matches!(tracks.as_slice(), [Track::Missing(_, message)] if message.contains("no audio files")));
    }
}
