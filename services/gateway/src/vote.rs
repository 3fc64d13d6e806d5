//! The vote: from what the model says about each chunk to what the track is.
//!
//! Chunks vote in the track's order, whenever and in whatever batch their predictions were made, so that equal
//! predictions give equal verdicts. Apart from one segment for each run of chunks, memory is constant.

use std::sync::Arc;

use chorale_model::{Votes, embedding::MAX_EMBEDDING, labels::UNKNOWN};
use chorale_proto::v1::{GenreScore, Segment};

/// A chunk that the rest of the cluster should not have sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum VoteError {
    #[error("expected chunk {expected}, found chunk {found}")]
    Order { expected: u32, found: u32 },
    #[error(
        "expected chunk {index} to begin at a time after the one before it and to end later, found {start} s to {end} s"
    )]
    Times { index: u32, start: f64, end: f64 },
    #[error("expected {expected} probabilities between 0 and 1 for chunk {index}, found {found:?}")]
    Probabilities { index: u32, expected: usize, found: Vec<f32> },
    #[error(
        "expected an embedding of finite numbers for chunk {index}, as many as for those before and at most \
         {MAX_EMBEDDING}, found {found} numbers"
    )]
    Embedding { index: u32, found: usize },
}

/// One chunk on its way into the tally.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ballot<'a> {
    /// Position in the track.
    pub(crate) index: u32,
    /// Where the chunk begins, in seconds.
    pub(crate) start: f64,
    /// Where it ends, in seconds.
    pub(crate) end: f64,
    /// The probability of each label; `None` for a silent chunk.
    pub(crate) probabilities: Option<&'a [f32]>,
}

/// A run of consecutive chunks with one winner.
#[derive(Debug, Clone, PartialEq)]
struct Run {
    start: f64,
    /// The label; `None` for silence.
    winner: Option<usize>,
    /// Sum of the winner's probability over the run.
    sum: f64,
    chunks: u32,
}

/// One label's share of the votes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Share {
    sum: f64,
    sum_of_squares: f64,
    votes: u32,
}

/// The votes counted so far.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tally {
    labels: Arc<[String]>,
    votes: Votes,
    shares: Vec<Share>,
    runs: Vec<Run>,
    chunks: u32,
    silent_chunks: u32,
    last_start: f64,
    heard: f64,
}

impl Tally {
    /// No votes yet.
    pub(crate) fn new(labels: Arc<[String]>) -> Self {
        let shares = vec![Share::default(); labels.len()];
        let votes = Votes::new(labels.len());
        Self { labels, votes, shares, runs: Vec::new(), chunks: 0, silent_chunks: 0, last_start: 0.0, heard: 0.0 }
    }

    /// Counts one chunk and returns its winner; `None` for silence.
    pub(crate) fn add(&mut self, ballot: Ballot<'_>) -> Result<Option<&str>, VoteError> {
        let Ballot { index, start, end, probabilities } = ballot;
        if index != self.chunks {
            return Err(VoteError::Order { expected: self.chunks, found: index });
        }
        let in_order = if index == 0 { start >= 0.0 } else { start > self.last_start };
        if !(in_order && end > start && end.is_finite()) {
            return Err(VoteError::Times { index, start, end });
        }
        let expected = self.labels.len();
        let (winner, winning) = match probabilities {
            None => (None, 0.0),
            Some(found) => {
                let plausible = found.iter().all(|probability| (0.0..=1.0).contains(probability));
                let winner = first_largest(found.iter().copied()).filter(|_| plausible && found.len() == expected);
                let Some((winner, winning)) = winner else {
                    let found = found.iter().take(expected + 1).copied().collect();
                    return Err(VoteError::Probabilities { index, expected, found });
                };
                (Some(winner), f64::from(winning))
            }
        };

        if let Some(probabilities) = probabilities {
            self.votes.add(probabilities);
        }
        for (share, &probability) in self.shares.iter_mut().zip(probabilities.unwrap_or_default()) {
            share.sum += f64::from(probability);
            share.sum_of_squares += f64::from(probability).powi(2);
        }
        match winner.and_then(|winner| self.shares.get_mut(winner)) {
            Some(share) => share.votes += 1,
            None => self.silent_chunks += 1,
        }
        match self.runs.last_mut().filter(|run| run.winner == winner) {
            Some(run) => {
                run.sum += winning;
                run.chunks += 1;
            }
            None => self.runs.push(Run { start, winner, sum: winning, chunks: 1 }),
        }
        self.chunks += 1;
        self.last_start = start;
        self.heard = self.heard.max(end);
        Ok(winner.map(|winner| self.label(winner)))
    }

    /// Whether more chunks could hardly change the winner: see [`Votes::is_settled`].
    pub(crate) fn is_settled(&self, error_rate: f64) -> bool {
        self.votes.is_settled(error_rate)
    }

