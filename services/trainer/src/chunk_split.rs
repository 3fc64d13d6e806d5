//! Splitting data by chunk instead of by track.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::Serialize;

use crate::{ChunkedTrack, Result, TrainerError};

/// What must be said wherever such a split is used.
pub const CHUNK_SPLIT_LEAKS: &str = "The split is by chunk, so most tracks have chunks on both sides and the model is \
                                     examined on music that it has learnt: the numbers say nothing about other tracks.";

/// Out of a hundred chunks, how many are for testing.
const TEST_PERCENT: u64 = 20;

/// What is kept together when data is split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitBy {
    /// All chunks of a track are on one side.
    #[default]
    Track,
    /// Every chunk is on a side of its own: 80 % `train`, 20 % `test`.
    Chunk,
}

/// A side of a split by chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkSide {
    /// To learn from.
    Train,
    /// To examine with.
    Test,
}

impl ChunkSide {
    /// The side of a chunk: chance, but always the same for the same seed, name of the track and index of the chunk.
    #[must_use]
    pub fn of(seed: u64, track: &str, chunk: usize) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("chorale split by chunk");
        hasher.update(&seed.to_le_bytes()).update(&(chunk as u64).to_le_bytes()).update(track.as_bytes());
        let [first, second, third, fourth, ..] = *hasher.finalize().as_bytes();
        let number = u64::from(u32::from_le_bytes([first, second, third, fourth]));
        if (number * 100) >> 32 < TEST_PERCENT { Self::Test } else { Self::Train }
    }

    /// The chunks of `tracks` on this side. Tracks that have none there are left out.
    pub(crate) fn select(self, tracks: &[ChunkedTrack], seed: u64) -> Vec<ChunkedTrack> {
        let here = |track: &ChunkedTrack| {
            let chunks = track.chunks.iter().enumerate();
            let chunks = chunks.filter(|(index, _)| Self::of(seed, &track.name, *index) == self);
            let chunks: Vec<Vec<u8>> = chunks.map(|(_, chunk)| chunk.clone()).collect();
            let (name, genre) = (track.name.clone(), track.genre.clone());
            (!chunks.is_empty()).then_some(ChunkedTrack { name, genre, chunks })
        };
        tracks.iter().filter_map(here).collect()
    }
}

impl fmt::Display for ChunkSide {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Train => "train",
            Self::Test => "test",
        })
    }
}

impl FromStr for ChunkSide {
    type Err = TrainerError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "train" => Ok(Self::Train),
            "test" => Ok(Self::Test),
            _ => Err(TrainerError::Option {
                option: "split by chunk",
                expected: "train or test",
                found: text.to_owned(),
            }),
        }
    }
}

/// The genres of tracks, in alphabetical order.
pub(crate) fn genres(tracks: &[ChunkedTrack]) -> BTreeSet<&String> {
    tracks.iter().map(|track| &track.genre).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_for_testing_and_always_the_same() {
        let tracks: Vec<ChunkedTrack> = (0..100)
            .map(|track| ChunkedTrack {
                name: format!("track {track}"),
                genre: "any".to_owned(),
                chunks: (0..14).map(|chunk| vec![track, chunk]).collect(),
            })
            .collect();
        let count =
            |side: ChunkSide, seed| side.select(&tracks, seed).iter().map(|track| track.chunks.len()).sum::<usize>();
        let test = count(ChunkSide::Test, 1);
        assert!((230..330).contains(&test), "{test}");
        assert_eq!(test + count(ChunkSide::Train, 1), 1_400);
        assert_eq!(ChunkSide::Test.select(&tracks, 1), ChunkSide::Test.select(&tracks, 1));
        assert_ne!(ChunkSide::Test.select(&tracks, 1), ChunkSide::Test.select(&tracks, 2));
        assert!("valid".parse::<ChunkSide>().is_err());
    }
}
