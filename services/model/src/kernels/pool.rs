//! What is left of a layer over time.

use pulp::{Simd, WithSimd};

use super::Instructions;

/// The greatest and the mean value of every channel.
pub(crate) struct Pool {
    pub(crate) greatest: Vec<f32>,
    pub(crate) mean: Vec<f32>,
}

impl Pool {
    /// Of `[frames][channels]`.
    pub(crate) fn of(instructions: Instructions, values: &[f32], channels: usize) -> Self {
        instructions.run(PoolFrames { values, channels })
    }

    /// Leaves out all but the first channels.
    pub(crate) fn truncate(&mut self, channels: usize) {
        self.greatest.truncate(channels);
        self.mean.truncate(channels);
    }
}

struct PoolFrames<'a> {
    values: &'a [f32],
    channels: usize,
}

impl WithSimd for PoolFrames<'_> {
    type Output = Pool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Pool {
        let mut pool = Pool { greatest: vec![f32::NEG_INFINITY; self.channels], mean: vec![0.0; self.channels] };
        for row in self.values.chunks_exact(self.channels) {
            for (value, (greatest, sum)) in row.iter().zip(pool.greatest.iter_mut().zip(&mut pool.mean)) {
                *greatest = if *value > *greatest { *value } else { *greatest };
                *sum += value;
            }
        }
        let frames = (self.values.len() / self.channels) as f32;
        for sum in &mut pool.mean {
            *sum /= frames;
        }
        pool
    }
}