    /// Chunks counted, silent ones included.
    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Chunks that did not vote.
    pub(crate) fn silent_chunks(&self) -> u32 {
        self.silent_chunks
    }

    /// Where the last chunk ends, in seconds.
    pub(crate) fn seconds_heard(&self) -> f64 {
        self.heard
    }

    /// Every label's result, most probable first, equal ones in the order of the labels. Empty until a chunk voted.
    pub(crate) fn scores(&self) -> Vec<GenreScore> {
        let voting_chunks = self.chunks - self.silent_chunks;
        if voting_chunks == 0 {
            return Vec::new();
        }
        let voters = f64::from(voting_chunks);
        let score = |((label, share), probability): ((&String, &Share), f64)| {
            let mean = share.sum / voters;
            // Rounding may leave a tiny negative variance where all chunks agree.
            let variance = (share.sum_of_squares / voters - mean * mean).max(0.0);
            GenreScore { genre: label.clone(), probability, dispersion: variance.sqrt(), votes: share.votes }
        };
        let mut scores: Vec<_> =
            self.labels.iter().zip(&self.shares).zip(self.votes.probabilities()).map(score).collect();
        scores.sort_by(|left, right| right.probability.total_cmp(&left.probability));
        scores
    }

    /// The winner and its probability. The name is `unknown` if that probability is below `unknown_below`, and if
    /// nothing but silence was heard, where the probability is 0.
    pub(crate) fn winner(scores: &[GenreScore], unknown_below: f64) -> (String, f64) {
        let Some(best) = scores.first() else { return (UNKNOWN.to_owned(), 0.0) };
        let name = if best.probability < unknown_below { UNKNOWN } else { best.genre.as_str() };
        (name.to_owned(), best.probability)
    }

    /// The runs of one winner, without gaps: each lasts until the next one begins, the last until `track_end` seconds.
    pub(crate) fn segments(&self, track_end: f64) -> Vec<Segment> {
        let next_starts = self.runs.iter().skip(1).map(|run| run.start).chain([track_end.max(self.last_start)]);
        let segment = |(run, end): (&Run, f64)| Segment {
            start_seconds: run.start,
            end_seconds: end,
            genre: run.winner.map_or(UNKNOWN, |winner| self.label(winner)).to_owned(),
            confidence: run.sum / f64::from(run.chunks),
            chunk_count: run.chunks,
        };
        self.runs.iter().zip(next_starts).map(segment).collect()
    }

    fn label(&self, index: usize) -> &str {
        self.labels.get(index).map_or(UNKNOWN, String::as_str)
    }
}

