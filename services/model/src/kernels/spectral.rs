//! The greatest answer of filters that slide over the bands of a spectrogram and span many of them, by way of Fourier
//! transforms over the bands: a sixth of the multiplications.
//!
//! What a filter answers at every place is a correlation over bands, and so a product of transforms. With as many points as
//! there are bands it is a circular one, which is right wherever the filter lies within the bands. A transform is computed
//! for many frames side by side, a frame a lane.

use std::f64::consts::TAU;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Bank, Instructions, Plane, Scratch, load, slide::Taps, store};

/// Bands, and points of a transform. The radices of [`greatest_of_inverse`] are for this number.
const POINTS: usize = 96;
/// Points of the complex transform that does the work of a real one.
const HALF: usize = POINTS / 2;
/// Coefficients of the transform of real numbers: the others are conjugates.
const COEFFICIENTS: usize = HALF + 1;
/// Filters that are computed together.
const FILTERS: usize = 2;

/// Filters of one shape, for spectrograms of [`POINTS`] bands.
pub(crate) struct SpectralBank {
    places: usize,
    /// Where the taps are in a row of the spectrum.
    taps: Taps,
    /// For every [`FILTERS`] filters, by coefficient and tap: the transform of every kernel, real and imaginary.
    kernels: Vec<Vec<[[f32; 2]; FILTERS]>>,
    turns: Box<Turns<f32>>,
}

/// `exp(2πi · index / POINTS)`, real and imaginary.
type Turns<T> = [[T; 2]; POINTS];

fn turns() -> Turns<f64> {
    std::array::from_fn(|index| {
        let (sine, cosine) = (TAU * index as f64 / POINTS as f64).sin_cos();
        [cosine, sine]
    })
}

/// Transforms over the bands of a spectrogram, for every frame.
pub(crate) struct Spectrum {
    transform: Bank,
    step: usize,
}

impl Spectrum {
    /// Transforms for banks that answer to one frame in `step`.
    pub(crate) fn new(step: usize) -> Self {
        let turns = turns();
        let rows = (0..COEFFICIENTS).flat_map(|coefficient| {
            let turn = |band: usize| turns[coefficient * band % POINTS];
            let real = (0..POINTS).map(|band| turn(band)[0] as f32).collect();
            let imaginary = (0..POINTS).map(|band| -turn(band)[1] as f32).collect();
            [real, imaginary]
        });
        let rows: Vec<Vec<f32>> = rows.collect();
        Self { transform: Bank::new(&rows, [1, POINTS], 0, POINTS, 1), step }
    }

    /// The transforms of `bands`, [`POINTS`] rows: rows are the real and imaginary parts of every coefficient.
    pub(crate) fn of(&self, instructions: Instructions, bands: &Plane) -> Plane {
        let frames = bands.frames();
        // Of a filter that has one place only, the greatest answer is the answer.
        let rows = self.transform.greatest(instructions, bands);
        Plane::of(&rows[..2 * COEFFICIENTS * frames], frames, self.step)
    }
}

impl SpectralBank {
    /// A bank of filters whose kernels are `[taps][rows]`, of which `before` taps are before the frame itself.
    pub(crate) fn new(kernels: &[Vec<f32>], [taps, rows]: [usize; 2], before: usize, step: usize) -> Self {
        let taps = Taps::new(taps, before, step);
        let turns = turns();
        let transform = |kernel: &[f32], tap: usize, coefficient: usize| {
            let bands = kernel[tap * rows..][..rows].iter().enumerate();
            let sum = bands.fold([0.0; 2], |[real, imaginary], (band, value)| {
                let [cosine, sine] = turns[coefficient * band % POINTS];
                [real + f64::from(*value) * cosine, imaginary + f64::from(*value) * sine]
            });
            sum.map(|part| (part / POINTS as f64) as f32)
        };
        let kernels = kernels.chunks(FILTERS).map(|filters| {
            let of_filters = |coefficient: usize, tap: usize| {
                std::array::from_fn(|index| {
                    filters.get(index).map_or([0.0; 2], |kernel| transform(kernel, tap, coefficient))
                })
            };
            let order = taps.order();
            (0..COEFFICIENTS)
                .flat_map(|coefficient| order.iter().map(move |tap| (coefficient, *tap)))
                .map(|(coefficient, tap)| of_filters(coefficient, tap))
                .collect()
        });
        let turns = Box::new(turns.map(|turn| turn.map(|part| part as f32)));
        Self { places: POINTS + 1 - rows, kernels: kernels.collect(), taps, turns }
    }

