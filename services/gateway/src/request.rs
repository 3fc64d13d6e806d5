//! What a caller asks for: the options, checked, and the audio that follows them.

use std::fmt;

use bytes::Bytes;
use chorale_proto::v1::{
    AnalyzeOptions, ClassifyOptions, ClassifyStreamRequest, DeadlinePolicy, EventKind, Priority, SampleFormat,
    classify_stream_request::Payload,
};
use chorale_runtime::{
    failure::{Failure, Reason},
    oversize::too_large,
};
use futures::{StreamExt, stream::BoxStream};
use tonic::{Code, Status, Streaming};

use crate::deadline::Deadline;

/// The longest content type that is handed on as a hint, in bytes. Media types are shorter than this by RFC 6838.
const MAX_CONTENT_TYPE: usize = 255;

/// Options that were checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CheckedOptions {
    pub(crate) analyze: AnalyzeOptions,
    /// The version of the model that must answer, if the caller says so.
    pub(crate) pinned_version: Option<String>,
    pub(crate) top_k: u32,
    pub(crate) chunk_votes: bool,
    pub(crate) progress: bool,
    pub(crate) envelopes: bool,
    pub(crate) partial_at_deadline: bool,
    pub(crate) claimed_digest: Option<blake3::Hash>,
    pub(crate) bypass_cache: bool,
    /// 0 hears the whole track.
    pub(crate) early_error_rate: f64,
}

impl CheckedOptions {
    /// Checks what the protocol says about each field.
    ///
    /// # Errors
    /// `REQUEST_INVALID` names the first field that is wrong.
    pub(crate) fn new(options: ClassifyOptions, feature_id: &str) -> Result<Self, Failure> {
        let wants = |kind: EventKind| options.events.contains(&kind.into());
        let (mel, envelopes) = (wants(EventKind::Mel), wants(EventKind::Envelope));
        if options.content_type.len() > MAX_CONTENT_TYPE {
            let found = options.content_type.len();
            let message = format!("expected at most {MAX_CONTENT_TYPE} bytes of content type, found {found}");
            return Err(Failure::invalid("options.content_type", message));
        }
        if let Some(pcm) = &options.pcm {
            if matches!(SampleFormat::try_from(pcm.sample_format), Err(_) | Ok(SampleFormat::Unspecified)) {
                let message = format!("expected a sample format, found {}", pcm.sample_format);
                return Err(Failure::invalid("options.pcm.sample_format", message));
            }
            if pcm.sample_rate == 0 {
                return Err(Failure::invalid("options.pcm.sample_rate", "expected samples a second, found 0"));
            }
            if pcm.channels == 0 {
                return Err(Failure::invalid("options.pcm.channels", "expected at least one channel, found 0"));
            }
        }
        let partial_at_deadline = match DeadlinePolicy::try_from(options.deadline_policy) {
            Ok(DeadlinePolicy::Unspecified | DeadlinePolicy::Fail) => false,
            Ok(DeadlinePolicy::Partial) => true,
            Err(_) => {
                let message = format!("expected a deadline policy, found {}", options.deadline_policy);
                return Err(Failure::invalid("options.deadline_policy", message));
            }
        };
        if Priority::try_from(options.priority).is_err() {
            let message = format!("expected a priority, found {}", options.priority);
            return Err(Failure::invalid("options.priority", message));
        }
        let early_error_rate = options.early_error_rate;
        if !(0.0..0.5).contains(&early_error_rate) {
            let message = format!("expected 0 to less than 0.5, found {early_error_rate}");
            return Err(Failure::invalid("options.early_error_rate", message));
        }
        let claimed_digest = match options.blake3_digest.as_ref() {
            [] => None,
            digest => Some(blake3::Hash::from_slice(digest).map_err(|_| {
                let message = format!("expected a BLAKE3 digest of 32 bytes, found {} bytes", digest.len());
                Failure::invalid("options.blake3_digest", message)
            })?),
        };
        let analyze = AnalyzeOptions {
            content_type: options.content_type,
            pcm: options.pcm,
            feature_id: feature_id.to_owned(),
            priority: options.priority,
            want_embedding: options.want_embedding,
            want_mel: mel,
            want_envelope: envelopes,
            ..AnalyzeOptions::default()
        };
        Ok(Self {
            analyze,
            pinned_version: Some(options.model_version).filter(|version| !version.is_empty()),
            top_k: options.top_k,
            chunk_votes: mel || wants(EventKind::ChunkVote),
            progress: wants(EventKind::Progress),
            envelopes,
            partial_at_deadline,
            claimed_digest,
            bypass_cache: options.bypass_cache,
            early_error_rate,
        })
    }
}

impl CheckedOptions {
    /// Whether the caller wants what only the audio itself tells, and so no answer that is known already.
    pub(crate) fn computes_anew(&self) -> bool {
        self.analyze.want_mel || self.analyze.want_envelope
    }

    /// Whether the result cache may answer.
    pub(crate) fn reads_cache(&self) -> bool {
        !self.bypass_cache && !self.computes_anew()
    }
}

/// What a call brings.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) options: ClassifyOptions,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) upload: Upload,
}

/// Audio, piece by piece.
pub(crate) type Pieces = BoxStream<'static, Result<Bytes, Failure>>;

