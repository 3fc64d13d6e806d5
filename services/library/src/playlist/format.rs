//! Playlists as files: M3U8 and XSPF.

use std::{fmt::Write, path::Path};

use askama::Template;

use super::{
    Playlist,
    choose::seconds_of,
    location::{PathStyle, line_of, uri_of},
};
use crate::{KnownTrack, LibraryError};

/// A kind of playlist file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaylistFormat {
    /// Extended M3U in UTF-8, which every player reads.
    M3u8,
    /// XML Shareable Playlist Format, version 1.
    Xspf,
}

impl PlaylistFormat {
    /// The kind that the name of a file promises.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "m3u8" | "m3u" => Some(Self::M3u8),
            "xspf" => Some(Self::Xspf),
            _ => None,
        }
    }
}

#[derive(Template)]
#[template(path = "playlist.xspf", escape = "html")]
struct Xspf<'a> {
    title: &'a str,
    tracks: Vec<XspfTrack>,
}

struct XspfTrack {
    location: String,
    title: String,
    creator: Option<String>,
    album: Option<String>,
    milliseconds: u64,
}

impl Playlist {
    /// The playlist as a file that lies in `folder` and is called `title`.
    ///
    /// # Errors
    /// None that is known of: if the template cannot be filled.
    pub fn render(
        &self,
        format: PlaylistFormat,
        title: &str,
        folder: &Path,
        style: PathStyle,
    ) -> Result<String, LibraryError> {
        let title = plain(title);
        let tracks = self.entries.iter().map(|entry| &entry.track);
        match format {
            PlaylistFormat::M3u8 => Ok(m3u8(tracks, &title, folder, style)),
            PlaylistFormat::Xspf => {
                let tracks = tracks.map(|track| xspf_track(track, folder, style)).collect();
                let xspf = Xspf { title: &title, tracks }.render();
                // Templates have no line break at their end.
                xspf.map(|text| text + "\n").map_err(|error| LibraryError::PlaylistTemplate(error.to_string()))
            }
        }
    }
}

fn m3u8<'a>(tracks: impl Iterator<Item = &'a KnownTrack>, title: &str, folder: &Path, style: PathStyle) -> String {
    let mut text = format!("#EXTM3U\n#PLAYLIST:{title}\n");
    for track in tracks {
        let seconds = seconds_of(track).round();
        let artist = track.artist.as_deref().map(|artist| format!("{} - ", plain(artist))).unwrap_or_default();
        let location = line_of(&track.path, folder, style);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "#EXTINF:{seconds},{artist}{}\n{location}", title_of(track));
    }
    text
}

fn xspf_track(track: &KnownTrack, folder: &Path, style: PathStyle) -> XspfTrack {
    XspfTrack {
        location: uri_of(&track.path, folder, style),
        title: title_of(track),
        creator: track.artist.as_deref().map(plain),
        album: track.album.as_deref().map(plain),
        milliseconds: (seconds_of(track) * 1_000.0).round() as u64,
    }
}

/// The title, or the name of the file without its ending.
fn title_of(track: &KnownTrack) -> String {
    let stem = || track.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    plain(&track.title.clone().or_else(stem).unwrap_or_default())
}

/// Text on one line, without what XML cannot hold.
fn plain(text: &str) -> String {
    let words =
        text.replace(|character: char| character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}'), " ");
    words.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playlist::{Entry, testing::track};

    fn playlist() -> Playlist {
        let odd = KnownTrack {
            title: Some("Tom & \"Jerry\" <live>\n\u{1}".to_owned()),
            album: Some("A'B".to_owned()),
            duration_seconds: 61.5,
            ..track("/music/jazz/1.mp3", "jazz", "Ann]]>")
        };
        let bare = KnownTrack { artist: None, title: None, ..track("/music/2.mp3", "jazz", "") };
        let entries = [odd, bare].map(|track| Entry { track, similarity: None }).to_vec();
        Playlist { entries, notes: Vec::new() }
    }

    #[test]
    fn m3u8_says_how_long_who_and_what() {
        let text = playlist().render(PlaylistFormat::M3u8, "mine", Path::new("/music"), PathStyle::Relative).unwrap();
        let expected = "\
#EXTM3U
#PLAYLIST:mine
#EXTINF:62,Ann]]> - Tom & \"Jerry\" <live>
jazz/1.mp3
#EXTINF:200,2
2.mp3
";
        assert_eq!(text, expected);
    }

    #[test]
    fn xspf_is_xml_whatever_the_tags_say() {
        let text = playlist().render(PlaylistFormat::Xspf, "<mine>", Path::new("/music"), PathStyle::Absolute).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        let texts = |name: &str| -> Vec<String> {
            let nodes = document.descendants().filter(|node| node.has_tag_name(("http://xspf.org/ns/0/", name)));
            nodes.filter_map(|node| node.text().map(str::to_owned)).collect()
        };
        assert_eq!(texts("title"), ["<mine>", "Tom & \"Jerry\" <live>", "2"]);
        assert_eq!(texts("creator"), ["Ann]]>"]);
        assert_eq!(texts("album"), ["A'B"]);
        assert_eq!(texts("duration"), ["61500", "200000"]);
        assert_eq!(texts("location"), ["file:///music/jazz/1.mp3", "file:///music/2.mp3"]);
    }

    #[test]
    fn the_name_of_a_file_says_its_kind() {
        assert_eq!(PlaylistFormat::of(Path::new("a.M3U8")), Some(PlaylistFormat::M3u8));
        assert_eq!(PlaylistFormat::of(Path::new("a.b.xspf")), Some(PlaylistFormat::Xspf));
        assert_eq!(PlaylistFormat::of(Path::new("a.pls")), None);
    }
}
