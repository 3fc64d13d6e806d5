//! A convolution over time of what is interpolated in time.
//!
//! Both are linear, so that the products are taken at the frame rate that is known and interpolated after it: there are
//! fewer.

use pulp::{Simd, WithSimd};

use super::{Activations, Instructions, Panels, ROWS, Scratch, load, store};

/// Channels of an answer.
const CHANNELS: usize = 64;

/// Frames at another rate.
pub(crate) struct Interpolation {
    /// Frames that are known.
    known: usize,
    /// For every frame, the known ones before and after it, and how far it lies behind the first.
    places: Vec<(usize, usize, f32)>,
}

impl Interpolation {
    /// Frames that lie behind known ones, of which there are `known`, by a share of the distance to the next.
    pub(crate) fn new(known: usize, places: &[(usize, f32)]) -> Self {
        let places = places.iter().map(|&(before, share)| (before, (before + 1).min(known - 1), share));
        Self { known, places: places.collect() }
    }

    /// Rows `[frames][channels]` between those of `known`.
    pub(crate) fn of(&self, instructions: Instructions, known: &[f32], channels: usize) -> Scratch {
        let mut rows = Scratch::new(self.places.len() * channels);
        instructions.run(Interpolate { interpolation: self, known, channels, rows: &mut rows });
        rows
    }
}

struct Interpolate<'a> {
    interpolation: &'a Interpolation,
    known: &'a [f32],
    channels: usize,
    rows: &'a mut [f32],
}

impl WithSimd for Interpolate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let row_at = |row: usize| &self.known[row * self.channels..][..self.channels];
        for (row, (before, after, share)) in self.rows.chunks_exact_mut(self.channels).zip(&self.interpolation.places) {
            for (value, (before, after)) in row.iter_mut().zip(row_at(*before).iter().zip(row_at(*after))) {
                *value = before + share * (after - before);
            }
        }
    }
}

/// A layer that looks at interpolated frames, and at a channel that is 1 in all of them.
pub(crate) struct InterpolatedConvolution {
    taps: usize,
    /// `[channels][tap, output]`
    weights: Panels,
    /// What the channel of ones adds: `[frames][output]`.
    ones: Vec<f32>,
    activations: Activations,
}

impl InterpolatedConvolution {
    /// The layer of `weight`, `[output][channels + 1][tap]`, for this many frames. It is padded with zeros to as many.
    pub(crate) fn new(weight: &[f32], channels: usize, frames: usize, activations: Activations) -> Self {
        let taps = weight.len() / (CHANNELS * (channels + 1));
        let at = |output: usize, channel: usize, tap: usize| weight[(output * (channels + 1) + channel) * taps + tap];
        let columns =
            |channel: usize| (0..taps).flat_map(move |tap| (0..CHANNELS).map(move |output| at(output, channel, tap)));
        let cells: Vec<f32> = (0..channels).flat_map(columns).collect();
        let ones = (0..frames).flat_map(|frame| {
            let inside = inside(frame, taps, frames);
            (0..CHANNELS).map(move |output| inside.clone().map(|(tap, _)| at(output, channels, tap)).sum())
        });
        Self { taps, weights: Panels::new(&cells, taps * CHANNELS), ones: ones.collect(), activations }
    }

    /// The activated answer `[frames][output]` to known frames, `[known][channels]` with rows up to a multiple of [`ROWS`].
    pub(crate) fn forward(&self, instructions: Instructions, interpolation: &Interpolation, known: &[f32]) -> Scratch {
        let rows = interpolation.known.next_multiple_of(ROWS);
        let mut products = Scratch::new(rows * self.weights.columns());
        self.weights.product(instructions, known, known.len() / rows, &mut products);
        let mut answers = Scratch::new(self.ones.len());
        instructions.run(Convolve { layer: self, interpolation, products: &products, answers: &mut answers });
        answers
    }
}

/// The taps that see a frame of `frames` ones, and the frame that each sees.
#[inline(always)]
fn inside(frame: usize, taps: usize, frames: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let before = (taps - 1) / 2;
    (before.saturating_sub(frame)..taps.min(frames + before - frame)).map(move |tap| (tap, frame + tap - before))
}

struct Convolve<'a> {
    layer: &'a InterpolatedConvolution,
    interpolation: &'a Interpolation,
    /// `[known][tap, output]`
    products: &'a [f32],
    answers: &'a mut [f32],
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { layer, interpolation, products, answers } = self;
        let (columns, frames) = (layer.weights.columns(), interpolation.places.len());
        for (frame, (answer, ones)) in
            answers.chunks_exact_mut(CHANNELS).zip(layer.ones.chunks_exact(CHANNELS)).enumerate()
        {
            for first in (0..CHANNELS).step_by(S::F32_LANES) {
                let [mut sum] = load(simd, &ones[first..]);
                for (tap, seen) in inside(frame, layer.taps, frames) {
                    let (before, after, share) = interpolation.places[seen];
                    let [before, after] = [before, after].map(|row| {
                        let start = row * columns + tap * CHANNELS + first;
                        let [product] = load(simd, &products[start..start + S::F32_LANES]);
                        product
                    });
                    let way = simd.sub_f32s(after, before);
                    sum = simd.add_f32s(sum, simd.mul_add_e_f32s(simd.splat_f32s(share), way, before));
                }
                let activated = layer.activations.of(simd, first, sum);
                store::<S, 1>(&mut answer[first..], [activated]);
            }
        }
    }
}
