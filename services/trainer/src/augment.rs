//! Making more of the chunks that there are.

use chorale_model::contract::{CHUNK_FRAMES, CHUNK_HOP_FRAMES, FLOOR_DB};
use rand_chacha::ChaCha8Rng;

/// Cells this little above the floor may have been cut off by it.
const FLOOR_MARGIN_DB: f32 = 5.0;
/// Two chunks of one track differ by a level in the half that both have, but for rounding to bytes, twice.
const SHARED_SPREAD_DB: f32 = 1.0;

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

/// Moves a chunk on in its track by `frames` frames, with what comes then from the `next` one, whose first half is its
/// second. A chunk is relative to its own loudest cell: the difference in level is that of the half that both have. Where
/// there is no such half (the last chunk of a track is anchored to the end), nothing is moved.
pub(crate) fn move_on(chunk: &mut [f32], next: &[f32], frames: usize) {
    let rows = chunk.chunks_exact(CHUNK_FRAMES).zip(next.chunks_exact(CHUNK_FRAMES));
    let shared = rows.flat_map(|(row, next)| row.iter().skip(CHUNK_HOP_FRAMES).zip(next));
    let audible = |cell: f32| cell > FLOOR_DB + FLOOR_MARGIN_DB;
    let differences: Vec<f32> =
        shared.filter(|(cell, next)| audible(**cell) && audible(**next)).map(|(cell, next)| cell - next).collect();
    let level = differences.iter().sum::<f32>() / differences.len() as f32;
    let spread = differences.iter().map(|difference| (difference - level).abs()).fold(0.0, f32::max);
    if differences.is_empty() || spread > SHARED_SPREAD_DB {
        return;
    }
    for (row, next) in chunk.chunks_exact_mut(CHUNK_FRAMES).zip(next.chunks_exact(CHUNK_FRAMES)) {
        row.rotate_left(frames);
        let new = next.iter().skip(CHUNK_HOP_FRAMES);
        row.iter_mut().skip(CHUNK_FRAMES - frames).zip(new).for_each(|(cell, new)| *cell = new + level);
    }
    normalize(chunk);
}

/// Makes the loudest cell 0 dB again, and none quieter than the floor.
pub(crate) fn normalize(chunk: &mut [f32]) {
    let loudest = chunk.iter().copied().fold(f32::MIN, f32::max);
    chunk.iter_mut().for_each(|cell| *cell = (*cell - loudest).max(FLOOR_DB));
}

#[cfg(test)]
mod tests {
    use super::*;
    use chorale_model::contract::{CHUNK_CELLS, dequantize, quantize};

    #[test]
    fn a_chunk_moves_on_into_the_next_one() {
        let track = |band: usize, frame: usize| -(((band * 13 + frame * 29) % 61) as f32) - (frame / 40) as f32 * 3.0;
        let cut = |first: usize| {
            let cell = |cell: usize| track(cell / CHUNK_FRAMES, first + cell % CHUNK_FRAMES);
            let mut cells: Vec<f32> = (0..CHUNK_CELLS).map(cell).collect();
            normalize(&mut cells);
            cells.iter().map(|cell| dequantize(quantize(*cell))).collect::<Vec<f32>>()
        };
        for frames in [0, 1, 17, 47] {
            let mut chunk = cut(0);
            move_on(&mut chunk, &cut(CHUNK_HOP_FRAMES), frames);
            for (found, expected) in chunk.iter().zip(cut(frames)) {
                assert!((found - expected).abs() < 0.7, "{frames}: {found} {expected}");
            }
        }
        let (mut chunk, other) = (cut(0), cut(7));
        move_on(&mut chunk, &other, 20);
        assert_eq!(chunk, cut(0), "the next chunk does not go on where this one ends");
    }

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
