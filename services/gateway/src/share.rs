//! Which of several weighted choices a digest falls to, always the same.
//!
//! Weighted rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998, with the
//! logarithmic weights of Schindelhauer and Schomaker, 2005): each choice draws a number from 0 to 1 for the digest, and the
//! greatest `-weight / ln(number)` wins. A choice wins as often as its share of the weights says, and when a weight grows or
//! shrinks, digests move only to it or away from it.

/// The score of the choice `name` with this `weight` for `digest`; the greatest wins. Nothing for a weight of 0.
pub(crate) fn score(digest: &blake3::Hash, name: &str, weight: u32) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key("chorale.v1 model share");
    hasher.update(digest.as_bytes()).update(name.as_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    // 53 bits in the middle of their steps: neither 0 nor 1.
    let drawn = ((u64::from_le_bytes(first) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / drawn.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGESTS: u32 = 20_000;

    fn digest(index: u32) -> blake3::Hash {
        blake3::hash(&index.to_le_bytes())
    }

    /// The winner for each of many digests.
    fn winners<'a>(choices: &[(&'a str, u32)]) -> Vec<&'a str> {
        let winner = |index| {
            let score = |&(name, weight): &(&str, u32)| score(&digest(index), name, weight);
            choices.iter().max_by(|one, other| score(one).total_cmp(&score(other))).unwrap().0
        };
        (0..DIGESTS).map(winner).collect()
    }

    fn share(winners: &[&str], name: &str) -> f64 {
        winners.iter().filter(|winner| **winner == name).count() as f64 / winners.len() as f64
    }

    #[test]
    fn each_has_its_share_whatever_the_order() {
        let found = winners(&[("a", 95), ("b", 5)]);
        // Five standard deviations of 20,000 draws.
        assert!((share(&found, "b") - 0.05).abs() < 0.008, "{}", share(&found, "b"));
        assert_eq!(found, winners(&[("b", 5), ("a", 95)]));
        assert_eq!(found, winners(&[("a", 950), ("b", 50)]), "only the ratio counts");
        let three = winners(&[("a", 1), ("b", 1), ("c", 2)]);
        for (name, expected) in [("a", 0.25), ("b", 0.25), ("c", 0.5)] {
            assert!((share(&three, name) - expected).abs() < 0.018, "{name}: {}", share(&three, name));
        }
        assert_eq!(share(&winners(&[("a", 1), ("b", 0)]), "b"), 0.0);
    }

    #[test]
    fn a_weight_that_grows_only_draws_digests_to_it() {
        let (before, after) = (winners(&[("a", 95), ("b", 5), ("c", 10)]), winners(&[("a", 95), ("b", 20), ("c", 10)]));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| **after == "b"));
        let expected = share(&after, "b") - share(&before, "b");
        assert!((moved.len() as f64 / f64::from(DIGESTS) - expected).abs() < 1e-9, "no digest moves for nothing");
    }

    #[test]
    fn a_version_that_leaves_leaves_those_of_the_others_alone() {
        let (before, after) = (winners(&[("a", 3), ("b", 1), ("c", 2)]), winners(&[("a", 3), ("b", 1)]));
        assert!(before.iter().zip(&after).all(|(before, after)| *before == "c" || before == after));
    }
}
