//! Whether a verdict makes sense, and whether two are the same.

use chorale_proto::v1::Verdict;

use crate::command::Answer;

/// How far the probabilities of equal audio may differ, whatever batch a chunk landed in.
const TOLERANCE: f64 = 1e-5;

/// Fails the test unless the parts of the verdict agree with each other, as the protocol promises.
pub fn assert_coherent(verdict: &Verdict) {
    let voters = verdict.chunk_count - verdict.silent_chunk_count;
    assert_eq!(verdict.scores.iter().map(|score| score.votes).sum::<u32>(), voters, "every voter has one vote");
    if voters > 0 {
        // The rest is the probability of no music.
        let all: f64 = verdict.scores.iter().map(|score| score.probability).sum();
        assert!(all > 0.0 && all < 1.0 + TOLERANCE, "{:?}", verdict.scores);
        // A threshold may hide the winner, never change it.
        assert!([verdict.scores[0].genre.as_str(), "unknown"].contains(&verdict.genre.as_str()), "{}", verdict.genre);
        assert_close("confidence", verdict.confidence, verdict.scores[0].probability);
    }
    assert!(verdict.scores.is_sorted_by(|left, right| left.probability >= right.probability), "{:?}", verdict.scores);
    assert_eq!(verdict.segments.iter().map(|segment| segment.chunk_count).sum::<u32>(), verdict.chunk_count);
    let mut end = 0.0;
    for segment in &verdict.segments {
        assert_close("a segment begins where the one before it ends", segment.start_seconds, end);
        assert!(segment.end_seconds > segment.start_seconds, "{segment:?}");
        end = segment.end_seconds;
    }
    assert_close("the last segment ends with the track", end, verdict.duration_seconds);
}

/// Fails the test unless both verdicts say the same about the same audio; where and when they were computed may differ.
pub fn assert_same(left: &Verdict, right: &Verdict) {
    assert_eq!(summary(left), summary(right));
    assert_same_sound(left, right);
}

/// Fails the test unless both verdicts heard the same, whatever the bytes were.
pub fn assert_same_sound(left: &Verdict, right: &Verdict) {
    assert_eq!(timeline(left), timeline(right));
    for score in &left.scores {
        let other = right.scores.iter().find(|other| other.genre == score.genre).expect("the same genres");
        assert_eq!(score.votes, other.votes, "{}", score.genre);
        assert_close(&score.genre, score.probability, other.probability);
    }
    assert_close("confidence", left.confidence, right.confidence);
}

/// The same for two lines of `--json`, whatever their files are called.
pub fn assert_same_answer(left: &Answer, right: &Answer) {
    let facts = |answer: &Answer| {
        (answer.genre.clone(), answer.votes.clone(), answer.chunks, answer.duration_seconds, answer.model.clone())
    };
    assert_eq!(facts(left), facts(right), "{}", left.path);
    assert!(left.probabilities.keys().eq(right.probabilities.keys()));
    for (genre, &probability) in &left.probabilities {
        assert_close(genre, probability, right.probabilities[genre]);
    }
}

fn assert_close(what: &str, left: f64, right: f64) {
    assert!((left - right).abs() <= TOLERANCE, "{what}: {left} and {right}");
}

/// The winners along the track.
fn timeline(verdict: &Verdict) -> Vec<(&str, u32)> {
    verdict.segments.iter().map(|segment| (segment.genre.as_str(), segment.chunk_count)).collect()
}

/// What is equal to the last bit.
fn summary(verdict: &Verdict) -> impl std::fmt::Debug + PartialEq {
    (
        verdict.genre.clone(),
        verdict.scores.len(),
        verdict.chunk_count,
        verdict.silent_chunk_count,
        verdict.duration_seconds,
        verdict.model_version.clone(),
        verdict.feature_id.clone(),
        verdict.blake3_digest.clone(),
        verdict.warnings.clone(),
    )
}