/// The largest value and where it is first found.
fn first_largest(values: impl Iterator<Item = f32>) -> Option<(usize, f32)> {
    values.enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> Arc<[String]> {
        ["blues", "jazz", "rock"].map(str::to_owned).into()
    }

    fn tally(chunks: &[Option<[f32; 3]>]) -> Tally {
        let mut tally = Tally::new(labels());
        for (index, chunk) in (0_u32..).zip(chunks) {
            let start = 2.0 * f64::from(index);
            let probabilities = chunk.as_ref().map(<[f32; 3]>::as_slice);
            tally.add(Ballot { index, start, end: start + 4.0, probabilities }).unwrap();
        }
        tally
    }

    const ROCK: Option<[f32; 3]> = Some([0.1, 0.2, 0.7]);
    const JAZZ: Option<[f32; 3]> = Some([0.0, 0.9, 0.1]);

    #[test]
    fn the_geometric_mean_decides_and_the_votes_and_the_dispersion_tell_how() {
        let scores = tally(&[ROCK, ROCK, JAZZ, None]).scores();
        let product = |chunks: [f64; 3]| chunks.iter().product::<f64>().cbrt();
        let [rock, jazz, blues] = [product([0.7, 0.7, 0.1]), product([0.2, 0.2, 0.9]), product([0.1, 0.1, 1e-4])];
        let names: Vec<_> = scores.iter().map(|score| score.genre.as_str()).collect();
        assert_eq!(names, ["rock", "jazz", "blues"]);
        assert_eq!(scores.iter().map(|score| score.votes).collect::<Vec<_>>(), [2, 1, 0]);
        assert!((scores[0].probability - rock / (rock + jazz + blues)).abs() < 1e-6);
        assert!((scores[0].dispersion - (0.24_f64 / 3.0).sqrt()).abs() < 1e-7);
        assert_eq!(Tally::winner(&scores, 0.0), ("rock".to_owned(), scores[0].probability));
        assert_eq!(tally(&[ROCK]).scores()[0].dispersion, 0.0);
    }

    #[test]
    fn equal_scores_keep_the_order_of_the_labels() {
        let even = tally(&[Some([0.25, 0.5, 0.5])]);
        assert_eq!(even.scores()[0].genre, "jazz");
        assert_eq!(even.scores()[0].votes, 1);
        assert_eq!(even.segments(4.0)[0].genre, "jazz");
    }

    #[test]
    fn nothing_but_silence_is_unknown() {
        let silence = tally(&[None, None]);
        assert_eq!(silence.scores(), []);
        assert_eq!(Tally::winner(&silence.scores(), 0.0), ("unknown".to_owned(), 0.0));
        let whole = Segment { end_seconds: 5.5, genre: "unknown".to_owned(), chunk_count: 2, ..Segment::default() };
        assert_eq!(silence.segments(5.5), [whole]);
        assert_eq!((silence.chunks(), silence.silent_chunks()), (2, 2));
    }

    #[test]
    fn a_winner_below_the_threshold_is_unknown_and_keeps_its_confidence() {
        let scores = tally(&[ROCK, ROCK, JAZZ]).scores();
        let best = scores[0].probability;
        assert_eq!(Tally::winner(&scores, best), ("rock".to_owned(), best));
        assert_eq!(Tally::winner(&scores, best + 1e-9), ("unknown".to_owned(), best));
    }

    #[test]
    fn segments_are_runs_of_one_winner() {
        let found: Vec<_> = tally(&[ROCK, ROCK, None, JAZZ, ROCK])
            .segments(11.0)
            .into_iter()
            .map(|segment| (segment.start_seconds, segment.end_seconds, segment.genre, segment.chunk_count))
            .collect();
        let expected = [(0.0, 4.0, "rock", 2), (4.0, 6.0, "unknown", 1), (6.0, 8.0, "jazz", 1), (8.0, 11.0, "rock", 1)];
        assert_eq!(found, expected.map(|(start, end, genre, chunks)| (start, end, genre.to_owned(), chunks)));
    }

    #[test]
    fn impossible_chunks_are_refused() {
        let ballot = |index, start, end, probabilities| Ballot { index, start, end, probabilities };
        let refused = |ballot| tally(&[ROCK]).add(ballot).unwrap_err();
        assert!(matches!(refused(ballot(0, 2.0, 6.0, None)), VoteError::Order { expected: 1, found: 0 }));
        for (start, end) in [(0.0, 4.0), (f64::NAN, 4.0), (2.0, 2.0), (2.0, f64::INFINITY)] {
            assert!(matches!(refused(ballot(1, start, end, None)), VoteError::Times { .. }), "{start} {end}");
        }
        for wrong in [&[][..], &[0.5; 2], &[0.5; 4], &[0.5, 0.5, f32::NAN], &[-0.1, 0.5, 0.6], &[1.5, 0.0, 0.0]] {
            assert!(matches!(refused(ballot(1, 2.0, 6.0, Some(wrong))), VoteError::Probabilities { .. }), "{wrong:?}");
        }
    }

    fn chunk() -> impl Strategy<Value = Option<[f32; 3]>> {
        prop_oneof![
            1 => Just(None),
            4 => prop::array::uniform3(0.01_f32..1.0).prop_map(|weights| {
                let sum: f32 = weights.iter().sum();
                Some(weights.map(|weight| weight / sum))
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_chunk_is_counted_once(chunks in prop::collection::vec(chunk(), 1..60), tail in 0.0_f64..4.0) {
            let tally = tally(&chunks);
            let count = u32::try_from(chunks.len()).unwrap();
            let silent = u32::try_from(chunks.iter().filter(|chunk| chunk.is_none()).count()).unwrap();
            prop_assert_eq!((tally.chunks(), tally.silent_chunks()), (count, silent));

            let scores = tally.scores();
            prop_assert_eq!(scores.iter().map(|score| score.votes).sum::<u32>(), count - silent);
            if !scores.is_empty() {
                let total: f64 = scores.iter().map(|score| score.probability).sum();
                prop_assert!((total - 1.0).abs() < 1e-5);
                prop_assert!(scores.is_sorted_by(|left, right| left.probability >= right.probability));
                prop_assert!(scores.iter().all(|score| (0.0..=0.5).contains(&score.dispersion)));
            }

            let track_end = 2.0 * f64::from(count - 1) + tail;
            let segments = tally.segments(track_end);
            prop_assert_eq!(segments.first().unwrap().start_seconds, 0.0);
            prop_assert_eq!(segments.last().unwrap().end_seconds, track_end);
            prop_assert_eq!(segments.iter().map(|segment| segment.chunk_count).sum::<u32>(), count);
            for pair in segments.windows(2) {
                prop_assert_eq!(pair[0].end_seconds, pair[1].start_seconds);
                prop_assert_ne!(&pair[0].genre, &pair[1].genre);
            }
        }
    }
}
