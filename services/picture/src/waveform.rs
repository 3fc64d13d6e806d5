//! What the eye sees of samples: their range, and how loud they are.

use crate::columns::{Columns, Merge};

/// Columns at most: more than pixels from left to right.
const MOST_COLUMNS: usize = 4_096;

/// The samples of a stretch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extent {
    /// The lowest sample; full scale is ±1.
    pub(crate) lowest: f32,
    /// The highest sample.
    pub(crate) highest: f32,
    sum_of_squares: f64,
    samples: u64,
}

impl Extent {
    /// Of no samples, or of silence.
    fn silent(samples: u64) -> Self {
        Self { lowest: 0.0, highest: 0.0, sum_of_squares: 0.0, samples }
    }

    fn of(samples: &[f32]) -> Self {
        // Samples that are no numbers are none: a file may hold anything.
        let finite = || samples.iter().copied().filter(|sample| sample.is_finite());
        let (lowest, highest) = (finite().reduce(f32::min), finite().reduce(f32::max));
        let (Some(lowest), Some(highest)) = (lowest, highest) else { return Self::silent(samples.len() as u64) };
        let sum_of_squares = finite().map(|sample| f64::from(sample).powi(2)).sum();
        Self { lowest, highest, sum_of_squares, samples: samples.len() as u64 }
    }

    /// The root mean square.
    pub(crate) fn loudness(&self) -> f64 {
        (self.sum_of_squares / self.samples.max(1) as f64).sqrt()
    }
}

impl Merge for Extent {
    fn merge(&mut self, right: Self) {
        self.lowest = self.lowest.min(right.lowest);
        self.highest = self.highest.max(right.highest);
        self.sum_of_squares += right.sum_of_squares;
        self.samples += right.samples;
    }
}

/// A signal as columns of samples.
#[derive(Debug, Clone)]
pub(crate) struct Waveform(Columns<Extent>);

impl Waveform {
    pub(crate) fn new() -> Self {
        Self(Columns::new(MOST_COLUMNS))
    }

    /// Takes the next samples.
    pub(crate) fn push(&mut self, mut samples: &[f32]) {
        while !samples.is_empty() {
            let room = usize::try_from(self.0.room()).unwrap_or(usize::MAX);
            let (now, later) = samples.split_at(room.min(samples.len()));
            self.0.push_some(now.len() as u64, Extent::of(now));
            samples = later;
        }
    }

    /// Samples in a column.
    pub(crate) fn samples_per_column(&self) -> u64 {
        self.0.width()
    }

    /// The columns, from left to right.
    pub(crate) fn columns(&self) -> &[Extent] {
        self.0.as_slice()
    }

    /// The greatest distance from zero.
    pub(crate) fn peak(&self) -> f64 {
        self.columns().iter().fold(0.0, |peak, extent| peak.max(f64::from(extent.highest.max(-extent.lowest))))
    }
}

/// `columns` as at most `most` wider ones of equal width.
pub(crate) fn fewer(columns: &[Extent], most: usize) -> (usize, Vec<Extent>) {
    let together = columns.len().div_ceil(most.max(1)).max(1);
    let merged = columns.chunks(together).filter_map(|group| {
        let (first, others) = group.split_first()?;
        let mut merged = *first;
        others.iter().for_each(|extent| merged.merge(*extent));
        Some(merged)
    });
    (together, merged.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_and_loudness_are_kept_however_long_it_is() {
        let mut waveform = Waveform::new();
        for _ in 0..1_000 {
            waveform.push(&[0.5, -0.25].repeat(500));
        }
        assert!(waveform.columns().len() <= MOST_COLUMNS && waveform.samples_per_column() == 256);
        for extent in waveform.columns() {
            assert_eq!((extent.lowest, extent.highest), (-0.25, 0.5));
            assert!((extent.loudness() - 0.395_28).abs() < 1e-4);
        }
        assert_eq!(waveform.peak(), 0.5);
        let (together, merged) = fewer(waveform.columns(), 100);
        assert_eq!((together, merged.len()), (40, 98));
    }

    #[test]
    fn what_is_no_number_is_silent() {
        let mut waveform = Waveform::new();
        waveform.push(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(waveform.peak(), 0.0);
        waveform.push(&[f32::NAN, 0.5]);
        assert_eq!(waveform.peak(), 0.5);
    }
}
