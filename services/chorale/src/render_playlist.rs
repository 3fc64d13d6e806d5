//! How a playlist is spoken of.

use std::path::Path;

use chorale_library::{Note, Playlist};
use chorale_picture::words::clock;

use crate::commands::library::tracks as counted;

/// A playlist that was made, in a line: how much, where, and by which seed.
pub(crate) fn line(playlist: &Playlist, out: &Path, seed: Option<u64>) -> String {
    let length = format!("{}, {}", tracks(playlist.entries.len()), clock(playlist.seconds()));
    let place = if out.as_os_str() == "-" { String::new() } else { format!(", in {}", out.display()) };
    let again = seed.map(|seed| format!(" (--seed {seed} makes it again)")).unwrap_or_default();
    format!("{length}{place}{again}")
}

/// What is other than one might expect.
pub(crate) fn note(note: &Note) -> String {
    match note {
        Note::RanOut { genre, has, tracks: found, wanted_tracks, seconds } => {
            let extent = extent(*found, *wanted_tracks, *seconds);
            format!("{genre} has only {}: the mix ends after {extent}", tracks(*has))
        }
        Note::TooFew { tracks, wanted_tracks, seconds } => {
            let extent = extent(*tracks, *wanted_tracks, *seconds);
            format!("there is no more that fits: the playlist ends after {extent}")
        }
        Note::ArtistsInARow(1) => "an artist comes twice in a row: nobody else is left in between".to_owned(),
        Note::ArtistsInARow(times) => {
            format!("an artist comes twice in a row {times} times: nobody else is left in between")
        }
        Note::NoEmbeddings => {
            "likeness is by the probabilities of genres alone, as the index has no embeddings of one \
                               model for that track and others; `chorale library scan --rescan` asks for them"
                .to_owned()
        }
        Note::NotComparable(left_out) => format!(
            "{} cannot be compared and {} left out: no embedding, or another model's; `chorale library scan` brings all \
             to one model",
            tracks(*left_out),
            if *left_out == 1 { "is" } else { "are" },
        ),
    }
}

fn extent(found: usize, wanted_tracks: Option<usize>, seconds: Option<(f64, f64)>) -> String {
    match (wanted_tracks, seconds) {
        (_, Some((seconds, wanted))) => format!("{} of {}", clock(seconds), clock(wanted)),
        (Some(wanted), None) => format!("{found} of {}", tracks(wanted)),
        (None, None) => tracks(found),
    }
}

fn tracks(number: usize) -> String {
    counted(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_say_lengths_as_all_else_does() {
        let ran_out = |wanted_tracks, seconds| {
            note(&Note::RanOut { genre: "blues".to_owned(), has: 10, tracks: 21, wanted_tracks, seconds })
        };
        assert_eq!(ran_out(Some(30), None), "blues has only 10 tracks: the mix ends after 21 of 30 tracks");
        let expected = "blues has only 10 tracks: the mix ends after 2:00 of 1:02:03";
        assert_eq!(ran_out(None, Some((120.0, 3_723.0))), expected);
        let too_few = Note::TooFew { tracks: 1, wanted_tracks: None, seconds: None };
        assert_eq!(note(&too_few), "there is no more that fits: the playlist ends after 1 track");
    }

    #[test]
    fn a_playlist_is_a_line() {
        let playlist = Playlist { entries: Vec::new(), notes: Vec::new() };
        assert_eq!(line(&playlist, Path::new("-"), None), "0 tracks, 0:00");
        let expected = "0 tracks, 0:00, in a.m3u8 (--seed 7 makes it again)";
        assert_eq!(line(&playlist, Path::new("a.m3u8"), Some(7)), expected);
    }
}
