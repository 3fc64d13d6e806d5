//! What rooms, records and radios do to music, on mel chunks.

use std::f32::consts::PI;

use chorale_model::contract::{CHUNK_FRAMES, FLOOR_DB, MEL_BANDS};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{Augment, augment::normalize};

/// Cosines that a random equaliser is the sum of.
const EQUALISER_CURVES: usize = 4;

/// Random equalisers, dynamics, pitch, gaps, band limits and noise floors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Room {
    /// How often anything is done.
    pub share: f64,
    /// The greatest standard deviation of the equaliser, in dB.
    pub equaliser_db: f32,
    /// How much louder or softer contrasts become, as a share.
    pub contrast: f32,
    /// The greatest shift up or down, in bands.
    pub shift_bands: usize,
    /// How often some neighbouring bands are silent.
    pub band_gap: f64,
    /// How often some neighbouring frames are silent.
    pub time_gap: f64,
    /// How often high bands are attenuated.
    pub low_pass: f64,
    /// How often noise fills what is quiet.
    pub noise: f64,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            share: 0.8,
            equaliser_db: 4.0,
            contrast: 0.15,
            shift_bands: 2,
            band_gap: 0.5,
            time_gap: 0.5,
            low_pass: 0.3,
            noise: 0.5,
        }
    }
}

impl Augment for Room {
    fn apply(&self, chunk: &mut [f32], random: &mut ChaCha8Rng) {
        if !random.random_bool(self.share) {
            return;
        }
        let contrast = 1.0 + random.random_range(-self.contrast..=self.contrast);
        for (row, gain) in chunk.chunks_exact_mut(CHUNK_FRAMES).zip(self.equaliser(random)) {
            for cell in row {
                *cell = *cell * contrast + gain;
            }
        }
        self.shift(chunk, random);
        if random.random_bool(self.band_gap) {
            let bands = random.random_range(2..14);
            let first = random.random_range(0..MEL_BANDS - bands);
            chunk.iter_mut().skip(first * CHUNK_FRAMES).take(bands * CHUNK_FRAMES).for_each(|cell| *cell = f32::MIN);
        }
        if random.random_bool(self.time_gap) {
            let frames = random.random_range(2..20);
            let first = random.random_range(0..CHUNK_FRAMES - frames);
            for row in chunk.chunks_exact_mut(CHUNK_FRAMES) {
                row.iter_mut().skip(first).take(frames).for_each(|cell| *cell = f32::MIN);
            }
        }
        if random.random_bool(self.low_pass) {
            let (first, less) = (random.random_range(70..MEL_BANDS), random.random_range(10.0..60.0_f32));
            chunk.iter_mut().skip(first * CHUNK_FRAMES).for_each(|cell| *cell -= less);
        }
        normalize(chunk);
        if random.random_bool(self.noise) {
            let level = 10_f32.powf(random.random_range(FLOOR_DB..-45.0) / 10.0);
            chunk.iter_mut().for_each(|cell| *cell = 10.0 * (10_f32.powf(*cell / 10.0) + level).log10());
            normalize(chunk);
        }
    }
}

impl Room {
    /// A smooth curve over the bands, in dB.
    fn equaliser(&self, random: &mut ChaCha8Rng) -> Vec<f32> {
        let strength = random.random_range(0.0..=self.equaliser_db);
        let mut curve = vec![0.0_f32; MEL_BANDS];
        for turns in 1..=EQUALISER_CURVES {
            // The sum of three uniform numbers is near enough to a normal one.
            let height: f32 = (0..3).map(|_| random.random_range(-1.0..1.0_f32)).sum();
            let phase = random.random_range(0.0..2.0 * PI);
            for (band, gain) in curve.iter_mut().enumerate() {
                let position = band as f32 / (MEL_BANDS - 1) as f32;
                *gain += strength * height / (turns as f32).sqrt() * (PI * turns as f32 * position + phase).cos();
            }
        }
        curve
    }

    /// Moves everything a few bands up or down; the bands at the edge are repeated.
    fn shift(&self, chunk: &mut [f32], random: &mut ChaCha8Rng) {
        let shift = random.random_range(0..=self.shift_bands) * CHUNK_FRAMES;
        let up = random.random_bool(0.5);
        if shift == 0 || shift >= chunk.len() {
            return;
        }
        if up {
            let edge: Vec<f32> = chunk.iter().take(CHUNK_FRAMES).copied().collect();
            chunk.rotate_right(shift);
            chunk.iter_mut().take(shift).zip(edge.iter().cycle()).for_each(|(cell, edge)| *cell = *edge);
        } else {
            let (kept, edge) = (chunk.len() - shift, chunk.len() - CHUNK_FRAMES);
            let edge: Vec<f32> = chunk.iter().skip(edge).copied().collect();
            chunk.rotate_left(shift);
            chunk.iter_mut().skip(kept).zip(edge.iter().cycle()).for_each(|(cell, edge)| *cell = *edge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::source;
    use chorale_model::contract::CHUNK_CELLS;

    #[test]
    fn a_chunk_stays_a_chunk_whatever_the_room() {
        let original: Vec<f32> = (0..CHUNK_CELLS).map(|cell| -((cell * 31 % 97) as f32) * 0.8).collect();
        for index in 0..200 {
            let mut chunk = original.clone();
            Room { share: 1.0, ..Room::default() }.apply(&mut chunk, &mut source(1, "room", index));
            assert_eq!(chunk.iter().copied().fold(f32::MIN, f32::max), 0.0, "{index}");
            assert!(chunk.iter().all(|cell| (FLOOR_DB..=0.0).contains(cell)), "{index}");
            assert_ne!(chunk, original);
        }
    }

    #[test]
    fn a_shift_moves_bands_and_repeats_the_edge() {
        let room = Room { shift_bands: 2, ..Room::default() };
        let original: Vec<f32> = (0..CHUNK_CELLS).map(|cell| (cell / CHUNK_FRAMES) as f32).collect();
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..50 {
            let mut chunk = original.clone();
            room.shift(&mut chunk, &mut source(1, "shift", index));
            let moved = chunk[64 * CHUNK_FRAMES] as i32 - 64;
            for (band, row) in chunk.chunks_exact(CHUNK_FRAMES).enumerate() {
                let expected = (band as i32 + moved).clamp(0, MEL_BANDS as i32 - 1) as f32;
                assert!(row.iter().all(|cell| *cell == expected), "{moved} {band}");
            }
            seen.insert(moved);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [-2, -1, 0, 1, 2]);
    }

    #[test]
    fn silence_stays_silence() {
        let mut chunk = vec![FLOOR_DB; CHUNK_CELLS];
        normalize(&mut chunk);
        assert!(chunk.iter().all(|cell| *cell == 0.0));
    }
}
