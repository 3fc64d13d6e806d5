//! The feature contract: what a mel chunk is, in numbers.
//!
//! The feature service, the trainer and the network all take these values from here, so that they cannot drift apart.
//! [`feature_id`] names the contract; it travels with every chunk and every model.

use std::sync::LazyLock;

/// Samples a second of the mono signal that features are computed from, in Hz.
pub const SAMPLE_RATE: u32 = 22_050;
/// Samples under one periodic Hann window, and points of its FFT.
pub const FFT_SIZE: usize = 2_048;
/// Frames a second. Frame `i` is centred on sample [`frame_centre`]`(i)`.
pub const FRAMES_PER_SECOND: u32 = 24;
/// Slaney-normalised mel bands, from 0 Hz to half of [`SAMPLE_RATE`].
pub const MEL_BANDS: usize = 128;
/// Frames in a chunk: 4 s.
pub const CHUNK_FRAMES: usize = 96;
/// Frames from the start of one chunk to the start of the next: 2 s.
pub const CHUNK_HOP_FRAMES: usize = 48;
/// Cells of a chunk, one byte each, row-major `[MEL_BANDS][CHUNK_FRAMES]`.
pub const CHUNK_CELLS: usize = MEL_BANDS * CHUNK_FRAMES;
/// The shortest input, and the shortest tail that gets a chunk of its own, in frames: 1 s.
pub const MIN_FRAMES: usize = FRAMES_PER_SECOND as usize;
/// Power below which a cell counts as this much: −100 dB.
pub const MIN_POWER: f32 = 1e-10;
/// Level of the quietest cell below the chunk's loudest, in dB.
pub const FLOOR_DB: f32 = -80.0;
/// A chunk whose loudest cell is under this level, in dB, is silent and does not vote.
pub const SILENCE_DB: f32 = -60.0;

const QUANTIZATION_LEVELS: f32 = 256.0;

/// The sample on which frame `index` is centred: `round(index × 22050 / 24)`, halves up.
#[must_use]
pub const fn frame_centre(index: u64) -> u64 {
    let double_rate = 2 * FRAMES_PER_SECOND as u64;
    (2 * index * SAMPLE_RATE as u64 + FRAMES_PER_SECOND as u64) / double_rate
}

/// The number of frames whose centre lies inside a signal of `samples` samples.
#[must_use]
pub const fn frames_in(samples: u64) -> u64 {
    // The first frame whose centre is at or after `samples` is the count of those before it.
    let mut frames = samples * FRAMES_PER_SECOND as u64 / SAMPLE_RATE as u64;
    while frame_centre(frames) < samples {
        frames += 1;
    }
    while frames > 0 && frame_centre(frames - 1) >= samples {
        frames -= 1;
    }
    frames
}

/// Where frame `index` is centred, in seconds.
#[must_use]
pub fn frame_seconds(index: u64) -> f64 {
    index as f64 / f64::from(FRAMES_PER_SECOND)
}

/// One cell on the wire: `db` below the chunk's loudest cell, in `FLOOR_DB..=0`, to a byte. NaN becomes 0.
#[must_use]
pub fn quantize(db: f32) -> u8 {
    let level = (db - FLOOR_DB) / -FLOOR_DB * QUANTIZATION_LEVELS;
    // A float-to-integer cast drops the fraction and saturates, which is the floor and the clamp of the contract.
    level as u8
}

/// The middle of a byte's interval, in dB below the chunk's loudest cell. Inverse of [`quantize`] up to 0.16 dB.
#[must_use]
pub fn dequantize(cell: u8) -> f32 {
    (f32::from(cell) + 0.5) / QUANTIZATION_LEVELS * -FLOOR_DB + FLOOR_DB
}

/// A short hash of this contract. Two parts of a cluster that disagree on it must not talk to each other.
#[must_use]
pub fn feature_id() -> &'static str {
    static ID: LazyLock<String> = LazyLock::new(|| {
        let table = format!(
            "chorale log-mel; rate {SAMPLE_RATE}; periodic hann {FFT_SIZE}; centred, zero padded; {FRAMES_PER_SECOND} frames/s, \
             centres rounded half up; power; {MEL_BANDS} slaney mel 0-{}; chunk {CHUNK_FRAMES} hop {CHUNK_HOP_FRAMES} tail {MIN_FRAMES}; \
             10 log10 max {MIN_POWER:e}; minus chunk max; floor {FLOOR_DB}; silence {SILENCE_DB}; u8 {QUANTIZATION_LEVELS}",
            SAMPLE_RATE / 2,
        );
        blake3::hash(table.as_bytes()).to_hex()[..12].to_owned()
    });
    &ID
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_centres_are_the_rounded_multiples_without_drift() {
        for index in 0..100_000_u64 {
            let exact = index as f64 * 22_050.0 / 24.0;
            assert_eq!(frame_centre(index), (exact + 0.5).floor() as u64, "frame {index}");
        }
    }

    #[test]
    fn a_frame_belongs_to_a_signal_that_holds_its_centre() {
        assert_eq!(frames_in(0), 0);
        assert_eq!(frames_in(1), 1);
        assert_eq!(frames_in(919), 1);
        assert_eq!(frames_in(920), 2);
        assert_eq!(frames_in(22_050), 24);
        assert_eq!(frames_in(4 * 22_050), 96);
        assert_eq!(frames_in(661_794), 721);
        for samples in 0..10_000 {
            let counted = (0..).take_while(|&i| frame_centre(i) < samples).count() as u64;
            assert_eq!(frames_in(samples), counted, "{samples} samples");
        }
    }

    #[test]
    fn a_byte_comes_back_within_half_a_step() {
        assert_eq!(quantize(0.0), 255);
        assert_eq!(quantize(-80.0), 0);
        assert_eq!(quantize(-500.0), 0);
        assert_eq!(quantize(f32::NAN), 0);
        for cell in 0..=255 {
            assert_eq!(quantize(dequantize(cell)), cell);
        }
        for step in 0..8_000 {
            let db = -(step as f32) / 100.0;
            assert!((dequantize(quantize(db)) - db).abs() <= 0.157, "{db} dB");
        }
    }

    #[test]
    fn the_contract_has_not_changed_by_accident() {
        assert_eq!(feature_id().len(), 12);
    }
}
