//! Mel frames as columns of levels.

use chorale_feature::MelFrame;
use chorale_model::contract::{FLOOR_DB, MEL_BANDS};

use crate::columns::{Columns, Merge};

/// Columns at most: more than pixels from left to right.
const MOST_COLUMNS: usize = 2_048;
/// The loudest cell of what is drawn counts as at least this loud, in dB: digital silence, at −100 dB, is then at the floor.
const LEAST_LOUDEST_DB: f32 = -100.0 - FLOOR_DB;

/// The frames of a stretch.
#[derive(Debug, Clone)]
struct Levels {
    /// Sums over frames of absolute dB.
    sums: Box<MelFrame>,
    frames: u32,
}

impl Merge for Levels {
    fn merge(&mut self, right: Self) {
        for (sum, other) in self.sums.iter_mut().zip(right.sums.iter()) {
            *sum += other;
        }
        self.frames += right.frames;
    }
}

/// A track's mel frames, as many of them in a column as it takes, by their mean level.
#[derive(Debug, Clone)]
pub(crate) struct Spectrogram(Columns<Levels>);

impl Spectrogram {
    pub(crate) fn new() -> Self {
        Self(Columns::new(MOST_COLUMNS))
    }

    /// Takes the next frame.
    pub(crate) fn push(&mut self, frame: &MelFrame) {
        let level = |level: f32| if level.is_finite() { level } else { LEAST_LOUDEST_DB + FLOOR_DB };
        self.0.push(Levels { sums: Box::new(frame.map(level)), frames: 1 });
    }

    /// Frames in a column; the last one may have fewer.
    pub(crate) fn frames_per_column(&self) -> u64 {
        self.0.width()
    }

    /// Columns.
    pub(crate) fn width(&self) -> usize {
        self.0.as_slice().len()
    }

    /// The cells, `[MEL_BANDS][width]` row-major, the highest band first: 255 is the loudest of them, and 0 is [`FLOOR_DB`]
    /// below it.
    pub(crate) fn cells(&self) -> Vec<u8> {
        let columns = self.0.as_slice();
        let level = |column: &Levels, band: usize| {
            column.sums.get(band).map_or(LEAST_LOUDEST_DB + FLOOR_DB, |sum| sum / column.frames.max(1) as f32)
        };
        let all = columns.iter().flat_map(|column| (0..MEL_BANDS).map(move |band| level(column, band)));
        let loudest = all.fold(LEAST_LOUDEST_DB, f32::max);
        let byte = |level: f32| ((level - loudest - FLOOR_DB) / -FLOOR_DB * 255.0).round() as u8;
        (0..MEL_BANDS).rev().flat_map(|band| columns.iter().map(move |column| byte(level(column, band)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spectrogram(frames: usize, level: impl Fn(usize, usize) -> f32) -> Spectrogram {
        let mut spectrogram = Spectrogram::new();
        for index in 0..frames {
            spectrogram.push(&std::array::from_fn(|band| level(index, band)));
        }
        spectrogram
    }

    #[test]
    fn cells_are_below_the_loudest_of_the_track_and_the_highest_band_comes_first() {
        let rising = spectrogram(100, |index, band| if band == 127 { index as f32 - 79.0 } else { -100.0 });
        let cells = rising.cells();
        assert_eq!(cells.len(), 100 * MEL_BANDS);
        assert_eq!((cells[99], cells[100]), (255, 0), "the last column of the highest band, the first of the next");
        assert_eq!(cells[59], 128, "40 dB below");
        assert_eq!(cells[10], 0, "89 dB below");
    }

    #[test]
    fn silence_is_at_the_floor_and_an_hour_is_as_small_as_a_minute() {
        assert!(spectrogram(240, |_, _| -100.0).cells().iter().all(|cell| *cell == 0));
        assert!(spectrogram(24, |_, _| f32::NAN).cells().iter().all(|cell| *cell == 0));
        let hour = spectrogram(24 * 3_600, |index, _| if index % 2 == 0 { 0.0 } else { -20.0 });
        assert_eq!((hour.frames_per_column(), hour.width()), (64, 1_350));
        assert!(hour.cells().iter().all(|cell| *cell == 255), "the mean of the frames is the same everywhere");
        assert!(spectrogram(0, |_, _| 0.0).cells().is_empty());
    }
}
