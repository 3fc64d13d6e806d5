//! What was heard of a track so far, and the verdict over it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chorale_model::MeanEmbedding;
use chorale_proto::v1::{ChunkResult, ChunkVote, Prediction, Timing, Verdict, Warning, WarningKind};
use tokio::time::Instant;

use crate::{
    model::KnownModel,
    vote::{Ballot, Tally, VoteError},
};

/// What was heard of a track so far.
pub(crate) struct Heard {
    pub(crate) model: Arc<KnownModel>,
    pub(crate) tally: Tally,
    pub(crate) hasher: blake3::Hasher,
    /// Known in advance for a unary call, else when the upload ends.
    pub(crate) digest: Option<blake3::Hash>,
    /// The model of the last chunk that voted, and whether they all had the one that the gateway knew.
    pub(crate) model_version: String,
    pub(crate) one_model: bool,
    /// What was heard on average, if that is wanted, and as long as every voting chunk had an embedding by one model. None is
    /// sent by a replica of an older release.
    embedding: Option<MeanEmbedding>,
    wants_embedding: bool,
    predictions: u32,
    queue: Duration,
    compute: Duration,
}

impl Heard {
    pub(crate) fn new(model: Arc<KnownModel>, wants_embedding: bool) -> Self {
        Self {
            tally: Tally::new(Arc::clone(&model.labels)),
            model_version: model.model.version.clone(),
            model,
            hasher: blake3::Hasher::new(),
            digest: None,
            one_model: true,
            embedding: wants_embedding.then(MeanEmbedding::default),
            wants_embedding,
            predictions: 0,
            queue: Duration::ZERO,
            compute: Duration::ZERO,
        }
    }

    /// Nothing heard yet, by another model, of the same audio.
    pub(crate) fn begin_again(&mut self, model: Arc<KnownModel>) {
        let (hasher, digest) = (self.hasher.clone(), self.digest);
        *self = Self { hasher, digest, ..Self::new(model, self.wants_embedding) };
    }

    pub(crate) fn add(&mut self, chunk: ChunkResult) -> Result<ChunkVote, VoteError> {
        let ChunkResult { index, start_seconds, end_seconds, silent, prediction, mel } = chunk;
        // A chunk that should have been classified and was not has no probabilities, which the tally refuses.
        let prediction = (!silent).then(|| prediction.unwrap_or_default());
        let ballot = Ballot {
            index,
            start: start_seconds,
            end: end_seconds,
            probabilities: prediction.as_ref().map(|prediction| prediction.probabilities.as_slice()),
        };
        let genre = self.tally.add(ballot)?.unwrap_or_default().to_owned();
        let probabilities = prediction.map(|prediction| self.note(index, prediction)).transpose()?.unwrap_or_default();
        Ok(ChunkVote { index, start_seconds, end_seconds, silent, genre, probabilities, mel })
    }

    fn note(&mut self, index: u32, prediction: Prediction) -> Result<Vec<f32>, VoteError> {
        self.predictions += 1;
        self.queue = self.queue.saturating_add(duration(prediction.queue));
        self.compute = self.compute.saturating_add(duration(prediction.compute));
        self.one_model &= prediction.model_version == self.model.model.version;
        self.model_version = prediction.model_version;
        let embedding = prediction.embedding;
        if embedding.is_empty() || !self.one_model {
            self.embedding = None;
        } else if self.embedding.as_mut().is_some_and(|mean| !mean.add(&embedding)) {
            return Err(VoteError::Embedding { index, found: embedding.len() });
        }
        Ok(prediction.probabilities)
    }

    pub(crate) fn timing(&self, began: Instant) -> Timing {
        Timing {
            total: proto_duration(began.elapsed()),
            decode: None,
            mel: None,
            queue: proto_duration(self.queue / self.predictions.max(1)),
            compute: proto_duration(self.compute),
        }
    }

    pub(crate) fn verdict(&self, duration_seconds: f64, timing: Timing) -> Verdict {
        let scores = self.tally.scores();
        let (genre, confidence) = Tally::winner(&scores, self.model.model.unknown_below);
        Verdict {
            genre,
            confidence,
            scores,
            segments: self.tally.segments(duration_seconds),
            chunk_count: self.tally.chunks(),
            silent_chunk_count: self.tally.silent_chunks(),
            duration_seconds,
            model_version: self.model_version.clone(),
            feature_id: self.model.model.feature_id.clone(),
            blake3_digest: self.digest.map(|digest| Bytes::copy_from_slice(digest.as_bytes())).unwrap_or_default(),
            timing: Some(timing),
            embedding: self.embedding.as_ref().map(MeanEmbedding::of_track).unwrap_or_default(),
            ..Verdict::default()
        }
    }

    /// The verdict over the chunks heard so far, which the rest could hardly change.
    pub(crate) fn early_verdict(&self, began: Instant) -> Verdict {
        Verdict { early: true, ..self.verdict(self.tally.seconds_heard(), self.timing(began)) }
    }

    /// The verdict over the chunks heard so far; `None` if there are none.
    pub(crate) fn partial_verdict(&self, began: Instant) -> Option<Verdict> {
        if self.tally.chunks() == 0 {
            return None;
        }
        let seconds = self.tally.seconds_heard();
        let warning = Warning {
            kind: WarningKind::Partial.into(),
            message: format!("the deadline came before the end: this is the verdict over the first {seconds:.1} s"),
            count: 1,
            first_seconds: seconds,
        };
        Some(Verdict { warnings: vec![warning], ..self.verdict(seconds, self.timing(began)) })
    }
}

/// What another part of the cluster measured; nothing if it makes no sense.
fn duration(measured: Option<prost_types::Duration>) -> Duration {
    measured.and_then(|measured| measured.try_into().ok()).unwrap_or_default()
}

fn proto_duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}
