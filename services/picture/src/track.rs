//! What is known of a track.

use chorale_proto::v1::{ChunkVote, Verdict};

use crate::Sound;

/// What is known of a track. Parts that it lacks the data of are left out.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// What it is called, for example its file name.
    pub name: String,
    /// What is to be seen of its audio.
    pub sound: Option<Sound>,
    /// What the cluster says of it.
    pub answer: Option<Answer>,
}

/// What the cluster says of a track.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The verdict.
    pub verdict: Verdict,
    /// The vote of each chunk, in order.
    pub chunks: Vec<ChunkVote>,
    /// The genres, in the order of the probabilities of a chunk.
    pub labels: Vec<String>,
    /// The name of the model that answered.
    pub model: String,
}

impl Track {
    /// How long the track is, in seconds, as far as is known.
    pub(crate) fn duration_seconds(&self) -> f64 {
        let answered = self.answer.as_ref().map(|answer| answer.verdict.duration_seconds);
        let heard = self.sound.as_ref().map(Sound::end_seconds);
        answered.into_iter().chain(heard).filter(|seconds| seconds.is_finite()).fold(0.0, f64::max)
    }
}
