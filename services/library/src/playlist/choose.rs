//! Which tracks of those that wait, and in which order.

use std::collections::BTreeSet;

use super::{
    mix::Mix,
    pool::{Pool, Turn, same_artist},
};
use crate::KnownTrack;

/// Times that a track is exchanged for one whose length fits better.
const MAX_EXCHANGES: usize = 64;
/// Tracks of a genre that are considered for that, best first …
const MAX_CONSIDERED: usize = 300;
/// … and places from the end: the best tracks, which are at the beginning, stay.
const MAX_PLACES: usize = 100;
/// Times that two tracks by the same artist are parted, and places that are tried for that.
const MAX_PARTED: usize = 256;
const MAX_PARTING_PLACES: usize = 2_000;
/// Nobody counts single seconds of a playlist.
const CLOSE_ENOUGH_SECONDS: f64 = 1.0;

/// What is wanted of a playlist.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'m> {
    pub(crate) mix: Option<&'m Mix>,
    pub(crate) tracks: Option<usize>,
    pub(crate) seconds: Option<f64>,
    pub(crate) repeat_artists: bool,
}

/// Tracks in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chosen<'a> {
    /// Each with the place of its pool.
    pub(crate) tracks: Vec<(usize, &'a KnownTrack)>,
    /// The pool that was empty when its turn came.
    pub(crate) ran_out: Option<usize>,
    pools: Vec<Pool<'a>>,
}

/// The length of a track in seconds, whatever stands in the index.
pub(crate) fn seconds_of(track: &KnownTrack) -> f64 {
    if track.duration_seconds.is_finite() { track.duration_seconds.max(0.0) } else { 0.0 }
}

/// Chooses from `pools`, one for each genre of the mix, or one for all.
pub(crate) fn choose<'a>(pools: &[Pool<'a>], wanted: &Wanted<'_>) -> Chosen<'a> {
    let mut chosen = if wanted.repeat_artists {
        take_turns(pools, wanted, Turn::Any)
    } else {
        let first = take_turns(pools, wanted, Turn::OtherArtist).with_artists_parted();
        if first.artists_in_a_row() == 0 {
            first
        } else {
            let to_the_end = take_turns(pools, wanted, Turn::OtherArtistToTheEnd).with_artists_parted();
            [first, to_the_end].into_iter().min_by_key(Chosen::artists_in_a_row).unwrap_or_default()
        }
    };
    if let Some(seconds) = wanted.seconds {
        chosen.fit(seconds, wanted);
    }
    chosen
}

fn take_turns<'a>(pools: &[Pool<'a>], wanted: &Wanted<'_>, turn: Turn) -> Chosen<'a> {
    let mut chosen = Chosen { tracks: Vec::new(), ran_out: None, pools: pools.to_vec() };
    let mut counts = vec![0; pools.len()];
    let mut seconds = 0.0;
    while wanted.tracks.is_none_or(|tracks| chosen.tracks.len() < tracks) {
        let place = wanted.mix.map_or(0, |mix| mix.next(&counts));
        let before = chosen.tracks.last().map(|(_, track)| *track);
        let Some(pool) = chosen.pools.get_mut(place) else { break };
        let Some(track) = pool.take(before, turn) else {
            chosen.ran_out = Some(place);
            break;
        };
        let length = seconds_of(track);
        if wanted.seconds.is_some_and(|wanted| seconds + length / 2.0 > wanted) {
            // Without it the playlist is closer to what is wanted; it waits on.
            pool.give_back(track);
            break;
        }
        seconds += length;
        chosen.tracks.push((place, track));
        if let Some(count) = counts.get_mut(place) {
            *count += 1;
        }
    }
    chosen
}

