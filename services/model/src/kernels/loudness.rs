//! What the front end hears of a chunk: MusiCNN's bands, as `log10(1 + 10⁴ · power)`, normalised.

use std::f32::consts::{LN_10, LOG2_E};

use pulp::{Simd, WithSimd};

use super::Instructions;

/// `log10(1 + 10⁴ · power) · scale + shift`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loudness {
    pub(crate) scale: f32,
    pub(crate) shift: f32,
}

impl Loudness {
    /// Turns decibels into loudness.
    pub(crate) fn of_decibels(self, instructions: Instructions, values: &mut [f32]) {
        instructions.run(Hear(self, values));
    }
}

struct Hear<'a>(Loudness, &'a mut [f32]);

impl WithSimd for Hear<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self(loudness, values) = self;
        for value in values {
            // 10⁴ is 40 dB.
            let exponent = (*value + 40.0) * (LN_10 / 10.0);
            *value = softplus(exponent) * (loudness.scale / LN_10) + loudness.shift;
        }
    }
}

/// `ln(1 + exp(x))`, to 3 in 10⁷, without a call, so that the compiler finds vectors.
#[inline(always)]
fn softplus(x: f32) -> f32 {
    let power = exp(-x.abs());
    x.max(0.0) + ln_1p(power)
}

/// `exp(x)` of what is not greater than zero.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Added to a number under 2²², it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let exponent = (x * LOG2_E).max(-126.0);
    let rounded = exponent + ROUND;
    let rest = (exponent - (rounded - ROUND)) * std::f32::consts::LN_2;
    // The series, as the rest is between −0.35 and 0.35.
    let series = 1.0
        + rest
            * (1.0
                + rest * (1.0 / 2.0 + rest * (1.0 / 6.0 + rest * (1.0 / 24.0 + rest * (1.0 / 120.0 + rest / 720.0)))));
    let whole = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    series * f32::from_bits(whole)
}

/// `ln(1 + x)` of what is between zero and one: twice the inverse hyperbolic tangent of `x / (2 + x)`.
#[inline(always)]
fn ln_1p(x: f32) -> f32 {
    let ratio = x / (2.0 + x);
    let square = ratio * ratio;
    let series = 1.0
        + square
            * (1.0 / 3.0
                + square
                    * (1.0 / 5.0
                        + square * (1.0 / 7.0 + square * (1.0 / 9.0 + square * (1.0 / 11.0 + square / 13.0)))));
    2.0 * ratio * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loudness_is_that_of_its_definition() {
        let decibels: Vec<f32> = (0..=2_000).map(|step| step as f32 * 0.1 - 150.0).collect();
        for instructions in Instructions::all() {
            let mut heard = decibels.clone();
            Loudness { scale: 1.5, shift: -0.25 }.of_decibels(instructions, &mut heard);
            for (decibels, heard) in decibels.iter().zip(heard) {
                let power = 10_f64.powf(f64::from(*decibels) / 10.0);
                let expected = (1e4 * power).ln_1p() / std::f64::consts::LN_10 * 1.5 - 0.25;
                assert!(
                    (f64::from(heard) - expected).abs() < 1e-6 * expected.abs().max(1.0),
                    "{decibels} dB: {heard} {expected}"
                );
            }
        }
    }
}
