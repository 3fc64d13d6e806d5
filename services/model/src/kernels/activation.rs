//! What follows a convolution: bias, ReLU, and the normalisation after it.

use pulp::{Simd, WithSimd};

use super::{Instructions, load};

/// `max(0, x · sign + bias) · scale + shift`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Activation {
    /// −1 where the kernel was turned over, else 1.
    pub(crate) sign: f32,
    pub(crate) bias: f32,
    pub(crate) scale: f32,
    pub(crate) shift: f32,
}

impl Activation {
    /// The activation of one value.
    #[inline(always)]
    pub(crate) fn of(self, value: f32) -> f32 {
        (value * self.sign + self.bias).max(0.0) * self.scale + self.shift
    }

    /// Activates every value of a row.
    pub(crate) fn row(self, instructions: Instructions, row: &mut [f32]) {
        instructions.run(ActivateRow(self, row));
    }
}

struct ActivateRow<'a>(Activation, &'a mut [f32]);

impl WithSimd for ActivateRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for value in self.1 {
            *value = self.0.of(*value);
        }
    }
}

/// The activations of the channels of a layer, whose signs are all 1.
pub(crate) struct Activations {
    pub(crate) bias: Vec<f32>,
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

impl Activations {
    /// The activations of neighbouring channels, from `first` on.
    #[inline(always)]
    pub(super) fn of<S: Simd>(&self, simd: S, first: usize, values: S::f32s) -> S::f32s {
        let [bias] = load(simd, &self.bias[first..]);
        let [scale] = load(simd, &self.scale[first..]);
        let [shift] = load(simd, &self.shift[first..]);
        let rectified = simd.max_f32s(simd.add_f32s(values, bias), simd.splat_f32s(0.0));
        simd.mul_add_e_f32s(rectified, scale, shift)
    }
}
