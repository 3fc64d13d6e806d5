//! Playlists from the library: by genre, by a mix of genres, by length, or like a track.

mod choose;
mod format;
mod location;
mod mix;
mod note;
mod pool;
mod save;
mod similar;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use self::{
    choose::{Wanted, choose, seconds_of},
    pool::Pool,
};
pub use self::{format::PlaylistFormat, location::PathStyle, mix::Mix, note::Note, save::save_playlist};
use crate::{KnownTrack, LibraryError, tagging::same_genre};

/// What a playlist is to be.
#[derive(Debug, Clone, Default)]
pub struct PlaylistRequest {
    /// The shares of genres; any track if there is none.
    pub mix: Option<Mix>,
    /// This many tracks at most.
    pub tracks: Option<usize>,
    /// As close to this length in seconds as can be.
    pub seconds: Option<f64>,
    /// Whether an artist may come twice in a row.
    pub repeat_artists: bool,
    /// Which tracks come first.
    pub ranking: Ranking,
}

/// Which tracks come first.
#[derive(Debug, Clone, Default)]
pub enum Ranking {
    /// Those with the surest verdict.
    #[default]
    Surest,
    /// Chance decides, the same for a seed.
    Shuffled(u64),
    /// Those that are most like this one.
    Like(Box<KnownTrack>),
}

/// A track of a playlist.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The track.
    pub track: KnownTrack,
    /// How alike it is to the track that was named, 1 for the same.
    pub similarity: Option<f64>,
}

/// Tracks in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Playlist {
    /// The tracks.
    pub entries: Vec<Entry>,
    /// What is other than one might expect.
    pub notes: Vec<Note>,
}

impl Playlist {
    /// Seconds of audio.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.entries.iter().map(|entry| seconds_of(&entry.track)).sum()
    }
}

/// Makes a playlist of `tracks`. The same audio comes once, however many files have it.
///
/// # Errors
/// If the mix names a genre of which there is no track, or no track is left.
pub fn compose(tracks: &[KnownTrack], request: &PlaylistRequest) -> Result<Playlist, LibraryError> {
    let mut notes = Vec::new();
    let ranked = rank(tracks, &request.ranking, &mut notes);
    let pools = pools(&ranked, request.mix.as_ref())?;
    let wanted = Wanted {
        mix: request.mix.as_ref(),
        tracks: request.tracks,
        seconds: request.seconds,
        repeat_artists: request.repeat_artists,
    };
    let chosen = choose(&pools, &wanted);
    if chosen.tracks.is_empty() {
        return Err(LibraryError::EmptyPlaylist);
    }
    note::add(&mut notes, &chosen, &pools, request);
    let similarities: HashMap<&Path, f64> =
        ranked.iter().filter_map(|(track, similarity)| Some((track.path.as_path(), (*similarity)?))).collect();
    let entry = |(_, track): &(usize, &KnownTrack)| Entry {
        track: (*track).clone(),
        similarity: similarities.get(track.path.as_path()).copied(),
    };
    Ok(Playlist { entries: chosen.tracks.iter().map(entry).collect(), notes })
}

/// The tracks in the order in which they are wanted, with their likeness if that decides.
fn rank<'a>(tracks: &'a [KnownTrack], ranking: &Ranking, notes: &mut Vec<Note>) -> Vec<(&'a KnownTrack, Option<f64>)> {
    let mut ordered: Vec<&KnownTrack> = tracks.iter().collect();
    ordered.sort_by(|one, other| one.path.cmp(&other.path));
    let like = match ranking {
        Ranking::Like(like) => Some(like),
        Ranking::Surest | Ranking::Shuffled(_) => None,
    };
    // Of equal files, the one that was named is the one to have.
    ordered.sort_by_key(|track| like.is_none_or(|like| like.path != track.path));
    let mut digests = HashSet::new();
    ordered.retain(|track| digests.insert(track.digest));
    match ranking {
        Ranking::Surest => ordered.sort_by(|one, other| other.confidence.total_cmp(&one.confidence)),
        Ranking::Shuffled(seed) => ordered.shuffle(&mut ChaCha8Rng::seed_from_u64(*seed)),
        Ranking::Like(like) => {
            let ranked = similar::rank(&ordered, like);
            if ranked.by_probabilities {
                notes.push(Note::NoEmbeddings);
            }
            if ranked.left_out > 0 {
                notes.push(Note::NotComparable(ranked.left_out));
            }
            return ranked.tracks.into_iter().map(|(track, likeness)| (track, Some(likeness))).collect();
        }
    }
    ordered.into_iter().map(|track| (track, None)).collect()
}

