//! Tracks that wait for their turn, best first, with as little of one artist in a row as can be.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::KnownTrack;

/// An artist's name in short: a hash of it.
pub(crate) type Artist = u64;

/// The tracks of one genre, or of all.
#[derive(Debug, Clone)]
pub(crate) struct Pool<'a> {
    waiting: VecDeque<(&'a KnownTrack, Option<Artist>)>,
    /// How many tracks of each artist wait.
    counts: HashMap<Artist, usize>,
    /// The same, to find the artist who has most.
    by_count: BTreeSet<(usize, Artist)>,
}

/// How a pool chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The next one, whoever plays.
    Any,
    /// The next one by another artist than the one before.
    OtherArtist,
    /// The same, but an artist who has more than half of what is left comes first: whoever takes all of the pool has
    /// nobody in a row, if that can be.
    OtherArtistToTheEnd,
}

/// Who plays, to tell one from another. Nobody knows of a track without an artist that it is by the same one.
pub(crate) fn artist_of(track: &KnownTrack) -> Option<Artist> {
    let name = track.artist.as_deref().map(str::trim).filter(|name| !name.is_empty())?;
    let mut hasher = DefaultHasher::new();
    name.to_lowercase().hash(&mut hasher);
    Some(hasher.finish())
}

/// Whether both are known to be by the same artist.
pub(crate) fn same_artist(one: &KnownTrack, other: &KnownTrack) -> bool {
    artist_of(one).is_some_and(|artist| artist_of(other) == Some(artist))
}

impl<'a> Pool<'a> {
    pub(crate) fn new(tracks: Vec<&'a KnownTrack>) -> Self {
        let waiting: VecDeque<_> = tracks.into_iter().map(|track| (track, artist_of(track))).collect();
        let mut counts = HashMap::new();
        for artist in waiting.iter().filter_map(|(_, artist)| *artist) {
            *counts.entry(artist).or_default() += 1;
        }
        let by_count = counts.iter().map(|(artist, count)| (*count, *artist)).collect();
        Self { waiting, counts, by_count }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The tracks that wait, best first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a KnownTrack> + '_ {
        self.waiting.iter().map(|(track, _)| *track)
    }

    /// Takes the next track after `before`. If all that wait are by the same artist as that one, so is this one.
    pub(crate) fn take(&mut self, before: Option<&KnownTrack>, turn: Turn) -> Option<&'a KnownTrack> {
        let before = before.and_then(artist_of);
        let place = match turn {
            Turn::Any => None,
            Turn::OtherArtist => self.first_not_by(before),
            Turn::OtherArtistToTheEnd => self.first_of_most(before).or_else(|| self.first_not_by(before)),
        };
        let (track, artist) = self.waiting.remove(place.unwrap_or_default())?;
        self.count(artist, |count| count.saturating_sub(1));
        Some(track)
    }

    /// Puts a track back, to be the next one.
    pub(crate) fn give_back(&mut self, track: &'a KnownTrack) {
        let artist = artist_of(track);
        self.waiting.push_front((track, artist));
        self.count(artist, |count| count + 1);
    }

    fn count(&mut self, artist: Option<Artist>, change: impl Fn(usize) -> usize) {
        let Some(artist) = artist else { return };
        let count = self.counts.entry(artist).or_default();
        self.by_count.remove(&(*count, artist));
        *count = change(*count);
        self.by_count.insert((*count, artist));
    }

    fn first_not_by(&self, artist: Option<Artist>) -> Option<usize> {
        let artist = artist?;
        if self.counts.get(&artist) == Some(&self.waiting.len()) {
            return None;
        }
        self.waiting.iter().position(|(_, other)| *other != Some(artist))
    }

    /// The first track of the artist who would have two in a row at the end if this were not theirs.
    fn first_of_most(&self, before: Option<Artist>) -> Option<usize> {
        let (count, most) = *self.by_count.last()?;
        if 2 * count <= self.waiting.len() || Some(most) == before {
            return None;
        }
        self.waiting.iter().position(|(_, artist)| *artist == Some(most))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::playlist::testing::track;

    #[test]
    fn the_best_one_by_somebody_else_comes_next() {
        let tracks =
            [track("1", "jazz", "A"), track("2", "jazz", "a "), track("3", "jazz", "B"), track("4", "jazz", "")];
        let mut pool = Pool::new(tracks.iter().collect());
        let mut before = None;
        let mut order = String::new();
        while let Some(next) = pool.take(before, Turn::OtherArtist) {
            order.push_str(&next.path.to_string_lossy());
            before = Some(next);
        }
        assert_eq!(order, "1324");
    }

    proptest! {
        #[test]
        fn nobody_comes_twice_in_a_row_if_that_can_be(artists in proptest::collection::vec(0_u8..4, 1..40)) {
            let tracks: Vec<_> = artists.iter().map(|artist| track("x", "jazz", &format!("artist {artist}"))).collect();
            let mut pool = Pool::new(tracks.iter().collect());
            let mut order: Vec<&KnownTrack> = Vec::new();
            while let Some(next) = pool.take(order.last().copied(), Turn::OtherArtistToTheEnd) {
                order.push(next);
            }
            prop_assert_eq!(order.len(), tracks.len());
            let most = (0..4).map(|artist| artists.iter().filter(|one| **one == artist).count()).max().unwrap();
            let in_a_row = order.windows(2).filter(|pair| same_artist(pair[0], pair[1])).count();
            if most <= tracks.len().div_ceil(2) {
                prop_assert_eq!(in_a_row, 0);
            }
        }
    }
}
