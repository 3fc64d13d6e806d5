//! Tracks as log-mel features in one NumPy array: uint8 `[track][mel band][frame]`.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use chorale_feature::Chunker;
use chorale_model::contract::{MEL_BANDS, SILENCE_DB};
use npyz::{DType, NpyHeader, Order, TypeChar};

use crate::{Result, TrainerError};

/// Magic number, version, and length of the header.
const PREFIX_BYTES: usize = 10;
const MAX_HEADER_BYTES: usize = 1_024;
/// Brackets that a header opens: those of an array of plain numbers are two. The library's parser tries a bracket within a
/// bracket several times, in each of them again.
const MAX_BRACKETS: usize = 4;
/// Frames of a track: an hour and 9 minutes. A row takes 12 MiB.
const MAX_FRAMES: u64 = 100_000;
const LEVELS: f32 = 256.0;

/// An open array.
#[derive(Debug)]
pub(crate) struct MelFile {
    path: PathBuf,
    data_start: u64,
    tracks: u64,
    frames: u64,
}

impl MelFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let read_error = |source| TrainerError::Read { path: path.to_owned(), source };
        let wrong = |what: String| TrainerError::MelFile { path: path.to_owned(), what };
        let mut file = File::open(path).map_err(read_error)?;
        let length = file.metadata().map_err(read_error)?.len();
        let mut header = Vec::new();
        file.by_ref().take((PREFIX_BYTES + MAX_HEADER_BYTES) as u64).read_to_end(&mut header).map_err(read_error)?;
        // The library believes the length that a header claims, so that is looked at first.
        let text_bytes = match header.get(6..PREFIX_BYTES) {
            Some([1, _, low, high]) => usize::from(u16::from_le_bytes([*low, *high])),
            _ => return Err(wrong("expected a NumPy array, format version 1".to_owned())),
        };
        if text_bytes > MAX_HEADER_BYTES {
            return Err(wrong(format!("expected a header of at most {MAX_HEADER_BYTES} bytes, found {text_bytes}")));
        }
        let text = header.iter().skip(PREFIX_BYTES).take(text_bytes);
        let brackets = text.filter(|byte| b"([{".contains(byte)).count();
        if brackets > MAX_BRACKETS {
            return Err(wrong(format!("expected an array of plain numbers, found {brackets} brackets in its header")));
        }
        let header = NpyHeader::from_reader(header.as_slice())
            .map_err(|error| wrong(format!("expected a NumPy array: {error}")))?;
        let is_bytes = match header.dtype() {
            DType::Plain(kind) => kind.type_char() == TypeChar::Uint && kind.num_bytes() == Some(1),
            _ => false,
        };
        let (tracks, frames) = match *header.shape() {
            [tracks, bands, frames]
                if is_bytes
                    && header.order() == Order::C
                    && bands == MEL_BANDS as u64
                    && (1..=MAX_FRAMES).contains(&frames) =>
            {
                (tracks, frames)
            }
            _ => {
                return Err(wrong(format!(
                    "expected uint8 [track, {MEL_BANDS}, 1 to {MAX_FRAMES} frames], C order; found {} {:?}, {:?} order",
                    header.dtype().descr(),
                    header.shape(),
                    header.order()
                )));
            }
        };
        let data_start = (PREFIX_BYTES + text_bytes) as u64;
        let expected = tracks.checked_mul(MEL_BANDS as u64 * frames).and_then(|data| data.checked_add(data_start));
        if expected != Some(length) {
            let shape = header.shape();
            return Err(wrong(format!("expected as many bytes as the shape {shape:?} says, found {length}")));
        }
        Ok(Self { path: path.to_owned(), data_start, tracks, frames })
    }

    /// Tracks in the array.
    pub(crate) fn tracks(&self) -> u64 {
        self.tracks
    }

    /// The cells of one track, `[mel band][frame]`.
    pub(crate) fn row(&self, row: u64) -> Result<Vec<u8>> {
        let read_error = |source| TrainerError::Read { path: self.path.clone(), source };
        let bytes = MEL_BANDS as u64 * self.frames;
        let mut cells = vec![0; bytes as usize];
        let mut file = File::open(&self.path).map_err(read_error)?;
        file.seek(SeekFrom::Start(self.data_start + row * bytes)).map_err(read_error)?;
        file.read_exact(&mut cells).map_err(read_error)?;
        Ok(cells)
    }

    /// The voting chunks of a track's cells, which span `floor_db..=0` dB below the track's loudest cell.
    pub(crate) fn chunks(cells: &[u8], floor_db: f32) -> Vec<Vec<u8>> {
        let step = -floor_db / LEVELS;
        // Absolute levels are not known. A chunk is taken for silence where no cell is above the array's floor.
        let loudest_db = SILENCE_DB - floor_db - step;
        let spectrogram: Vec<f32> =
            cells.iter().map(|cell| (f32::from(*cell) + 0.5) * step + floor_db + loudest_db).collect();
        let mut chunks = Vec::new();
        Chunker::cut(&spectrogram, |chunk| {
            if !chunk.is_silent() {
                chunks.push(chunk.quantize().cells.to_vec());
            }
        });
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 200);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<MelFile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mel_u8.npy");
        std::fs::write(&path, bytes).unwrap();
        MelFile::open(&path)
    }

    #[test]
    fn an_array_of_the_right_kind_is_opened() {
        let file = open(&npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 128, 3), }\n", 768)).unwrap();
        assert_eq!((file.tracks, file.frames), (2, 3));
    }

    #[test]
    fn arrays_that_lie_are_errors() {
        let header = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
        };
        for (header, data) in [
            (header("|u1", "False", "(2, 128, 3)"), 767),
            (header("|u1", "False", "(2, 128, 3)"), 769),
            (header("<f4", "False", "(2, 128, 3)"), 768),
            (header("|u1", "True", "(2, 128, 3)"), 768),
            (header("|u1", "False", "(2, 127, 3)"), 768),
            (header("|u1", "False", "(2, 128, 0)"), 0),
            (header("|u1", "False", "(256, 3)"), 768),
            (header("|u1", "False", "(18446744073709551615, 128, 100000)"), 768),
            (header("|u1", "False", "(1, 128, 99999999999999999999999)"), 768),
            ("(".repeat(1_000), 768),
            ("{".repeat(100), 768),
            ("[".repeat(100), 768),
            ("{([{".to_owned(), 768),
            ("x".repeat(2_000), 768),
        ] {
            let error = open(&npy(&header, data)).unwrap_err().to_string();
            assert!(error.contains("mel_u8.npy: expected"), "{error}");
        }
        for bytes in [&b""[..], b"\x93NUMPY", b"\x93NUMPY\x02\x00\xff\xff\xff\xff", b"RIFF....WAVEfmt "] {
            assert!(open(bytes).unwrap_err().to_string().contains("expected a NumPy array"));
        }
    }

    #[test]
    fn a_track_is_cut_as_in_serving_and_silence_does_not_vote() {
        let frames = 3 * 48 + 96;
        let cells: Vec<u8> = (0..MEL_BANDS * frames).map(|cell| if cell % frames < 100 { 200 } else { 0 }).collect();
        let chunks = MelFile::chunks(&cells, -80.0);
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[0], vec![255; chunks[0].len()]);
        assert_eq!(&chunks[1][48..54], [255, 255, 255, 255, 56, 56]);
    }
}
