//! What a playlist is that one might not expect.

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
