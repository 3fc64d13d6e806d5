//! What follows a convolution: bias, ReLU, and the normalisation after it.

use super::Instructions;

/// `max(0, x · sign + bias) · scale + shift`, of one channel or of every column.
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
    pub(crate) fn row(self, instructions: Instructions, values: &mut [f32]) {
        instructions.run(
            #[inline(always)]
            || {
                for value in values {
                    *value = self.of(*value);
                }
            },
        );
    }
}
