//! A verdict as JSON: the names are those of `classifier.proto`, durations are in seconds.

use chorale_proto::v1::{AudioFormat, GenreScore, Segment, Timing, Verdict, Warning, WarningKind};
use serde::Serialize;

/// A `Verdict`.
#[derive(Debug, Serialize)]
pub(super) struct VerdictJson {
    genre: String,
    confidence: f64,
    scores: Vec<ScoreJson>,
    segments: Vec<SegmentJson>,
    chunk_count: u32,
    silent_chunk_count: u32,
    duration_seconds: f64,
    model_version: String,
    feature_id: String,
    /// Empty without the whole audio.
    blake3_digest: String,
    cached: bool,
    early: bool,
    warnings: Vec<WarningJson>,
    timing: TimingJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_format: Option<AudioFormatJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    embedding: Vec<f32>,
}

/// A `GenreScore`.
#[derive(Debug, Serialize)]
pub(super) struct ScoreJson {
    genre: String,
    probability: f64,
    dispersion: f64,
    votes: u32,
}

#[derive(Debug, Serialize)]
struct SegmentJson {
    start_seconds: f64,
    end_seconds: f64,
    genre: String,
    confidence: f64,
    chunk_count: u32,
}

#[derive(Debug, Serialize)]
struct WarningJson {
    kind: &'static str,
    message: String,
    count: u32,
    first_seconds: f64,
}

#[derive(Debug, Serialize)]
struct TimingJson {
    total_seconds: f64,
    decode_seconds: f64,
    mel_seconds: f64,
    queue_seconds: f64,
    compute_seconds: f64,
}

#[derive(Debug, Serialize)]
struct AudioFormatJson {
    container: String,
    codec: String,
    sample_rate: u32,
    channels: u32,
}

impl From<Verdict> for VerdictJson {
    fn from(verdict: Verdict) -> Self {
        let digest = <[u8; 32]>::try_from(verdict.blake3_digest.as_ref()).ok();
        Self {
            genre: verdict.genre,
            confidence: verdict.confidence,
            scores: scores(verdict.scores),
            segments: verdict.segments.into_iter().map(SegmentJson::from).collect(),
            chunk_count: verdict.chunk_count,
            silent_chunk_count: verdict.silent_chunk_count,
            duration_seconds: verdict.duration_seconds,
            model_version: verdict.model_version,
            feature_id: verdict.feature_id,
            blake3_digest: digest.map(|digest| blake3::Hash::from(digest).to_string()).unwrap_or_default(),
            cached: verdict.cached,
            early: verdict.early,
            warnings: verdict.warnings.into_iter().map(WarningJson::from).collect(),
            timing: verdict.timing.unwrap_or_default().into(),
            audio_format: verdict.audio_format.map(AudioFormatJson::from),
            embedding: verdict.embedding,
        }
    }
}

/// The scores of a verdict, or so far.
pub(super) fn scores(scores: Vec<GenreScore>) -> Vec<ScoreJson> {
    scores
        .into_iter()
        .map(|GenreScore { genre, probability, dispersion, votes }| ScoreJson { genre, probability, dispersion, votes })
        .collect()
}

impl From<Segment> for SegmentJson {
    fn from(segment: Segment) -> Self {
        let Segment { start_seconds, end_seconds, genre, confidence, chunk_count } = segment;
        Self { start_seconds, end_seconds, genre, confidence, chunk_count }
    }
}

impl From<Warning> for WarningJson {
    fn from(warning: Warning) -> Self {
        let kind = match warning.kind() {
            WarningKind::Unspecified => "unspecified",
            WarningKind::DecodeDamage => "decode_damage",
            WarningKind::Truncated => "truncated",
            WarningKind::Partial => "partial",
            WarningKind::ExtraTracks => "extra_tracks",
        };
        let Warning { message, count, first_seconds, .. } = warning;
        Self { kind, message, count, first_seconds }
    }
}

impl From<Timing> for TimingJson {
    fn from(timing: Timing) -> Self {
        Self {
            total_seconds: seconds(timing.total),
            decode_seconds: seconds(timing.decode),
            mel_seconds: seconds(timing.mel),
            queue_seconds: seconds(timing.queue),
            compute_seconds: seconds(timing.compute),
        }
    }
}

impl From<AudioFormat> for AudioFormatJson {
    fn from(format: AudioFormat) -> Self {
        let AudioFormat { container, codec, sample_rate, channels } = format;
        Self { container, codec, sample_rate, channels }
    }
}

/// 0 where nothing was measured.
pub(super) fn seconds(duration: Option<prost_types::Duration>) -> f64 {
    let duration = duration.and_then(|duration| std::time::Duration::try_from(duration).ok());
    duration.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_has_the_names_of_the_protocol() {
        let verdict = Verdict {
            genre: "jazz".to_owned(),
            confidence: 0.5,
            blake3_digest: vec![0xab; 32].into(),
            warnings: vec![Warning { kind: WarningKind::Truncated.into(), ..Warning::default() }],
            timing: Some(Timing {
                total: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
                ..Timing::default()
            }),
            ..Verdict::default()
        };
        let json = serde_json::to_value(VerdictJson::from(verdict.clone())).unwrap();
        assert_eq!(json["blake3_digest"], "ab".repeat(32));
        assert_eq!(json["timing"]["total_seconds"], 1.5);
        assert_eq!(json["warnings"][0]["kind"], "truncated");
        assert!(json.get("embedding").is_none() && json.get("audio_format").is_none());
        let embedded = serde_json::to_value(VerdictJson::from(Verdict { embedding: vec![0.25], ..verdict })).unwrap();
        assert_eq!(embedded["embedding"][0], 0.25);
        // Every field of the message has a member of its name.
        let protocol = include_str!("../../../../proto/chorale/v1/classifier.proto");
        let message = protocol.split_once("\nmessage Verdict {").unwrap().1.split_once("\n}").unwrap().0;
        let fields = message.lines().filter(|line| line.contains(" = ")).filter(|line| !line.trim().starts_with("//"));
        for field in fields {
            let name = field.split(" = ").next().unwrap().rsplit(' ').next().unwrap();
            assert!(name == "audio_format" || embedded.get(name).is_some(), "{name}");
        }
    }
}
