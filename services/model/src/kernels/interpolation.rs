//! Frames at another rate.

use pulp::{Simd, WithSimd};

use super::{Instructions, Scratch};

/// Frames that lie between known ones.
pub(crate) struct Interpolation {
    /// For every frame, the known ones before and after it, and how far it lies behind the first.
    places: Vec<(usize, usize, f32)>,
}

impl Interpolation {
    /// Frames that lie behind known ones, of which there are `known`, by a share of the distance to the next.
    pub(crate) fn new(known: usize, places: &[(usize, f32)]) -> Self {
        let places = places.iter().map(|&(before, share)| (before, (before + 1).min(known - 1), share));
        Self { places: places.collect() }
    }

    /// Rows `[frames][channels]` between those of `known`.
    pub(crate) fn of(&self, instructions: Instructions, known: &[f32], channels: usize) -> Scratch {
        let mut rows = Scratch::new(self.places.len() * channels);
        instructions.run(Interpolate { interpolation: self, known, channels, rows: &mut rows });
        rows
    }
}

struct Interpolate<'a> {
    interpolation: &'a Interpolation,
    known: &'a [f32],
    channels: usize,
    rows: &'a mut [f32],
}

impl WithSimd for Interpolate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let row_at = |row: usize| &self.known[row * self.channels..][..self.channels];
        for (row, (before, after, share)) in self.rows.chunks_exact_mut(self.channels).zip(&self.interpolation.places) {
            for (value, (before, after)) in row.iter_mut().zip(row_at(*before).iter().zip(row_at(*after))) {
                *value = before + share * (after - before);
            }
        }
    }
}