/// The audio of a call.
pub(crate) enum Upload {
    /// What a gRPC stream still holds after its options.
    Stream(Box<Streaming<ClassifyStreamRequest>>),
    /// Pieces of it, as they come.
    Pieces(Pieces),
    /// All of it.
    Whole(Bytes),
}

impl fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stream(_) => "Stream",
            Self::Pieces(_) => "Pieces",
            Self::Whole(_) => "Whole",
        })
    }
}

impl Upload {
    /// Reads the options that a stream begins with.
    ///
    /// # Errors
    /// If something else comes first.
    pub(crate) async fn options(stream: &mut Streaming<ClassifyStreamRequest>) -> Result<ClassifyOptions, Failure> {
        let found = match stream.message().await.map_err(|status| unreadable(&status))? {
            Some(ClassifyStreamRequest { payload: Some(Payload::Options(options)) }) => return Ok(options),
            Some(ClassifyStreamRequest { payload: Some(Payload::Audio(_)) }) => "audio",
            Some(ClassifyStreamRequest { payload: None }) => "an empty message",
            None => "the end of the stream",
        };
        Err(Failure::invalid("options", format!("expected options in the first message, found {found}")))
    }

    /// The next bytes, which may be none; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// If a message does not hold audio or cannot be read.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let stream = match self {
            Self::Whole(audio) => return Ok((!audio.is_empty()).then(|| std::mem::take(audio))),
            Self::Pieces(pieces) => return pieces.next().await.transpose(),
            Self::Stream(stream) => stream,
        };
        let found = match stream.message().await.map_err(|status| unreadable(&status))? {
            None => return Ok(None),
            Some(ClassifyStreamRequest { payload: Some(Payload::Audio(audio)) }) => return Ok(Some(audio)),
            Some(ClassifyStreamRequest { payload: Some(Payload::Options(_)) }) => "options",
            Some(ClassifyStreamRequest { payload: None }) => "an empty message",
        };
        Err(Failure::invalid("audio", format!("expected audio in every message after the first, found {found}")))
    }
}

/// What a status means that reading a request message gave.
pub(crate) fn unreadable(status: &Status) -> Failure {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => too_large(status.message()),
        Code::Internal | Code::InvalidArgument | Code::Unimplemented => {
            Failure::invalid("", format!("expected a message of the protocol: {}", status.message()))
        }
        _ => Failure::new(Reason::Cancelled, format!("the caller went away: {}", status.message())),
    }
}

#[cfg(test)]
mod tests {
    use chorale_proto::v1::PcmFormat;

    use super::*;

    fn field_of(options: ClassifyOptions) -> String {
        CheckedOptions::new(options, "f1").unwrap_err().field.unwrap()
    }

    #[test]
    fn options_that_the_protocol_does_not_allow_are_named() {
        let pcm = |sample_format, sample_rate, channels| ClassifyOptions {
            pcm: Some(PcmFormat { sample_format, sample_rate, channels }),
            ..ClassifyOptions::default()
        };
        assert_eq!(field_of(pcm(0, 8_000, 1)), "options.pcm.sample_format");
        assert_eq!(field_of(pcm(99, 8_000, 1)), "options.pcm.sample_format");
        assert_eq!(field_of(pcm(1, 0, 1)), "options.pcm.sample_rate");
        assert_eq!(field_of(pcm(1, 8_000, 0)), "options.pcm.channels");
        let digest = ClassifyOptions { blake3_digest: vec![0; 31].into(), ..ClassifyOptions::default() };
        assert_eq!(field_of(digest), "options.blake3_digest");
        let policy = ClassifyOptions { deadline_policy: 3, ..ClassifyOptions::default() };
        assert_eq!(field_of(policy), "options.deadline_policy");
        let hint = ClassifyOptions { content_type: "x".repeat(256), ..ClassifyOptions::default() };
        assert_eq!(field_of(hint), "options.content_type");
        let priority = ClassifyOptions { priority: 3, ..ClassifyOptions::default() };
        assert_eq!(field_of(priority), "options.priority");
        let rate = ClassifyOptions { early_error_rate: 0.5, ..ClassifyOptions::default() };
        assert_eq!(field_of(rate), "options.early_error_rate");
    }

    #[test]
    fn options_may_all_be_left_out_and_unknown_events_are_ignored() {
        let options =
            CheckedOptions::new(ClassifyOptions { events: vec![0, 77, 1], ..ClassifyOptions::default() }, "f1");
        let options = options.unwrap();
        assert!(options.chunk_votes && !options.progress && !options.bypass_cache && !options.partial_at_deadline);
        assert!(options.reads_cache() && !options.envelopes && !options.analyze.want_mel);
        assert_eq!((options.claimed_digest, options.early_error_rate), (None, 0.0));
        for (kind, mel, envelope) in [(EventKind::Mel, true, false), (EventKind::Envelope, false, true)] {
            let options = ClassifyOptions { events: vec![kind.into()], ..ClassifyOptions::default() };
            let options = CheckedOptions::new(options, "f1").unwrap();
            assert_eq!((options.analyze.want_mel, options.analyze.want_envelope), (mel, envelope));
            assert_eq!((options.chunk_votes, options.envelopes, options.reads_cache()), (mel, envelope, false));
        }
        let bulk = ClassifyOptions { priority: Priority::Bulk.into(), ..ClassifyOptions::default() };
        assert_eq!(CheckedOptions::new(bulk, "f1").unwrap().analyze.priority(), Priority::Bulk);
    }
}
