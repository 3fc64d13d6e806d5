//! Frames to chunks.

use crate::mel::MelFrame;
use bytes::Bytes;
use chorale_model::contract::{
    CHUNK_CELLS, CHUNK_FRAMES, CHUNK_HOP_FRAMES, FLOOR_DB, MEL_BANDS, MIN_FRAMES, MIN_POWER, SILENCE_DB, frame_seconds,
    quantize,
};

/// A chunk as it travels: one byte a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct MelChunk {
    /// Position of the chunk in the track, from 0.
    pub index: u32,
    /// Where the chunk begins, in seconds.
    pub start_seconds: f64,
    /// Where the chunk ends, in seconds; beyond the end of the track if it was padded.
    pub end_seconds: f64,
    /// True for digital silence, or nearly: the chunk does not vote.
    pub silent: bool,
    /// [`CHUNK_CELLS`] cells, row-major `[MEL_BANDS][CHUNK_FRAMES]`; see [`quantize`].
    pub cells: Bytes,
}

/// A chunk before quantisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DbChunk<'a> {
    /// Position of the chunk in the track, from 0.
    pub index: u32,
    /// The frame of the track that is the chunk's first.
    pub first_frame: u64,
    /// The level of the loudest cell, in dB, absolute.
    pub loudest_db: f32,
    /// [`CHUNK_CELLS`] cells in dB below the loudest one, from [`FLOOR_DB`] to 0, row-major
    /// `[MEL_BANDS][CHUNK_FRAMES]`.
    pub cells: &'a [f32],
}

impl DbChunk<'_> {
    /// Where the chunk begins, in seconds.
    #[must_use]
    pub fn start_seconds(&self) -> f64 {
        frame_seconds(self.first_frame)
    }

    /// Where the chunk ends, in seconds; beyond the end of the track if it was padded.
    #[must_use]
    pub fn end_seconds(&self) -> f64 {
        frame_seconds(self.first_frame + CHUNK_FRAMES as u64)
    }

    /// True for digital silence, or nearly: the chunk does not vote.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.loudest_db < SILENCE_DB
    }

    /// The chunk with one byte a cell.
    #[must_use]
    pub fn quantize(&self) -> MelChunk {
        MelChunk {
            index: self.index,
            start_seconds: self.start_seconds(),
            end_seconds: self.end_seconds(),
            silent: self.is_silent(),
            cells: self.cells.iter().map(|&level| quantize(level)).collect(),
        }
    }
}

/// Cuts a sequence of frames into chunks. It keeps the frames of one chunk.
pub struct Chunker {
    /// The last [`CHUNK_FRAMES`] frames; frame `i` is at `i % CHUNK_FRAMES`.
    ring: Box<[MelFrame]>,
    frames: u64,
    chunks: u32,
    cells: Box<[f32]>,
}

impl Default for Chunker {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunker {
    /// A chunker that has seen no frame.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ring: vec![[silence_db(); MEL_BANDS]; CHUNK_FRAMES].into(),
            frames: 0,
            chunks: 0,
            cells: vec![FLOOR_DB; CHUNK_CELLS].into(),
        }
    }

    /// Takes the next frame, `[MEL_BANDS]` absolute dB, and returns the chunk that it completes.
    pub fn push(&mut self, frame: &[f32; MEL_BANDS]) -> Option<DbChunk<'_>> {
        let slot = (self.frames % CHUNK_FRAMES as u64) as usize;
        if let Some(slot) = self.ring.get_mut(slot) {
            *slot = *frame;
        }
        self.frames += 1;
        let next_end = CHUNK_FRAMES as u64 + u64::from(self.chunks) * CHUNK_HOP_FRAMES as u64;
        if self.frames < next_end {
            return None;
        }
        Some(self.chunk_from(self.frames - CHUNK_FRAMES as u64))
    }

    /// Ends the sequence, and returns the chunk of its tail: padded if there was no full chunk, else anchored to the
    /// end if at least [`MIN_FRAMES`] were in no chunk yet. `None` too if there were fewer than [`MIN_FRAMES`] at all.
    pub fn finish(&mut self) -> Option<DbChunk<'_>> {
        if self.chunks == 0 {
            // The ring began as silence, which is the padding.
            return (self.frames >= MIN_FRAMES as u64).then(|| self.chunk_from(0));
        }
        let heard = CHUNK_FRAMES as u64 + u64::from(self.chunks - 1) * CHUNK_HOP_FRAMES as u64;
        (self.frames - heard >= MIN_FRAMES as u64).then(|| self.chunk_from(self.frames - CHUNK_FRAMES as u64))
    }

    /// Frames received so far.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Chunks returned so far.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Cuts a whole spectrogram, `[MEL_BANDS][frames]` row-major in absolute dB, exactly as a track would be.
    ///
    /// Levels that are relative to something need its level added first, or [`DbChunk::is_silent`] means nothing.
    /// Cells beyond the last full column are ignored.
    pub fn cut(spectrogram: &[f32], mut each: impl FnMut(DbChunk<'_>)) {
        let frames = spectrogram.len() / MEL_BANDS;
        let mut chunker = Self::new();
        let mut frame = [0.0; MEL_BANDS];
        for index in 0..frames {
            for (cell, row) in frame.iter_mut().zip(spectrogram.chunks_exact(frames)) {
                *cell = row.get(index).copied().unwrap_or(silence_db());
            }
            if let Some(chunk) = chunker.push(&frame) {
                each(chunk);
            }
        }
        if let Some(chunk) = chunker.finish() {
            each(chunk);
        }
    }

    fn chunk_from(&mut self, first_frame: u64) -> DbChunk<'_> {
        let oldest = (first_frame % CHUNK_FRAMES as u64) as usize;
        let (newer, older) = self.ring.split_at(oldest.min(self.ring.len()));
        let mut loudest = [f32::NEG_INFINITY; MEL_BANDS];
        for frame in &self.ring {
            for (loudest, level) in loudest.iter_mut().zip(frame) {
                *loudest = loudest.max(*level);
            }
        }
        let loudest_db = loudest.into_iter().fold(f32::NEG_INFINITY, f32::max);
        for (band, row) in (0..MEL_BANDS).zip(self.cells.chunks_exact_mut(CHUNK_FRAMES)) {
            let (of_older, of_newer) = row.split_at_mut(older.len());
            for (cells, frames) in [(of_older, older), (of_newer, newer)] {
                for (cell, frame) in cells.iter_mut().zip(frames) {
                    *cell = (frame[band] - loudest_db).max(FLOOR_DB);
                }
            }
        }
        let index = self.chunks;
        self.chunks += 1;
        DbChunk { index, first_frame, loudest_db, cells: &self.cells }
    }
}

