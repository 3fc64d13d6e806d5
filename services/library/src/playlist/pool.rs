//! Tracks that wait for their turn, best first, with as little of one artist in a row as can be.

use std::collections::{BTreeMap, VecDeque};

use crate::KnownTrack;

/// The tracks of one genre, or of all.
#[derive(Debug, Clone)]
pub(crate) struct Pool<'a> {
    waiting: VecDeque<&'a KnownTrack>,
    /// How many tracks of each artist wait.
    artists: BTreeMap<String, usize>,
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
pub(crate) fn artist_of(track: &KnownTrack) -> Option<String> {
    track.artist.as_deref().map(|artist| artist.trim().to_lowercase()).filter(|artist| !artist.is_empty())
}

/// Whether both are known to be by the same artist.
pub(crate) fn same_artist(one: &KnownTrack, other: &KnownTrack) -> bool {
    artist_of(one).is_some_and(|artist| artist_of(other) == Some(artist))
}

impl<'a> Pool<'a> {
    pub(crate) fn new(tracks: Vec<&'a KnownTrack>) -> Self {
        let mut artists = BTreeMap::new();
        for artist in tracks.iter().filter_map(|track| artist_of(track)) {
            *artists.entry(artist).or_default() += 1;
        }
        Self { waiting: tracks.into(), artists }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The tracks that wait, best first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a KnownTrack> + '_ {
        self.waiting.iter().copied()
    }

    /// Takes the next track after `before`. If all that wait are by the same artist as that one, so is this one.
    pub(crate) fn take(&mut self, before: Option<&KnownTrack>, turn: Turn) -> Option<&'a KnownTrack> {
        let before = before.and_then(artist_of);
        let place = match turn {
            Turn::Any => None,
            Turn::OtherArtist => self.first_not_by(before.as_ref()),
            Turn::OtherArtistToTheEnd => {
                self.first_of_most(before.as_ref()).or_else(|| self.first_not_by(before.as_ref()))
            }
        };
        let track = self.waiting.remove(place.unwrap_or_default())?;
        if let Some(count) = artist_of(track).and_then(|artist| self.artists.get_mut(&artist)) {
            *count -= 1;
        }
        Some(track)
    }

    /// Puts a track back, to be the next one.
    pub(crate) fn give_back(&mut self, track: &'a KnownTrack) {
        self.waiting.push_front(track);
        if let Some(artist) = artist_of(track) {
            *self.artists.entry(artist).or_default() += 1;
        }
    }

    fn first_not_by(&self, artist: Option<&String>) -> Option<usize> {
        self.waiting.iter().position(|track| {
            let other = artist_of(track);
            other.is_none() || other.as_ref() != artist
        })
    }

    /// The first track of the artist who would have two in a row at the end if this were not theirs.
    fn first_of_most(&self, before: Option<&String>) -> Option<usize> {
        let (most, count) = self.artists.iter().max_by_key(|(_, count)| **count)?;
        if 2 * count <= self.waiting.len() || Some(most) == before {
            return None;
        }
        self.waiting.iter().position(|track| artist_of(track).as_ref() == Some(most))
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
