//! The labels of a new model.

use std::collections::BTreeSet;

use crate::{Result, TrainerError};

/// The genres of the training tracks, in alphabetical order. `learnt` are those that have something to learn from, `valid`
/// those that are examined, `wanted` those that the data lists in `split`.
pub(crate) fn labels(
    learnt: &BTreeSet<&String>,
    valid: &BTreeSet<&String>,
    wanted: &BTreeSet<String>,
    split: &str,
) -> Result<Vec<String>> {
    let missing = wanted.iter().chain(valid.iter().copied()).find(|genre| !learnt.contains(genre));
    if let Some(genre) = missing {
        return Err(TrainerError::EmptyGenre { genre: genre.clone(), split: split.to_owned() });
    }
    if learnt.len() < 2 {
        return Err(TrainerError::TooFewGenres { split: split.to_owned(), found: learnt.len() });
    }
    Ok(learnt.iter().copied().cloned().collect())
}