    /// For every filter and frame, the greatest product with what the filter sees at any place: `[filters][frames]`,
    /// with filters up to a multiple of [`FILTERS`].
    pub(crate) fn greatest(&self, instructions: Instructions, spectrum: &Plane) -> Scratch {
        let mut greatest = Scratch::new(self.kernels.len() * FILTERS * spectrum.frames());
        let parts = greatest.par_chunks_exact_mut(FILTERS * spectrum.frames());
        self.kernels.par_iter().zip(parts).for_each(|(kernel, greatest)| {
            instructions.run(Correlate { bank: self, kernel, spectrum, greatest });
        });
        greatest
    }
}

struct Correlate<'a> {
    bank: &'a SpectralBank,
    kernel: &'a [[[f32; 2]; FILTERS]],
    spectrum: &'a Plane,
    /// `[FILTERS][frames]`
    greatest: &'a mut [f32],
}

/// A complex number in every lane.
type Complex<S> = [<S as Simd>::f32s; 2];

impl WithSimd for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { bank, kernel, spectrum, greatest } = self;
        let frames = spectrum.frames();
        let zero = [simd.splat_f32s(0.0); 2];
        let (mut products, mut spare) = ([[zero; COEFFICIENTS]; FILTERS], [[zero; HALF]; 2]);
        for first in (0..frames).step_by(S::F32_LANES) {
            let kernels = kernel.chunks_exact(bank.taps.order().len());
            for (coefficient, kernel) in kernels.take(COEFFICIENTS).enumerate() {
                let mut sums = [zero; FILTERS];
                let mut kernel = kernel;
                for run in bank.taps.runs() {
                    let (taps, others) = kernel.split_at(run.taps);
                    kernel = others;
                    let part = |part| spectrum.seen(2 * coefficient + part, *run, first, S::F32_LANES);
                    let (real, imaginary) = (part(0).windows(S::F32_LANES), part(1).windows(S::F32_LANES));
                    for (kernels, (real, imaginary)) in taps.iter().zip(real.zip(imaginary)) {
                        let ([real], [imaginary]) = (load(simd, real), load(simd, imaginary));
                        for (sum, kernel) in sums.iter_mut().zip(kernels) {
                            let [kernel_real, kernel_imaginary] = kernel.map(|part| simd.splat_f32s(part));
                            sum[0] = simd.mul_add_e_f32s(kernel_real, real, sum[0]);
                            sum[1] = simd.mul_add_e_f32s(kernel_real, imaginary, sum[1]);
                            sum[0] = simd.negate_mul_add_e_f32s(kernel_imaginary, imaginary, sum[0]);
                            sum[1] = simd.mul_add_e_f32s(kernel_imaginary, real, sum[1]);
                        }
                    }
                }
                for (products, sum) in products.iter_mut().zip(sums) {
                    products[coefficient] = sum;
                }
            }
            for (row, products) in greatest.chunks_exact_mut(frames).zip(&products) {
                let best = greatest_of_inverse(simd, products, bank.places, &bank.turns, &mut spare);
                store::<S, 1>(&mut row[first..first + S::F32_LANES], [best]);
            }
        }
    }
}

/// The greatest of the first `places` values whose transform is `coefficients`.
///
/// The values are real, so half as many complex ones hold them: those of even index in the real part, the others in the
/// imaginary one.
#[inline(always)]
fn greatest_of_inverse<S: Simd>(
    simd: S,
    coefficients: &[Complex<S>; COEFFICIENTS],
    places: usize,
    turns: &Turns<f32>,
    [values, others]: &mut [[Complex<S>; HALF]; 2],
) -> S::f32s {
    pack(simd, coefficients, values, turns);
    pass4::<S, 1>(simd, values, others, turns);
    pass4::<S, 4>(simd, others, values, turns);
    let mut greatest = simd.splat_f32s(f32::NEG_INFINITY);
    let mut meet = |index: usize, [even, odd]: Complex<S>| {
        if 2 * index < places {
            greatest = simd.max_f32s(greatest, even);
        }
        if 2 * index + 1 < places {
            greatest = simd.max_f32s(greatest, odd);
        }
    };
    const THIRD: usize = HALF / 3;
    for index in 0..THIRD {
        let [a, b, c] = [values[index], values[index + THIRD], values[index + 2 * THIRD]];
        let sum = add(simd, b, c);
        meet(index, add(simd, a, sum));
        if 2 * (index + THIRD) < places {
            let middle = [0, 1].map(|part| simd.mul_add_e_f32s(simd.splat_f32s(-0.5), sum[part], a[part]));
            let [real, imaginary] = sub(simd, b, c);
            let height = simd.splat_f32s(0.75_f32.sqrt());
            let turned = [simd.mul_f32s(simd.splat_f32s(-(0.75_f32.sqrt())), imaginary), simd.mul_f32s(height, real)];
            meet(index + THIRD, add(simd, middle, turned));
            meet(index + 2 * THIRD, sub(simd, middle, turned));
        }
    }
    greatest
}

