//! Data that tests learn from.

#![allow(clippy::unwrap_used)]

use std::{fmt::Write, fs, path::Path};

use chorale_model::contract::MEL_BANDS;

const FRAMES: usize = 150;

/// Writes log-mel tracks of two genres, one with its energy in low bands and one in high ones, each with other details:
/// the first `train` ones to learn from, and the others to validate on.
pub(crate) fn write_data(folder: &Path, tracks: usize, train: usize) {
    fs::create_dir_all(folder).unwrap();
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({tracks}, {MEL_BANDS}, {FRAMES}), }}\n");
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    let mut table = "row,track,genre,split,floor_db\n".to_owned();
    for track in 0..tracks {
        let (genre, loud) = if track % 2 == 0 { ("low", 0..64) } else { ("high", 64..128) };
        let split = if track < train { "train" } else { "valid" };
        writeln!(table, "{track},track {track},{genre},{split},-80").unwrap();
        for band in 0..MEL_BANDS {
            let level = if loud.contains(&band) { 180 } else { 60 };
            npy.extend((0..FRAMES).map(|frame| (level + (band * 7 + frame * (track + 3)) % 60) as u8));
        }
    }
    fs::write(folder.join("mel_u8.npy"), npy).unwrap();
    fs::write(folder.join("tracks.csv"), table).unwrap();
}
