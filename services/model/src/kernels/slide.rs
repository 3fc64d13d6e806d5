//! The greatest answer of filters that slide over the bands of a spectrogram.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Instructions, Scratch, load, store};

/// Filters that are computed together. Their sums, over [`VECTORS`] vectors of frames, fill the registers of AVX2.
const FILTERS: usize = 4;
/// Vectors of frames that are computed together.
const VECTORS: usize = 3;
/// Zeros before and after the frames of a row: as far as any kernel reaches.
const MARGIN: usize = 32;

/// A spectrogram with zeros beyond its ends. Where one frame in several is answered, each row is split into as many, which
/// hold the frames of one phase each.
pub(crate) struct Plane {
    frames: usize,
    step: usize,
    cells: Scratch,
}

impl Plane {
    /// A plane of the rows of `cells`, `[rows][frames]`, of which one frame in `step` is answered.
    pub(crate) fn of(cells: &[f32], frames: usize, step: usize) -> Self {
        let answered = frames / step;
        let mut plane = Scratch::new(cells.len() / frames * step * (answered + 2 * MARGIN));
        for (row, phases) in cells.chunks_exact(frames).zip(plane.chunks_exact_mut(step * (answered + 2 * MARGIN))) {
            for (phase, line) in phases.chunks_exact_mut(answered + 2 * MARGIN).enumerate() {
                let (before, others) = line.split_at_mut(MARGIN);
                let (seen, after) = others.split_at_mut(answered);
                before.fill(0.0);
                if step == 1 {
                    seen.copy_from_slice(row);
                } else {
                    for (cell, frame) in seen.iter_mut().zip(row.iter().skip(phase).step_by(step)) {
                        *cell = *frame;
                    }
                }
                after.fill(0.0);
            }
        }
        Self { frames: answered, step, cells: plane }
    }

    /// Frames that are answered.
    pub(crate) const fn frames(&self) -> usize {
        self.frames
    }

    /// What a run of taps sees in a row for `together` answers, from the answer `first` on.
    #[inline(always)]
    pub(super) fn seen(&self, row: usize, run: Run, first: usize, together: usize) -> &[f32] {
        let start = (row * self.step + run.phase) * self.width() + run.start + first;
        &self.cells[start..start + run.taps - 1 + together]
    }

    const fn width(&self) -> usize {
        self.frames + 2 * MARGIN
    }
}

/// Where the taps of a kernel are in a row of a [`Plane`].
pub(super) struct Taps {
    runs: Vec<Run>,
    order: Vec<usize>,
}

/// Taps that see neighbouring cells.
#[derive(Clone, Copy)]
pub(super) struct Run {
    phase: usize,
    /// The cell that the first tap sees for the first answer.
    start: usize,
    pub(super) taps: usize,
}

impl Taps {
    /// `taps` taps, of which `before` are before the frame itself, where one frame in `step` is answered.
    pub(super) fn new(taps: usize, before: usize, step: usize) -> Self {
        debug_assert!(before.max(taps - before) <= MARGIN * step);
        let (mut runs, mut order) = (Vec::new(), Vec::new());
        // With that many frames before it, no tap is before a row's first.
        let margin = MARGIN * step - before;
        for phase in 0..step {
            let of_phase: Vec<usize> = (0..taps).filter(|tap| (margin + tap) % step == phase).collect();
            if let Some(first) = of_phase.first() {
                runs.push(Run { phase, start: (margin + first) / step, taps: of_phase.len() });
                order.extend(of_phase);
            }
        }
        Self { runs, order }
    }

    /// Neighbouring taps.
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// All taps in the order of [`runs`](Self::runs).
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }
}

/// Filters of one shape.
pub(crate) struct Bank {
    /// Places among the rows that the filters look at.
    places: usize,
    rows: usize,
    taps: Taps,
    /// For every [`FILTERS`] filters, by row, their taps in the order of `taps`.
    kernels: Vec<Vec<[f32; FILTERS]>>,
}

impl Bank {
    /// A bank of filters whose kernels are `[taps][rows]`, of which `before` taps are before the frame itself, for planes of
    /// `plane_rows` rows and this step.
    pub(crate) fn new(
        kernels: &[Vec<f32>],
        [taps, rows]: [usize; 2],
        before: usize,
        plane_rows: usize,
        step: usize,
    ) -> Self {
        let taps = Taps::new(taps, before, step);
        let kernels = (kernels.chunks(FILTERS))
            .map(|filters| {
                let of_filters = |row: usize, tap: usize| {
                    std::array::from_fn(|index| filters.get(index).map_or(0.0, |kernel| kernel[tap * rows + row]))
                };
                let order = taps.order();
                (0..rows)
                    .flat_map(|row| order.iter().map(move |tap| (row, *tap)))
                    .map(|(row, tap)| of_filters(row, tap))
                    .collect()
            })
            .collect();
        Self { places: plane_rows + 1 - rows, rows, taps, kernels }
    }