/// A way to bring a playlist closer to its length.
#[derive(Clone, Copy)]
enum Step<'a> {
    Append(usize, &'a KnownTrack),
    Exchange(usize, &'a KnownTrack),
}

impl<'a> Chosen<'a> {
    pub(crate) fn seconds(&self) -> f64 {
        self.tracks.iter().map(|(_, track)| seconds_of(track)).sum()
    }

    /// How often an artist comes right after themselves.
    pub(crate) fn artists_in_a_row(&self) -> usize {
        self.tracks.windows(2).filter(|pair| matches!(pair, [(_, one), (_, other)] if same_artist(one, other))).count()
    }

    fn at(&self, position: usize) -> Option<&'a KnownTrack> {
        self.tracks.get(position).map(|(_, track)| *track)
    }

    /// How many of its neighbours `track` would have the artist in common with at `position`.
    fn clashes(&self, position: usize, track: &KnownTrack) -> usize {
        let before = position.checked_sub(1).and_then(|before| self.at(before));
        let neighbours = [before, self.at(position + 1)];
        neighbours.into_iter().flatten().filter(|neighbour| same_artist(neighbour, track)).count()
    }

    /// Exchanges the places of tracks of one genre where that parts two by the same artist.
    fn with_artists_parted(mut self) -> Self {
        let in_a_row = |chosen: &Self, position: usize| chosen.is_in_a_row(position.wrapping_sub(1));
        let clashes: Vec<usize> = (1..self.tracks.len()).filter(|&position| in_a_row(&self, position)).collect();
        for position in clashes.into_iter().take(MAX_PARTED) {
            if in_a_row(&self, position) {
                self.part_at(position);
            }
        }
        self
    }

    /// Whether the artist at `position` comes again right after.
    fn is_in_a_row(&self, position: usize) -> bool {
        let (one, other) = (self.at(position), self.at(position.wrapping_add(1)));
        one.zip(other).is_some_and(|(one, other)| same_artist(one, other))
    }

    fn part_at(&mut self, position: usize) {
        let Some(&(place, _)) = self.tracks.get(position) else { return };
        for other in 0..self.tracks.len().min(MAX_PARTING_PLACES) {
            if self.tracks.get(other).is_none_or(|(other_place, _)| *other_place != place) {
                continue;
            }
            let around: BTreeSet<usize> =
                [position, other].into_iter().flat_map(|at| [at.wrapping_sub(1), at]).collect();
            let in_a_row = |chosen: &Self| around.iter().filter(|&&at| chosen.is_in_a_row(at)).count();
            let before = in_a_row(self);
            self.tracks.swap(position, other);
            if in_a_row(self) < before {
                return;
            }
            self.tracks.swap(position, other);
        }
    }

    /// Exchanges tracks, or appends one, as long as that brings the playlist closer to its length.
    fn fit(&mut self, wanted_seconds: f64, wanted: &Wanted<'_>) {
        for _ in 0..MAX_EXCHANGES {
            let gap = wanted_seconds - self.seconds();
            if gap.abs() < CLOSE_ENOUGH_SECONDS {
                return;
            }
            let Some((step, left)) = self.best_step(gap, wanted) else { return };
            if gap.abs() - left < CLOSE_ENOUGH_SECONDS {
                return;
            }
            self.go(step);
        }
    }

    fn best_step(&self, gap: f64, wanted: &Wanted<'_>) -> Option<(Step<'a>, f64)> {
        let last_places = self.tracks.iter().enumerate().rev().take(MAX_PLACES);
        let exchanges = last_places.flat_map(|(position, &(place, old))| {
            let allowed = if wanted.repeat_artists { 2 } else { self.clashes(position, old) };
            let pool = self.pools.get(place).into_iter().flat_map(|pool| pool.iter().take(MAX_CONSIDERED));
            pool.filter(move |new| wanted.repeat_artists || self.clashes(position, new) <= allowed)
                .map(move |new| (Step::Exchange(position, new), (gap - seconds_of(new) + seconds_of(old)).abs()))
        });
        let has_room = wanted.tracks.is_none_or(|tracks| self.tracks.len() < tracks);
        let next = wanted.mix.map_or(0, |mix| {
            let of = |place: usize| self.tracks.iter().filter(|(other, _)| *other == place).count();
            mix.next(&(0..self.pools.len()).map(of).collect::<Vec<_>>())
        });
        let end = self.tracks.len();
        let appended = self.pools.get(next).filter(|_| has_room).into_iter().flat_map(Pool::iter).take(MAX_CONSIDERED);
        let appended = appended
            .filter(|new| wanted.repeat_artists || self.clashes(end, new) == 0)
            .map(|new| (Step::Append(next, new), (gap - seconds_of(new)).abs()));
        exchanges.chain(appended).min_by(|(_, one), (_, other)| one.total_cmp(other))
    }

    fn go(&mut self, step: Step<'a>) {
        match step {
            Step::Append(place, new) => {
                self.leave(place, new, None);
                self.tracks.push((place, new));
            }
            Step::Exchange(position, new) => {
                let Some((place, old)) = self.tracks.get_mut(position) else { return };
                let (place, old) = (*place, std::mem::replace(old, new));
                self.leave(place, new, Some(old));
            }
        }
    }

    /// Takes `track` out of a pool, and puts `instead` in its place.
    fn leave(&mut self, place: usize, track: &KnownTrack, instead: Option<&'a KnownTrack>) {
        let Some(pool) = self.pools.get_mut(place) else { return };
        let tracks = pool.iter().filter_map(|other| if std::ptr::eq(other, track) { instead } else { Some(other) });
        *pool = Pool::new(tracks.collect());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::playlist::testing::track;

    fn library(tracks: &[(u8, u16)]) -> Vec<KnownTrack> {
        let one = |(index, &(artist, seconds)): (usize, &(u8, u16))| KnownTrack {
            duration_seconds: f64::from(seconds),
            ..track(&index.to_string(), "jazz", &format!("artist {artist}"))
        };
        tracks.iter().enumerate().map(one).collect()
    }

    fn wanted(tracks: Option<usize>, seconds: Option<f64>) -> Wanted<'static> {
        Wanted { mix: None, tracks, seconds, repeat_artists: false }
    }

    #[test]
    fn the_best_fitting_track_ends_it() {
        let library = library(&[(1, 100), (2, 100), (3, 400), (4, 70), (5, 61)]);
        let pool = Pool::new(library.iter().collect());
        let chosen = choose(&[pool], &wanted(None, Some(261.0)));
        assert_eq!(chosen.seconds(), 261.0);
        assert_eq!(chosen.tracks.len(), 3);
    }

    #[test]
    fn a_track_that_is_much_too_long_does_not_stand_in_the_way() {
        let library = library(&[(1, 10_000), (2, 300), (3, 290)]);
        let pool = Pool::new(library.iter().collect());
        let chosen = choose(&[pool], &wanted(None, Some(600.0)));
        assert_eq!(chosen.seconds(), 590.0);
    }

    proptest! {
        #[test]
        fn as_long_as_wanted_and_nobody_twice(
            tracks in proptest::collection::vec((0_u8..6, 60_u16..600), 60..120),
            minutes in 20_u32..60,
        ) {
            let library = library(&tracks);
            let seconds = f64::from(minutes) * 60.0;
            let chosen = choose(&[Pool::new(library.iter().collect())], &wanted(None, Some(seconds)));
            prop_assert!((chosen.seconds() - seconds).abs() < 30.0, "{} of {seconds}", chosen.seconds());
            let mut paths: Vec<_> = chosen.tracks.iter().map(|(_, track)| &track.path).collect();
            paths.sort();
            paths.dedup();
            prop_assert_eq!(paths.len(), chosen.tracks.len(), "each track once");
            prop_assert_eq!(chosen.artists_in_a_row(), 0);
        }

        #[test]
        fn a_mix_is_kept_and_no_artist_comes_twice_where_others_are_left(
            artists in proptest::collection::vec((0_u8..5, 0_u8..5), 30..60),
            weights in (1_u32..5, 1_u32..5),
        ) {
            let name = |genre: &str, artist: u8| track("x", genre, &format!("{genre} {artist}"));
            let jazz: Vec<_> = artists.iter().map(|(artist, _)| name("jazz", *artist)).collect();
            let blues: Vec<_> = artists.iter().map(|(_, artist)| name("blues", *artist)).collect();
            let mix: Mix = format!("{} jazz, {} blues", weights.0, weights.1).parse().unwrap();
            let pools = [Pool::new(jazz.iter().collect()), Pool::new(blues.iter().collect())];
            let wanted = Wanted { mix: Some(&mix), tracks: Some(10), seconds: None, repeat_artists: false };
            let chosen = choose(&pools, &wanted);
            prop_assert_eq!(chosen.tracks.len(), 10);
            for length in 1..=10_usize {
                let jazz = chosen.tracks.iter().take(length).filter(|(place, _)| *place == 0).count();
                prop_assert!((jazz as f64 - mix.shares()[0].1 * length as f64).abs() <= 1.0);
            }
            let distinct = |tracks: &[KnownTrack]| {
                let mut artists: Vec<_> = tracks.iter().map(|track| track.artist.clone()).collect();
                artists.sort();
                artists.dedup();
                artists.len()
            };
            if distinct(&jazz) > 1 && distinct(&blues) > 1 {
                prop_assert_eq!(chosen.artists_in_a_row(), 0);
            }
        }
    }
}
