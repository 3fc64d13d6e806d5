//! Making more of the chunks that there are.

use chorale_model::contract::FLOOR_DB;
use rand_chacha::ChaCha8Rng;

/// A change of a chunk that does not change its genre.
pub trait Augment: Sync + Send {
    /// Changes a chunk, `[mel band][frame]`, in dB below the loudest cell.
    fn apply(&self, chunk: &mut [f32], random: &mut ChaCha8Rng);
}

/// Leaves every chunk as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAugmentation;

impl Augment for NoAugmentation {
    fn apply(&self, _chunk: &mut [f32], _random: &mut ChaCha8Rng) {}
}

/// Plays `other` on top of `chunk`: the weighted mean of their powers, in dB below its loudest cell again.
pub(crate) fn mix(chunk: &mut [f32], other: &[f32], share: f32) {
    let power = |db: f32| 10_f32.powf(db / 10.0);
    let mut loudest = f32::MIN;
    for (cell, other) in chunk.iter_mut().zip(other) {
        *cell = 10.0 * (share * power(*cell) + (1.0 - share) * power(*other)).log10();
        loudest = loudest.max(*cell);
    }
    for cell in chunk {
        *cell = (*cell - loudest).max(FLOOR_DB);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixture_is_as_loud_as_the_louder_of_both() {
        let mut chunk = [0.0, -80.0, -10.0, -80.0];
        mix(&mut chunk, &[-80.0, 0.0, -10.0, -80.0], 0.5);
        for (cell, expected) in chunk.iter().zip([0.0, 0.0, -6.99, -76.99]) {
            assert!((cell - expected).abs() < 0.01, "{chunk:?}");
        }
        let mut alone = [0.0, -80.0, -33.0];
        mix(&mut alone, &[-80.0, 0.0, 0.0], 1.0);
        assert!((alone[2] + 33.0).abs() < 1e-3 && alone[1] == -80.0, "{alone:?}");
    }
}
