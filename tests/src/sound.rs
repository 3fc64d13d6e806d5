//! Sound made of numbers: a chord under noise, as long as a test wants it.

use std::{f64::consts::TAU, fs, path::Path};

use bytes::{BufMut, Bytes, BytesMut};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The sample rate of [`wav`], in Hz.
pub const SAMPLE_RATE: u32 = 22_050;

/// Mono samples of a chord under noise. Each seed has its own chord, and the same seed sounds the same every time.
#[must_use]
pub fn chord(seconds: f64, seed: u64) -> Vec<i16> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let frequencies: Vec<f64> = (0..4).map(|_| rng.random_range(80.0..2_000.0)).collect();
    let beat_hz = rng.random_range(1.0..4.0);
    let samples = (seconds * f64::from(SAMPLE_RATE)).round() as usize;
    (0..samples)
        .map(|index| {
            let time = index as f64 / f64::from(SAMPLE_RATE);
            let tones: f64 = frequencies.iter().map(|frequency| (TAU * frequency * time).sin()).sum();
            let pulse = 0.5 + 0.5 * (TAU * beat_hz * time).sin();
            let noise = rng.random_range(-1.0..1.0);
            ((0.12 * tones * pulse + 0.1 * noise) * f64::from(i16::MAX)) as i16
        })
        .collect()
}

/// Mono samples of white noise.
#[must_use]
pub fn noise(seconds: f64, seed: u64) -> Vec<i16> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let samples = (seconds * f64::from(SAMPLE_RATE)).round() as usize;
    (0..samples).map(|_| rng.random_range(-12_000..12_000)).collect()
}

/// Samples of nothing.
#[must_use]
pub fn silence(seconds: f64) -> Vec<i16> {
    vec![0; (seconds * f64::from(SAMPLE_RATE)).round() as usize]
}

/// A WAV file of mono samples.
#[must_use]
pub fn wav(samples: &[i16]) -> Bytes {
    let mut file = BytesMut::from(&wav_header(SAMPLE_RATE, 1, samples.len() as u64)[..]);
    for &sample in samples {
        file.put_i16_le(sample);
    }
    file.freeze()
}

/// Tracks of two genres that nobody could confuse, in folders of their names: chords, and nothing but clicks.
pub fn write_two_genres(folder: &Path, tracks: u64) {
    for seed in 0..tracks {
        let chord = chord(5.0, seed);
        let spacing = 2_000 + 137 * seed as usize;
        let clicks: Vec<i16> = (0..chord.len()).map(|index| if index % spacing < 20 { 20_000 } else { 0 }).collect();
        for (genre, samples) in [("chords", &chord), ("clicks", &clicks)] {
            fs::create_dir_all(folder.join(genre)).expect("folders can be made");
            fs::write(folder.join(genre).join(format!("{seed}.wav")), wav(samples)).expect("files can be written");
        }
    }
}

/// The header of a WAV file of `frames` samples of 16 bits in each of `channels`.
#[must_use]
pub fn wav_header(sample_rate: u32, channels: u16, frames: u64) -> Bytes {
    let frame_bytes = channels * 2;
    let data_bytes = u32::try_from(frames * u64::from(frame_bytes)).expect("a WAV file has at most 4 GiB");
    let mut header = BytesMut::new();
    header.put_slice(b"RIFF");
    header.put_u32_le(data_bytes + 36);
    header.put_slice(b"WAVEfmt ");
    header.put_u32_le(16);
    header.put_u16_le(1);
    header.put_u16_le(channels);
    header.put_u32_le(sample_rate);
    header.put_u32_le(sample_rate * u32::from(frame_bytes));
    header.put_u16_le(frame_bytes);
    header.put_u16_le(16);
    header.put_slice(b"data");
    header.put_u32_le(data_bytes);
    header.freeze()
}
