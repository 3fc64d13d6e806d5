//! Which files of a folder are audio.

use std::path::Path;

/// The file extensions that count as audio inside a folder, also those that cannot be decoded: better reported than
/// passed over.
const AUDIO_EXTENSIONS: [&str; 28] = [
    "aac", "aif", "aifc", "aiff", "alac", "ape", "au", "caf", "flac", "m4a", "m4b", "m4r", "mka", "mkv", "mov", "mp1",
    "mp2", "mp3", "mp4", "oga", "ogg", "opus", "snd", "wav", "wave", "webm", "wma", "wv",
];

/// Whether a file is called as audio is, in whatever case. What a user names outright need not be.
#[must_use]
pub fn has_audio_extension(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| AUDIO_EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_is_known_by_its_name_whatever_the_case() {
        for (name, expected) in [
            ("a.mp3", true),
            ("b/A.FLAC", true),
            ("cover.jpg", false),
            ("mp3", false),
            ("a.mp3.part", false),
            ("", false),
        ] {
            assert_eq!(has_audio_extension(Path::new(name)), expected, "{name}");
        }
    }
}
