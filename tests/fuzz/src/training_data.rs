//! The tables and arrays that training reads.

use chorale_model::contract::{CHUNK_CELLS, MEL_BANDS};
use chorale_trainer::Catalogue;

use crate::scratch::Scratch;

const TABLE: &str = "tracks.csv";
const ARRAY: &str = "mel_u8.npy";
const FRAMES: usize = 120;

/// `tracks.csv`: of audio files, and beside an array of two tracks.
pub fn tracks_csv(input: &[u8]) {
    thread_local!(static FOLDERS: (Scratch, Scratch) = (Scratch::new(), with_array()));
    FOLDERS.with(|(files, mel)| {
        let table = files.write(TABLE, input);
        if let Ok(catalogue) = Catalogue::open(&table, 1) {
            check(&catalogue);
        }
        mel.write(TABLE, input);
        if let Ok(catalogue) = Catalogue::open(mel.path(), 1) {
            check(&catalogue);
            read_chunks(&catalogue);
        }
    });
}

/// `mel_u8.npy` beside a table that names its first tracks.
pub fn mel_npy(input: &[u8]) {
    thread_local!(static FOLDERS: [Scratch; 2] = [with_table(1), with_table(3)]);
    FOLDERS.with(|folders| {
        for folder in folders {
            folder.write(ARRAY, input);
            if let Ok(catalogue) = Catalogue::open(folder.path(), 1) {
                read_chunks(&catalogue);
            }
        }
    });
}

fn with_array() -> Scratch {
    let folder = Scratch::new();
    folder.write(ARRAY, &array(2, FRAMES));
    folder
}

/// An array of tracks, as NumPy writes it.
pub(crate) fn array(tracks: usize, frames: usize) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({tracks}, {MEL_BANDS}, {frames}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).expect("a short header").to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend((0..tracks * MEL_BANDS * frames).map(|cell| (cell * 7 % 256) as u8));
    bytes
}

fn with_table(rows: usize) -> Scratch {
    let folder = Scratch::new();
    let rows: String = (0..rows).map(|row| format!("{row},track {row},jazz,-80\n")).collect();
    folder.write(TABLE, format!("row,track,genre,floor_db\n{rows}").as_bytes());
    folder
}

fn check(catalogue: &Catalogue) {
    assert!(!catalogue.tracks().is_empty());
    for track in catalogue.tracks() {
        assert!(!track.name.is_empty() && !track.genre.is_empty() && !track.split.is_empty());
        assert!(catalogue.split(&track.split).is_ok());
    }
}

fn read_chunks(catalogue: &Catalogue) {
    // A table may name one row a thousand times.
    for track in catalogue.tracks().iter().take(3) {
        let chunks = catalogue.chunks(track).expect("an array that was opened can be read");
        assert!(chunks.iter().all(|chunk| chunk.len() == CHUNK_CELLS));
    }
}