/// The level of a cell without any power.
fn silence_db() -> f32 {
    10.0 * MIN_POWER.log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first frame of each chunk of `frames` frames.
    fn starts(frames: u64) -> Vec<u64> {
        let mut chunker = Chunker::new();
        let mut starts = Vec::new();
        for index in 0..frames {
            starts.extend(chunker.push(&[index as f32; MEL_BANDS]).map(|chunk| chunk.first_frame));
        }
        starts.extend(chunker.finish().map(|chunk| chunk.first_frame));
        starts
    }

    #[test]
    fn chunks_start_every_two_seconds_and_the_tail_is_heard() {
        assert!(starts(23).is_empty());
        assert_eq!(starts(24), [0]);
        assert_eq!(starts(95), [0]);
        assert_eq!(starts(96), [0]);
        assert_eq!(starts(96 + 23), [0]);
        assert_eq!(starts(96 + 24), [0, 24]);
        assert_eq!(starts(96 + 47), [0, 47]);
        assert_eq!(starts(96 + 48), [0, 48]);
        assert_eq!(starts(96 + 48 + 24), [0, 48, 72]);
        assert_eq!(starts(721), [0, 48, 96, 144, 192, 240, 288, 336, 384, 432, 480, 528, 576, 624, 625][..14]);
    }

    #[test]
    fn cells_are_in_order_and_relative_to_the_loudest() {
        let mut chunker = Chunker::new();
        for index in 0..143 {
            let mut frame = [-200.0; MEL_BANDS];
            frame[index % MEL_BANDS] = index as f32;
            chunker.push(&frame);
        }
        let chunk = chunker.push(&[-30.0; MEL_BANDS]).unwrap();
        assert_eq!((chunk.index, chunk.first_frame, chunk.loudest_db), (1, 48, 142.0));
        assert_eq!((chunk.start_seconds(), chunk.end_seconds()), (2.0, 6.0));
        assert_eq!(chunk.cells[48 * CHUNK_FRAMES], FLOOR_DB);
        assert_eq!(chunk.cells[100 * CHUNK_FRAMES + 52], 100.0 - 142.0);
        assert_eq!(chunk.cells[100 * CHUNK_FRAMES + 53], FLOOR_DB);
        assert_eq!(chunk.cells[CHUNK_FRAMES - 1], FLOOR_DB);
    }

    #[test]
    fn a_short_input_is_padded_with_silence() {
        let mut chunker = Chunker::new();
        for _ in 0..30 {
            assert!(chunker.push(&[-10.0; MEL_BANDS]).is_none());
        }
        let chunk = chunker.finish().unwrap();
        assert_eq!(chunk.end_seconds(), 4.0);
        let row = &chunk.cells[..CHUNK_FRAMES];
        assert!(row[..30].iter().all(|&cell| cell == 0.0) && row[30..].iter().all(|&cell| cell == FLOOR_DB));
        let quantized = chunk.quantize();
        assert_eq!((quantized.cells.len(), quantized.cells[29], quantized.cells[30]), (CHUNK_CELLS, 255, 0));
    }

    #[test]
    fn silence_is_told() {
        let mut chunker = Chunker::new();
        for _ in 0..95 {
            chunker.push(&[-100.0; MEL_BANDS]);
        }
        assert!(chunker.push(&[-60.1; MEL_BANDS]).unwrap().is_silent());
        for _ in 0..47 {
            chunker.push(&[-100.0; MEL_BANDS]);
        }
        assert!(!chunker.push(&[-59.9; MEL_BANDS]).unwrap().is_silent());
    }

    #[test]
    fn a_spectrogram_is_cut_like_a_track() {
        let frames = 200;
        let level = |band: usize, frame: usize| ((band * 7 + frame * 13) % 60) as f32 - 50.0;
        let matrix: Vec<f32> =
            (0..MEL_BANDS).flat_map(|band| (0..frames).map(move |frame| level(band, frame))).collect();
        let mut cut = Vec::new();
        Chunker::cut(&matrix, |chunk| cut.push(chunk.quantize()));
        let mut pushed = Vec::new();
        let mut chunker = Chunker::new();
        for frame in 0..frames {
            let column = std::array::from_fn(|band| level(band, frame));
            pushed.extend(chunker.push(&column).map(|chunk| chunk.quantize()));
        }
        pushed.extend(chunker.finish().map(|chunk| chunk.quantize()));
        assert_eq!(cut, pushed);
        assert_eq!(cut.len(), 3);
        Chunker::cut(&[], |_| panic!("no frames, no chunk"));
    }
}
