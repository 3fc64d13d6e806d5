//! Chance that can be met again: every decision has a source of its own, from the seed and the decision's place.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The source of chance of step `index` of one `purpose`. Training needs no other state of chance, so that a run can go on
/// from a checkpoint, and is the same on any number of threads.
pub(crate) fn source(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new_derive_key("chorale training chance");
    hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes()).update(purpose.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn every_place_has_its_own_chance() {
        let first = |seed, purpose, index| source(seed, purpose, index).next_u64();
        assert_eq!(first(1, "order", 2), first(1, "order", 2));
        for other in [first(2, "order", 2), first(1, "dropout", 2), first(1, "order", 3)] {
            assert_ne!(other, first(1, "order", 2));
        }
    }
}
