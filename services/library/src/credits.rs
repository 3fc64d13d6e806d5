//! Who plays what, as the file's own tags say.

use std::{panic::catch_unwind, path::Path};

use lofty::{
    config::{ParseOptions, ParsingMode},
    file::{TaggedFile, TaggedFileExt},
    probe::Probe,
    tag::{Accessor, Tag},
};

/// Longer ones are cut: a name, not a book.
const MAX_CHARACTERS: usize = 500;

/// Who plays what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credits {
    /// Who plays.
    pub artist: Option<String>,
    /// On which album.
    pub album: Option<String>,
    /// What.
    pub title: Option<String>,
}

impl Credits {
    /// What the tags of `path` say. Many files have none, or damaged ones: then nothing is known.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        // Hostile tags that a parser slips on are as none.
        catch_unwind(|| Self::read_tags(path)).unwrap_or_default()
    }

    fn read_tags(path: &Path) -> Self {
        let Some(file) = tagged_file(path) else { return Self::default() };
        // The format's own kind of tag first: an MP3 may have an old and a new one.
        let tags: Vec<&Tag> = file.primary_tag().into_iter().chain(file.tags()).collect();
        let first =
            |field: fn(&Tag) -> Option<String>| tags.iter().find_map(|tag| field(tag).and_then(|text| tidy(&text)));
        Self {
            artist: first(|tag| tag.artist().map(Into::into)),
            album: first(|tag| tag.album().map(Into::into)),
            title: first(|tag| tag.title().map(Into::into)),
        }
    }
}

fn tagged_file(path: &Path) -> Option<TaggedFile> {
    let options = ParseOptions::new().read_properties(false).read_cover_art(false).parsing_mode(ParsingMode::Relaxed);
    Probe::open(path).ok()?.options(options).guess_file_type().ok()?.read().ok()
}

/// One line without control characters, which could move the cursor of who lists it; `None` if nothing is left.
fn tidy(text: &str) -> Option<String> {
    let visible: String =
        text.trim().chars().filter(|character| !character.is_control()).take(MAX_CHARACTERS).collect();
    (!visible.trim().is_empty()).then_some(visible)
}

#[cfg(test)]
mod tests {
    use lofty::{
        config::WriteOptions,
        tag::{TagExt, TagType},
    };

    use super::*;

    #[test]
    fn tags_are_read_and_their_absence_or_damage_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let song = folder.path().join("song.mp3");
        std::fs::copy(fixtures.join("genres/jazz.mp3"), &song).unwrap();
        assert_eq!(Credits::read(&song).artist, None);

        let mut tag = Tag::new(TagType::Id3v2);
        tag.set_artist("Die \u{1b}[31mToten\nHosen ".to_owned());
        tag.set_title("Ärger".to_owned());
        tag.set_album(" \u{7}".to_owned());
        tag.save_to_path(&song, WriteOptions::default()).unwrap();
        let expected =
            Credits { artist: Some("Die [31mTotenHosen".to_owned()), album: None, title: Some("Ärger".to_owned()) };
        assert_eq!(Credits::read(&song), expected);

        let mut bytes = std::fs::read(&song).unwrap();
        bytes.iter_mut().skip(10).take(30).for_each(|byte| *byte = 0xff);
        std::fs::write(&song, bytes).unwrap();
        let _ = Credits::read(&song);
        for entry in std::fs::read_dir(fixtures.join("broken")).unwrap() {
            let _ = Credits::read(&entry.unwrap().path());
        }
        assert_eq!(Credits::read(Path::new("/no/such/file")), Credits::default());
    }
}
