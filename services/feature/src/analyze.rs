//! The one way in.

use crate::decode;
use crate::decoded::Decoded;
use crate::error::FeatureError;
use crate::pcm::PcmSpec;
use crate::pipeline::{Event, Pipeline, Totals};
use crate::source::AudioSource;
use bytes::Bytes;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is known about the audio, and what is wanted of it.
#[derive(Debug, Clone, Default)]
pub struct AudioInput {
    /// Media type or file extension, as a hint only: the bytes decide. It appears in messages.
    pub content_type: String,
    /// Set if the audio is raw samples.
    pub pcm: Option<PcmSpec>,
    /// Report the waveform's envelope too.
    pub want_envelope: bool,
}

/// How much one track may cost. The names are those of [`FeatureError::LimitExceeded`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of audio, as they are received. Default: 1 GiB.
    pub max_audio_bytes: u64,
    /// Length of the decoded audio. Default: 6 h.
    pub max_duration: Duration,
    /// Channels before the downmix. Default: 32.
    pub max_channels: u32,
    /// Samples a second before resampling, in Hz. Default: 384,000.
    pub max_sample_rate: u32,
    /// Time that the service decodes one track: what a small file may cost that unpacks to a lot. Default: 10 min.
    pub max_decode_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_audio_bytes: 1 << 30,
            max_duration: Duration::from_secs(6 * 3600),
            max_channels: 32,
            max_sample_rate: 384_000,
            max_decode_time: Duration::from_secs(600),
        }
    }
}

/// What a track was.
#[derive(Debug, Clone, PartialEq)]
pub struct AudioSummary {
    /// Seconds of audio decoded.
    pub duration_seconds: f64,
    /// Chunks reported.
    pub chunk_count: u32,
    /// The container, for example `ogg`; `pcm` for raw samples.
    pub container: String,
    /// The codec, for example `vorbis`.
    pub codec: String,
    /// Samples a second before resampling, in Hz.
    pub sample_rate: u32,
    /// Channels before the downmix.
    pub channels: u32,
    /// What was wrong with it.
    pub warnings: Vec<Warning>,
    /// Time spent decoding, downmixing and resampling; waiting for bytes is left out.
    pub decode_time: Duration,
    /// Time spent on log-mel features; time in the caller's sink is left out.
    pub mel_time: Duration,
}

/// Something that was wrong with the audio without preventing an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Warning {
    /// What kind of thing.
    pub kind: WarningKind,
    /// What was wrong, in words.
    pub message: String,
    /// How often it happened.
    pub count: u32,
    /// Where it happened first, in seconds from the start of the track.
    pub first_seconds: f64,
}

/// A kind of warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WarningKind {
    /// Audio was damaged and left out.
    DecodeDamage,
    /// The audio ends before its container said that it would.
    Truncated,
    /// More than one audio track: the first one that can be decoded was heard.
    ExtraTracks,
}

/// Analyses one track, and hands each event to `sink` as soon as it is known.
///
/// This blocks while it waits for bytes and while it computes: call it on a thread that may block.
///
/// # Errors
///
/// See [`FeatureError`]; [`FeatureError::Aborted`] if `sink` breaks. Events may have been reported before.
pub fn analyze(
    source: &AudioSource,
    input: &AudioInput,
    limits: &Limits,
    sink: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<AudioSummary, FeatureError> {
    let started = Instant::now();
    source.limit(limits.max_audio_bytes)?;
    let mut forward = |event: Event<'_>| sink(event);
    let mut pipeline = Pipeline::new(limits.max_duration, input.want_envelope, &mut forward);
    let decoded = decode::decode(source, input, limits, &mut |block| pipeline.push(block))?;
    let totals = pipeline.finish()?;
    let decode_time = started.elapsed().saturating_sub(source.waited() + totals.mel_time + totals.sink_time);
    summarize(source, decoded, &totals, decode_time)
}

pub(crate) fn summarize(
    source: &AudioSource,
    decoded: Decoded,
    totals: &Totals,
    decode_time: Duration,
) -> Result<AudioSummary, FeatureError> {
    // What follows the audio, tags for example, is part of the upload: the caller need not tell the two apart.
    source.drain()?;
    Ok(AudioSummary {
        duration_seconds: totals.duration_seconds,
        chunk_count: totals.chunk_count,
        warnings: decoded.warnings(totals.duration_seconds),
        container: decoded.container,
        codec: decoded.codec,
        sample_rate: decoded.sample_rate,
        channels: decoded.channels,
        decode_time,
        mel_time: totals.mel_time,
    })
}

/// Analyses a file.
///
/// # Errors
///
/// As [`analyze`], and if the file cannot be read.
pub fn analyze_file(
    path: &Path,
    limits: &Limits,
    sink: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<AudioSummary, FeatureError> {
    let content_type = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    let input = AudioInput { content_type, ..AudioInput::default() };
    analyze(&AudioSource::file(path)?, &input, limits, sink)
}

/// Analyses a track in memory.
///
/// # Errors
///
/// As [`analyze`].
pub fn analyze_bytes(
    bytes: impl Into<Bytes>,
    input: &AudioInput,
    limits: &Limits,
    sink: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<AudioSummary, FeatureError> {
    analyze(&AudioSource::bytes(bytes), input, limits, sink)
}