/// From the transform of real values to that of the complex ones that hold them.
#[inline(always)]
fn pack<S: Simd>(
    simd: S,
    coefficients: &[Complex<S>; COEFFICIENTS],
    values: &mut [Complex<S>; HALF],
    turns: &Turns<f32>,
) {
    let (first, last) = (coefficients[0][0], coefficients[HALF][0]);
    values[0] = [simd.add_f32s(first, last), simd.sub_f32s(first, last)];
    for index in 1..=HALF / 2 {
        let ([a, b], [c, d]) = (coefficients[index], coefficients[HALF - index]);
        let sum = [simd.add_f32s(a, c), simd.sub_f32s(b, d)];
        let difference = [simd.sub_f32s(a, c), simd.add_f32s(b, d)];
        let [real, imaginary] = turn(simd, difference, turns[index]);
        values[index] = [simd.sub_f32s(sum[0], imaginary), simd.add_f32s(sum[1], real)];
        values[HALF - index] = [simd.add_f32s(sum[0], imaginary), simd.sub_f32s(real, sum[1])];
    }
}

/// A pass of the transform after Stockham, in fours, over `DONE` interleaved transforms of `HALF / DONE` points.
#[inline(always)]
fn pass4<S: Simd, const DONE: usize>(
    simd: S,
    from: &[Complex<S>; HALF],
    to: &mut [Complex<S>; HALF],
    turns: &Turns<f32>,
) {
    let quarter = HALF / 4;
    for point in 0..quarter / DONE {
        // A turn of a transform of HALF / DONE points is that many of ours.
        let step = point * DONE * POINTS / HALF;
        for lane in 0..DONE {
            let at = |part: usize| from[lane + DONE * point + part * quarter];
            let (even, odd) = (add(simd, at(0), at(2)), add(simd, at(1), at(3)));
            let (even_rest, odd_rest) = (sub(simd, at(0), at(2)), sub(simd, at(1), at(3)));
            let turned = [simd.neg_f32s(odd_rest[1]), odd_rest[0]];
            let answers = [
                add(simd, even, odd),
                add(simd, even_rest, turned),
                sub(simd, even, odd),
                sub(simd, even_rest, turned),
            ];
            for (part, answer) in answers.into_iter().enumerate() {
                let answer = if step * part == 0 { answer } else { turn(simd, answer, turns[step * part]) };
                to[lane + DONE * (4 * point + part)] = answer;
            }
        }
    }
}

#[inline(always)]
fn add<S: Simd>(simd: S, left: Complex<S>, right: Complex<S>) -> Complex<S> {
    [simd.add_f32s(left[0], right[0]), simd.add_f32s(left[1], right[1])]
}

#[inline(always)]
fn sub<S: Simd>(simd: S, left: Complex<S>, right: Complex<S>) -> Complex<S> {
    [simd.sub_f32s(left[0], right[0]), simd.sub_f32s(left[1], right[1])]
}

/// The product with a number of length one.
#[inline(always)]
fn turn<S: Simd>(simd: S, [real, imaginary]: Complex<S>, [cosine, sine]: [f32; 2]) -> Complex<S> {
    let (cosine, sine) = (simd.splat_f32s(cosine), simd.splat_f32s(sine));
    [
        simd.negate_mul_add_e_f32s(sine, imaginary, simd.mul_f32s(cosine, real)),
        simd.mul_add_e_f32s(sine, real, simd.mul_f32s(cosine, imaginary)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, noise};

    #[test]
    fn the_greatest_answer_is_that_of_sliding() {
        const FRAMES: usize = 96;
        let cells = noise(POINTS * FRAMES, 1);
        let plane = |step| Plane::of(&cells, FRAMES, step);
        for (count, shape, before) in
            [(3, [5, 38], 2), (2, [3, 67], 1), (1, [1, 1], 0), (4, [2, 95], 1), (1, [1, 96], 0)]
        {
            let kernels: Vec<Vec<f32>> = (0..count).map(|filter| noise(shape[0] * shape[1], filter)).collect();
            for step in [1, 2] {
                let sliding = Bank::new(&kernels, shape, before, POINTS, step);
                let (bank, spectrum) = (SpectralBank::new(&kernels, shape, before, step), Spectrum::new(step));
                let frames = FRAMES / step;
                for instructions in Instructions::all() {
                    let expected = sliding.greatest(instructions, &plane(step));
                    let answers = bank.greatest(instructions, &spectrum.of(instructions, &plane(1)));
                    assert_close(&answers[..count * frames], &expected[..count * frames]);
                }
            }
        }
    }
}