/// A pool for each genre of the mix, or one for all.
fn pools<'a>(ranked: &[(&'a KnownTrack, Option<f64>)], mix: Option<&Mix>) -> Result<Vec<Pool<'a>>, LibraryError> {
    let tracks = || ranked.iter().map(|(track, _)| *track);
    let Some(mix) = mix else { return Ok(vec![Pool::new(tracks().collect())]) };
    let pool = |(genre, _): &(String, f64)| {
        let pool = Pool::new(tracks().filter(|track| same_genre(&track.genre, genre)).collect());
        if pool.len() == 0 { Err(LibraryError::NoTrackOf(genre.clone())) } else { Ok(pool) }
    };
    mix.shares().iter().map(pool).collect()
}

#[cfg(test)]
mod tests {
    use super::{testing::track, *};

    fn library() -> Vec<KnownTrack> {
        let tracks = (0..40_u32).map(|index| KnownTrack {
            confidence: f64::from(index % 10) / 10.0,
            digest: *blake3::hash(&index.to_le_bytes()).as_bytes(),
            ..track(
                &format!("/m/{index:02}"),
                if index < 30 { "jazz" } else { "blues" },
                &format!("artist {}", index % 7),
            )
        });
        tracks.collect()
    }

    fn paths(playlist: &Playlist) -> Vec<String> {
        playlist.entries.iter().map(|entry| entry.track.path.display().to_string()).collect()
    }

    #[test]
    fn a_seed_decides_and_another_one_decides_otherwise() {
        let of = |seed| {
            let request = PlaylistRequest { ranking: Ranking::Shuffled(seed), tracks: Some(20), ..Default::default() };
            paths(&compose(&library(), &request).unwrap())
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let mut turned = library();
        turned.reverse();
        let request = PlaylistRequest { ranking: Ranking::Shuffled(1), tracks: Some(20), ..Default::default() };
        assert_eq!(paths(&compose(&turned, &request).unwrap()), of(1), "the order of the index does not matter");
    }

    #[test]
    fn a_mix_that_runs_out_ends_and_says_so() {
        let request =
            PlaylistRequest { mix: Some("1 jazz, 1 blues".parse().unwrap()), tracks: Some(30), ..Default::default() };
        let playlist = compose(&library(), &request).unwrap();
        assert_eq!(playlist.entries.len(), 21, "ten of blues, and jazz around them");
        let ran_out =
            Note::RanOut { genre: "blues".to_owned(), has: 10, tracks: 21, wanted_tracks: Some(30), seconds: None };
        assert_eq!(playlist.notes, [ran_out]);
        let none = PlaylistRequest { mix: Some("1 jazz, 1 polka".parse().unwrap()), ..Default::default() };
        assert!(compose(&library(), &none).unwrap_err().to_string().contains("polka"));
    }

    #[test]
    fn the_same_audio_comes_once() {
        let mut tracks = library();
        tracks.push(KnownTrack { path: "/copy".into(), ..tracks[3].clone() });
        assert_eq!(compose(&tracks, &PlaylistRequest::default()).unwrap().entries.len(), 40);
    }

    #[test]
    fn the_surest_come_first() {
        let request = PlaylistRequest { tracks: Some(4), ..Default::default() };
        let playlist = compose(&library(), &request).unwrap();
        assert!(playlist.entries.iter().all(|entry| entry.track.confidence > 0.89));
        assert_eq!(playlist.notes, []);
    }
}
