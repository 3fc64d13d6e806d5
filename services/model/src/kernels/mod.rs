//! The network's inner loops on the CPU, for the widest vector instructions that the machine has.
//!
//! candle is the reference that they are tested against. They are quicker because what lies between two layers stays in
//! registers or the first cache: no input is unfolded, and of all the places that a filter looks at, only the greatest
//! answer is ever written.

mod activation;
mod interpolation;
mod loudness;
mod pool;
mod product;
mod scratch;
mod slide;
mod spectral;
mod tiled;

use pulp::{Arch, Scalar128b, Simd, WithSimd};

pub(crate) use self::{
    activation::{Activation, Activations},
    interpolation::Interpolation,
    loudness::Loudness,
    pool::Pool,
    product::{Panels, ROWS, dots},
    scratch::Scratch,
    slide::{Bank, Plane},
    spectral::{SpectralBank, Spectrum},
    tiled::{Added, TimeConvolution},
};

/// Which vector instructions to use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instructions(Arch);

impl Instructions {
    /// The widest that this machine has.
    pub(crate) fn detect() -> Self {
        Self(Arch::new())
    }

    /// All that this machine has, from those that every machine has on.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self(Arch::Scalar), Self::detect()];
        #[cfg(target_arch = "x86_64")]
        all.extend(pulp::x86::V3::try_new().map(|avx2| Self(Arch::V3(avx2))));
        all
    }

    /// Runs an operation, compiled for these instructions.
    fn run<Operation: WithSimd>(self, operation: Operation) -> Operation::Output {
        match self.0 {
            // pulp's own choice would be one lane; the compiler makes vectors of four.
            Arch::Scalar => operation.with_simd(Scalar128b),
            arch => arch.dispatch(operation),
        }
    }
}

/// The first `COUNT` vectors of `values`, which holds no fewer.
#[inline(always)]
fn load<S: Simd, const COUNT: usize>(simd: S, values: &[f32]) -> [S::f32s; COUNT] {
    let vectors = S::as_simd_f32s(values).0;
    std::array::from_fn(|index| vectors.get(index).copied().unwrap_or(simd.splat_f32s(0.0)))
}

/// Writes vectors to the front of `values`, which has room for them.
#[inline(always)]
fn store<S: Simd, const COUNT: usize>(values: &mut [f32], vectors: [S::f32s; COUNT]) {
    for (to, from) in S::as_mut_simd_f32s(values).0.iter_mut().zip(vectors) {
        *to = from;
    }
}

#[cfg(test)]
mod tests {
    /// Numbers that look like noise, between −1 and 1.
    pub(super) fn noise(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 7_919 + seed * 104_729) % 2_003) as f32 / 1_001.5 - 1.0).collect()
    }

    pub(super) fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{index}: {found} {expected}");
        }
    }
}
