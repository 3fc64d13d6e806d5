//! What a caller is told on the way to the verdict, as JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use chorale_proto::v1::{Accepted, ChunkVote, Envelope, Progress, classify_stream_response::Event};
use chorale_runtime::failure::Failure;
use serde::{Serialize, Serializer};

use super::{
    problem::Problem,
    verdict::{ScoreJson, VerdictJson, scores},
};
use crate::told::Told;

/// One event: its name, and what it says.
#[derive(Debug, Serialize)]
pub(super) struct EventJson {
    pub(super) event: &'static str,
    pub(super) data: EventData,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum EventData {
    Accepted(AcceptedJson),
    ChunkVote(ChunkVoteJson),
    Envelope(EnvelopeJson),
    Progress(ProgressJson),
    Verdict(Box<VerdictJson>),
    Problem(Box<Problem>),
}

#[derive(Debug, Serialize)]
pub(super) struct AcceptedJson {
    request_id: String,
    audio_wanted: bool,
    model_version: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ChunkVoteJson {
    index: u32,
    start_seconds: f64,
    end_seconds: f64,
    silent: bool,
    genre: String,
    #[serde(serialize_with = "as_object")]
    probabilities: Vec<(String, f32)>,
    /// `[128 mel bands][96 frames]`, one byte a cell, in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    mel: String,
}

#[derive(Debug, Serialize)]
pub(super) struct EnvelopeJson {
    start_seconds: f64,
    span_seconds: f64,
    minima: Vec<f32>,
    maxima: Vec<f32>,
}

#[derive(Debug, Serialize)]
pub(super) struct ProgressJson {
    bytes_received: u64,
    seconds_heard: f64,
    chunks: u32,
    scores: Vec<ScoreJson>,
}

impl EventJson {
    /// What `told` says.
    pub(super) fn of(told: Result<Told, Failure>) -> Self {
        let Told { event, labels } = match told {
            Ok(told) => told,
            Err(failure) => {
                return Self { event: "error", data: EventData::Problem(Box::new(failure.into())) };
            }
        };
        let (event, data) = match event {
            Event::Accepted(accepted) => ("accepted", EventData::Accepted(accepted.into())),
            Event::ChunkVote(vote) => ("chunk_vote", EventData::ChunkVote(ChunkVoteJson::new(vote, &labels))),
            Event::Envelope(envelope) => ("envelope", EventData::Envelope(envelope.into())),
            Event::Progress(progress) => ("progress", EventData::Progress(progress.into())),
            Event::Verdict(verdict) => ("verdict", EventData::Verdict(Box::new(verdict.into()))),
        };
        Self { event, data }
    }

    /// Whether nothing follows it.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.data, EventData::Verdict(_) | EventData::Problem(_))
    }
}

impl From<Accepted> for AcceptedJson {
    fn from(accepted: Accepted) -> Self {
        let Accepted { request_id, audio_wanted, model_version } = accepted;
        Self { request_id, audio_wanted, model_version }
    }
}

impl ChunkVoteJson {
    fn new(vote: ChunkVote, labels: &[String]) -> Self {
        let ChunkVote { index, start_seconds, end_seconds, silent, genre, probabilities, mel } = vote;
        let probabilities = labels.iter().cloned().zip(probabilities).collect();
        Self { index, start_seconds, end_seconds, silent, genre, probabilities, mel: STANDARD.encode(mel) }
    }
}

impl From<Envelope> for EnvelopeJson {
    fn from(envelope: Envelope) -> Self {
        let Envelope { start_seconds, span_seconds, minima, maxima } = envelope;
        Self { start_seconds, span_seconds, minima, maxima }
    }
}

impl From<Progress> for ProgressJson {
    fn from(progress: Progress) -> Self {
        let Progress { bytes_received, seconds_heard, chunks, scores: so_far } = progress;
        Self { bytes_received, seconds_heard, chunks, scores: scores(so_far) }
    }
}

/// In the order of the labels.
fn as_object<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(label, probability)| (label, probability)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_names_its_probabilities_and_has_its_chunk_only_if_asked() {
        let vote = ChunkVote {
            genre: "jazz".to_owned(),
            probabilities: vec![0.25, 0.5],
            mel: vec![0, 255].into(),
            ..ChunkVote::default()
        };
        let labels: std::sync::Arc<[String]> = ["rock", "jazz"].map(str::to_owned).into();
        let told = |vote| Ok(Told { event: Event::ChunkVote(vote), labels: labels.clone() });
        let json = serde_json::to_string(&EventJson::of(told(vote.clone()))).unwrap();
        assert!(json.starts_with(r#"{"event":"chunk_vote","data":{"index":0,"#), "{json}");
        assert!(json.contains(r#""probabilities":{"rock":0.25,"jazz":0.5},"mel":"AP8=""#), "{json}");
        let without = EventJson::of(told(ChunkVote { mel: bytes::Bytes::new(), ..vote }));
        assert!(!serde_json::to_string(&without).unwrap().contains("mel") && !without.is_last());
    }

    #[test]
    fn a_failure_is_the_last_event() {
        let error = EventJson::of(Err(Failure::invalid("options.pcm", "wrong")));
        assert!(error.event == "error" && error.is_last());
        assert_eq!(serde_json::to_value(&error).unwrap()["data"]["field"], "pcm");
    }
}
