//! The genres that have a row of their own.

use chorale_proto::v1::GenreScore;

use crate::{
    track::{Answer, Track},
    words::shorten,
};

/// Rows of a part at most.
const MOST: usize = 10;
/// Rows of the timeline at least, if there are so many genres.
const LEAST: usize = 3;
/// Letters of a genre.
const LETTERS: usize = 16;

/// A genre with a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Its name, as it is drawn.
    pub(super) name: String,
    /// Its place in the labels.
    pub(super) label: Option<usize>,
    /// What the vote says of it.
    pub(super) score: GenreScore,
}

/// The rows of the parts, the most probable genre of the track first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rows {
    /// Those of the timeline: genres that won a chunk, and the most probable ones.
    pub(super) timeline: Vec<Row>,
    /// Genres that won a chunk and have no row in the timeline.
    pub(super) left_out: usize,
    /// Those of the vote.
    pub(super) vote: Vec<Row>,
}

impl Rows {
    pub(super) fn of(track: &Track) -> Self {
        let Some(answer) = &track.answer else { return Self::default() };
        let all: Vec<Row> = answer.verdict.scores.iter().map(|score| Row::new(score, answer)).collect();
        let wins = |row: &Row| answer.chunks.iter().any(|chunk| !chunk.silent && chunk.genre == row.score.genre);
        let (mut winners, mut others): (Vec<Row>, Vec<Row>) = all.iter().cloned().partition(wins);
        let left_out = winners.len().saturating_sub(MOST);
        winners.truncate(MOST);
        others.truncate(LEAST.saturating_sub(winners.len()));
        winners.extend(others);
        let mut vote = all;
        vote.truncate(MOST);
        Self { timeline: winners, left_out, vote }
    }

    /// The names of all rows.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.timeline.iter().chain(&self.vote).map(|row| row.name.as_str())
    }
}

impl Row {
    fn new(score: &GenreScore, answer: &Answer) -> Self {
        let label = answer.labels.iter().position(|label| *label == score.genre);
        Self { name: shorten(&score.genre, LETTERS), label, score: score.clone() }
    }
}
