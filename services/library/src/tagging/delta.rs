//! How to get the original of a file back from the tagged one: which of its bytes are there still, and the others.
//!
//! Tags are a small part of a file, and the audio is the same on both sides, mostly moved by the difference of the tags'
//! lengths. So what has to be kept is about as long as the tags, and not a second library.

use serde::{Deserialize, Serialize};

/// Shorter runs are kept: to say where they are takes as much.
const SHORTEST_RUN: usize = 32;
/// Looking for bytes that moved reads the whole file: not more often than every so many bytes …
const PROBE_DISTANCE: usize = 4_096;
/// … and only so often.
const MAX_PROBES: usize = 64;
const MAX_SHIFTS: usize = 16;
/// No original is longer: whatever stands in a journal, restoring ends.
const MAX_ORIGINAL_BYTES: usize = 1 << 30;

/// A part of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Piece {
    /// The same bytes are in the tagged file.
    Tagged { start: usize, length: usize },
    /// The next ones of those that were kept.
    Kept { length: usize },
}

/// The original of a tagged file, without the bytes that both have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pieces: Vec<Piece>,
    kept: Vec<u8>,
}

impl Delta {
    /// What `original` has and `tagged` has not.
    pub(crate) fn between(original: &[u8], tagged: &[u8]) -> Self {
        let mut delta = Self::default();
        let mut finder = Finder::new(original, tagged);
        let mut position = 0;
        while position < original.len() {
            match finder.longest_run(position) {
                Some((start, length)) => {
                    delta.pieces.push(Piece::Tagged { start, length });
                    position += length;
                }
                None => {
                    delta.keep(original.get(position..=position).unwrap_or_default());
                    position += 1;
                }
            }
        }
        delta
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        match self.pieces.last_mut() {
            Some(Piece::Kept { length }) => *length += bytes.len(),
            _ => self.pieces.push(Piece::Kept { length: bytes.len() }),
        }
    }

    /// The original again. `None` if this does not belong to `tagged`.
    pub(crate) fn restore(&self, tagged: &[u8]) -> Option<Vec<u8>> {
        let mut original = Vec::new();
        let mut kept = self.kept.as_slice();
        for piece in &self.pieces {
            let (Piece::Tagged { length, .. } | Piece::Kept { length }) = *piece;
            if length > MAX_ORIGINAL_BYTES - original.len() {
                return None;
            }
            match *piece {
                Piece::Tagged { start, length } => {
                    original.extend_from_slice(tagged.get(start..start.checked_add(length)?)?);
                }
                Piece::Kept { length } => {
                    let (bytes, rest) = kept.split_at_checked(length)?;
                    original.extend_from_slice(bytes);
                    kept = rest;
                }
            }
        }
        Some(original)
    }

    /// Where the parts are, as JSON, and the bytes that were kept.
    pub(crate) fn to_parts(&self) -> serde_json::Result<(String, &[u8])> {
        Ok((serde_json::to_string(&self.pieces)?, &self.kept))
    }

    /// From what [`Delta::to_parts`] gave.
    pub(crate) fn from_parts(pieces: &str, kept: Vec<u8>) -> serde_json::Result<Self> {
        Ok(Self { pieces: serde_json::from_str(pieces)?, kept })
    }
}

/// Finds bytes of the original in the tagged file by how far they have moved.
struct Finder<'a> {
    original: &'a [u8],
    tagged: &'a [u8],
    /// Added to a position in the original: where it may be in the tagged file.
    shifts: Vec<isize>,
    probes: usize,
    next_probe: usize,
}

impl<'a> Finder<'a> {
    fn new(original: &'a [u8], tagged: &'a [u8]) -> Self {
        let shifts = vec![0, tagged.len() as isize - original.len() as isize];
        Self { original, tagged, shifts, probes: 0, next_probe: 0 }
    }

    /// Where in the tagged file the longest run of bytes is that begins at `position` of the original, and its length.
    fn longest_run(&mut self, position: usize) -> Option<(usize, usize)> {
        let known = self.shifts.iter().filter_map(|&shift| position.checked_add_signed(shift));
        let best = known.map(|start| (start, self.run(position, start))).max_by_key(|&(_, length)| length);
        best.filter(|&(_, length)| length >= SHORTEST_RUN).or_else(|| self.probe(position))
    }

    fn run(&self, position: usize, start: usize) -> usize {
        let original = self.original.get(position..).unwrap_or_default();
        let tagged = self.tagged.get(start..).unwrap_or_default();
        original.iter().zip(tagged).take_while(|(original, tagged)| original == tagged).count()
    }

    fn probe(&mut self, position: usize) -> Option<(usize, usize)> {
        if position < self.next_probe || self.probes == MAX_PROBES || self.shifts.len() == MAX_SHIFTS {
            return None;
        }
        let sought = self.original.get(position..position.checked_add(SHORTEST_RUN)?)?;
        self.probes += 1;
        self.next_probe = position + PROBE_DISTANCE;
        let start = self.tagged.windows(SHORTEST_RUN).position(|bytes| bytes == sought)?;
        self.shifts.push(start as isize - position as isize);
        Some((start, self.run(position, start)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; length];
        ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn audio_that_moved_is_not_kept() {
        let (audio, cover) = (noise(500_000, 1), noise(60_000, 2));
        let original = [&noise(300, 3), cover.as_slice(), &noise(900, 4), &audio, &noise(128, 5)].concat();
        let tagged = [&noise(200, 6), cover.as_slice(), &noise(77, 7), &audio, &noise(300, 8)].concat();
        let delta = Delta::between(&original, &tagged);
        assert_eq!(delta.restore(&tagged).unwrap(), original);
        // The cover is found at the first probe behind its start.
        assert!(delta.kept.len() < 300 + 900 + 128 + 2 * PROBE_DISTANCE, "{}", delta.kept.len());
        assert!(delta.pieces.len() < 12, "{:?}", delta.pieces);
    }

    #[test]
    fn what_does_not_belong_together_is_not_restored() {
        let (original, tagged) = (noise(9_000, 1), noise(9_000, 1));
        let delta = Delta::between(&original, &tagged);
        assert!(delta.kept.is_empty());
        assert_eq!(delta.restore(&tagged[..8_999]), None);
    }

    proptest! {
        #[test]
        fn every_original_comes_back(
            original in proptest::collection::vec(0_u8..4, 0..400),
            tagged in proptest::collection::vec(0_u8..4, 0..400),
        ) {
            let delta = Delta::between(&original, &tagged);
            let (pieces, kept) = delta.to_parts().unwrap();
            let read = Delta::from_parts(pieces.as_str(), kept.to_vec()).unwrap();
            prop_assert_eq!(read.restore(&tagged).unwrap(), original);
        }
    }
}
