//! Why a track could not be analysed.

use std::io;

/// What can be decoded, for messages.
pub(crate) const SUPPORTED: &str = "mp3, mp2, mp1, aac (LC, mono or stereo), m4a, alac, flac, ogg vorbis, wav, aiff, \
                                    caf, mkv, webm with vorbis, adpcm, au, and raw pcm";

/// Why a track could not be analysed.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// Not one byte of audio came.
    #[error("no audio: the input is empty; send the bytes of an audio file")]
    Empty,
    /// The bytes are of a kind that cannot be decoded here.
    #[error(
        "{found} cannot be decoded; supported are {SUPPORTED}; \
         convert other audio, for example with `ffmpeg -i INPUT OUTPUT.flac`"
    )]
    Unsupported {
        /// What the bytes look like.
        found: String,
    },
    /// The container or codec is known, but no audio can be decoded from it.
    #[error("unreadable audio at byte {byte} ({seconds:.1} s): {what}; check that the file plays, or export it again")]
    Unreadable {
        /// What is wrong.
        what: String,
        /// How many bytes had been read.
        byte: u64,
        /// How many seconds of audio had been decoded.
        seconds: f64,
    },
    /// Less than one second of audio.
    #[error("too short: {seconds:.3} s of audio, at least 1 s is needed")]
    TooShort {
        /// Seconds that were decoded.
        seconds: f64,
    },
    /// A limit was hit.
    #[error("limit exceeded: {limit} is {allowed}, the audio has {value} or more")]
    LimitExceeded {
        /// The name of the limit, a field of [`Limits`](crate::Limits).
        limit: &'static str,
        /// What was found, in the limit's unit.
        value: u64,
        /// What is allowed, in the limit's unit.
        allowed: u64,
    },
    /// The caller went away before the end of the audio, or wants no more events.
    #[error("aborted: the caller went away before the audio was complete")]
    Aborted,
    /// The audio could not be read, or not be kept in a temporary file.
    #[error("cannot read the audio: {0}")]
    Io(#[from] io::Error),
}