    /// For every filter and frame, the greatest product with what the filter sees at any place: `[filters][frames]`,
    /// with filters up to a multiple of [`FILTERS`].
    pub(crate) fn greatest(&self, instructions: Instructions, plane: &Plane) -> Scratch {
        let mut greatest = Scratch::new(self.kernels.len() * FILTERS * plane.frames);
        let parts = greatest.par_chunks_exact_mut(FILTERS * plane.frames);
        self.kernels.par_iter().zip(parts).for_each(|(kernel, greatest)| {
            instructions.run(Slide { bank: self, kernel, plane, greatest });
        });
        greatest
    }
}

struct Slide<'a> {
    bank: &'a Bank,
    kernel: &'a [[f32; FILTERS]],
    plane: &'a Plane,
    /// `[FILTERS][frames]`
    greatest: &'a mut [f32],
}

impl WithSimd for Slide<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { bank, kernel, plane, greatest } = self;
        let together = VECTORS * S::F32_LANES;
        for first in (0..plane.frames).step_by(together) {
            let mut best = [[simd.splat_f32s(f32::NEG_INFINITY); VECTORS]; FILTERS];
            for place in 0..bank.places {
                let mut sums = [[simd.splat_f32s(0.0); VECTORS]; FILTERS];
                let mut kernel = kernel;
                for row in place..place + bank.rows {
                    for run in bank.taps.runs() {
                        let (taps, others) = kernel.split_at(run.taps);
                        kernel = others;
                        let seen = plane.seen(row, *run, first, together);
                        for (taps, seen) in taps.iter().zip(seen.windows(together)) {
                            let seen: [S::f32s; VECTORS] = load(simd, seen);
                            for (sums, tap) in sums.iter_mut().zip(taps) {
                                let tap = simd.splat_f32s(*tap);
                                for (sum, seen) in sums.iter_mut().zip(seen) {
                                    *sum = simd.mul_add_e_f32s(tap, seen, *sum);
                                }
                            }
                        }
                    }
                }
                for (best, sums) in best.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                    *best = simd.max_f32s(*best, *sums);
                }
            }
            for (row, best) in greatest.chunks_exact_mut(plane.frames).zip(best) {
                store::<S, VECTORS>(&mut row[first..first + together], best);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, noise};

    const ROWS: usize = 7;
    const FRAMES: usize = 96;

    /// The definition: one filter, at every `step`th frame.
    fn greatest(kernel: &[f32], [taps, rows]: [usize; 2], before: usize, cells: &[f32], step: usize) -> Vec<f32> {
        let cell = |row: usize, frame: usize| match frame.checked_sub(before) {
            Some(frame) if frame < FRAMES => cells[row * FRAMES + frame],
            _ => 0.0,
        };
        let at = |place: usize, frame: usize| -> f32 {
            let taps = (0..taps).flat_map(|tap| (0..rows).map(move |row| (tap, row)));
            taps.map(|(tap, row)| kernel[tap * rows + row] * cell(place + row, frame + tap)).sum()
        };
        let greatest = |frame| (0..=ROWS - rows).map(|place| at(place, frame)).fold(f32::NEG_INFINITY, f32::max);
        (0..FRAMES).step_by(step).map(greatest).collect()
    }

    #[test]
    fn the_greatest_answer_is_that_of_the_definition() {
        let cells = noise(ROWS * FRAMES, 1);
        for (count, shape, before) in
            [(1, [1, 1], 0), (4, [5, 3], 2), (6, [3, ROWS], 1), (9, [51, 1], 25), (2, [32, 2], 31), (3, [32, 2], 0)]
        {
            let kernels: Vec<Vec<f32>> = (0..count).map(|filter| noise(shape[0] * shape[1], filter)).collect();
            for step in [1, 2] {
                let plane = Plane::of(&cells, FRAMES, step);
                let bank = Bank::new(&kernels, shape, before, ROWS, step);
                for instructions in Instructions::all() {
                    let answers = bank.greatest(instructions, &plane);
                    for (kernel, answers) in kernels.iter().zip(answers.chunks_exact(FRAMES / step)) {
                        assert_close(answers, &greatest(kernel, shape, before, &cells, step));
                    }
                }
            }
        }
    }
}
