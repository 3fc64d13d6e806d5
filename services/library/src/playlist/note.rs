//! What a playlist is that one might not expect, in words.

use std::fmt;

use super::{PlaylistRequest, choose::Chosen, pool::Pool};

/// Playlists this close to their length need no word about it.
const NEAR_ENOUGH: f64 = 0.02;

/// What is other than one might expect.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// A genre of the mix has too few tracks.
    RanOut {
        /// The genre.
        genre: String,
        /// The tracks that it has.
        has: usize,
        /// Tracks in the playlist.
        tracks: usize,
        /// Tracks that were wanted.
        wanted_tracks: Option<usize>,
        /// Seconds in the playlist, and those that were wanted.
        seconds: Option<(f64, f64)>,
    },
    /// There are no more tracks.
    TooFew {
        /// Tracks in the playlist.
        tracks: usize,
        /// Tracks that were wanted.
        wanted_tracks: Option<usize>,
        /// Seconds in the playlist, and those that were wanted.
        seconds: Option<(f64, f64)>,
    },
    /// So often an artist comes twice in a row, as nobody else is left.
    ArtistsInARow(usize),
    /// No embeddings could be compared.
    NoEmbeddings,
    /// So many tracks could not be compared.
    NotComparable(usize),
}

impl fmt::Display for Note {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RanOut { genre, has, tracks, wanted_tracks, seconds } => {
                write!(to, "{genre} has only {}: the mix ends after ", counted(*has))?;
                extent(to, *tracks, *wanted_tracks, *seconds)
            }
            Self::TooFew { tracks, wanted_tracks, seconds } => {
                to.write_str("there is no more that fits: the playlist ends after ")?;
                extent(to, *tracks, *wanted_tracks, *seconds)
            }
            Self::ArtistsInARow(times) => {
                write!(to, "an artist comes twice in a row {times} times: nobody else is left in between")
            }
            Self::NoEmbeddings => to.write_str(
                "likeness is by the probabilities of genres alone, as the index has no embeddings of one model for that \
                 track and others; `chorale library scan --rescan` asks for them",
            ),
            Self::NotComparable(tracks) => write!(
                to,
                "{} cannot be compared and {} left out: no embedding, or another model's; `chorale library scan` brings \
                 all to one model",
                counted(*tracks),
                if *tracks == 1 { "is" } else { "are" },
            ),
        }
    }
}

fn counted(tracks: usize) -> String {
    if tracks == 1 { "1 track".to_owned() } else { format!("{tracks} tracks") }
}

fn extent(
    to: &mut fmt::Formatter<'_>,
    tracks: usize,
    wanted_tracks: Option<usize>,
    seconds: Option<(f64, f64)>,
) -> fmt::Result {
    match (wanted_tracks, seconds) {
        (_, Some((seconds, wanted))) => write!(to, "{} of {}", clock(seconds), clock(wanted)),
        (Some(wanted), None) => write!(to, "{tracks} of {}", counted(wanted)),
        (None, None) => write!(to, "{}", counted(tracks)),
    }
}

/// Hours, minutes and seconds.
fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    format!("{}:{:02}:{:02}", whole / 3_600, whole / 60 % 60, whole % 60)
}

/// Adds what is to be said of what was chosen.
pub(super) fn add(notes: &mut Vec<Note>, chosen: &Chosen<'_>, pools: &[Pool<'_>], request: &PlaylistRequest) {
    let (tracks, wanted_tracks) = (chosen.tracks.len(), request.tracks);
    let seconds = request.seconds.map(|wanted| (chosen.seconds(), wanted));
    let is_short = match seconds {
        Some((seconds, wanted)) => wanted - seconds > wanted * NEAR_ENOUGH,
        None => wanted_tracks.is_some_and(|wanted| tracks < wanted),
    };
    let of_mix = request.mix.as_ref().zip(chosen.ran_out);
    let ran_out = of_mix.and_then(|(mix, place)| Some((mix.shares().get(place)?.0.clone(), pools.get(place)?.len())));
    match ran_out {
        Some((genre, has)) => notes.push(Note::RanOut { genre, has, tracks, wanted_tracks, seconds }),
        None if is_short => notes.push(Note::TooFew { tracks, wanted_tracks, seconds }),
        None => {}
    }
    let in_a_row = chosen.artists_in_a_row();
    if in_a_row > 0 && !request.repeat_artists {
        notes.push(Note::ArtistsInARow(in_a_row));
    }
}
