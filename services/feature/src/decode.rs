//! Any audio to mono samples at its own rate: finds out what the bytes are, and who decodes them.

use crate::analyze::{AudioInput, Limits};
use crate::audio_track::guard;
use crate::decoded::{Decoded, MonoSink};
use crate::error::FeatureError;
use crate::sniff::{SNIFF_BYTES, Sniffed, sniff};
use crate::source::{AudioSource, SourceReader};
use crate::track_decoder::TrackDecoder;
use crate::{au, pcm};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;

/// Decodes `source` to its end.
pub(crate) fn decode(
    source: &AudioSource,
    input: &AudioInput,
    limits: &Limits,
    sink: &mut MonoSink<'_>,
) -> Result<Decoded, FeatureError> {
    let head = source.peek(SNIFF_BYTES)?;
    if head.is_empty() {
        return Err(FeatureError::Empty);
    }
    if let Some(spec) = input.pcm {
        return pcm::decode(source, spec, limits, sink);
    }
    match sniff(&head) {
        Sniffed::Au => au::decode(source, limits, sink),
        Sniffed::Foreign(found) => Err(FeatureError::Unsupported { found: found.to_owned() }),
        Sniffed::WholeFileFirst => {
            source.start_recording();
            decode_spooled(source, input, limits, sink)
        }
        Sniffed::Unknown => {
            source.start_recording();
            source.remember(true);
            match open(source, source.stream())? {
                Ok(format) if can_stream(&*format) => {
                    let decoder = TrackDecoder::new(format, source, limits, id3_bytes(&head))?;
                    source.stop_recording();
                    if !decoder.bare_frames {
                        source.remember(false);
                    }
                    decoder.decode(sink)
                }
                // A container that is not known when streamed is not known when spooled either.
                Err(error) if is_unknown(&error) => Err(open_error(&error, source, input)),
                Ok(_) | Err(_) => decode_spooled(source, input, limits, sink),
            }
        }
    }
}

/// Decodes a source whose container needs to be read back and forth: from a file, a temporary one for an upload.
fn decode_spooled(
    source: &AudioSource,
    input: &AudioInput,
    limits: &Limits,
    sink: &mut MonoSink<'_>,
) -> Result<Decoded, FeatureError> {
    source.remember(false);
    let reader = source.spool()?;
    match open(source, reader)? {
        Ok(format) => TrackDecoder::new(format, source, limits, 0)?.decode(sink),
        Err(error) => Err(open_error(&error, source, input)),
    }
}

fn open(
    source: &AudioSource,
    reader: SourceReader,
) -> Result<Result<Box<dyn FormatReader + 'static>, Error>, FeatureError> {
    let stream = MediaSourceStream::new(Box::new(reader), MediaSourceStreamOptions::default());
    let opened = guard(source, 0.0, || {
        symphonia::default::get_probe().probe(
            &Hint::new(),
            stream,
            FormatOptions::default(),
            MetadataOptions::default(),
        )
    })?;
    match source.failure() {
        Some(failure) => Err(failure),
        None => Ok(opened),
    }
}

/// Whether packets come in the order of the file. Tracks of an MP4 file lie in turns, and symphonia goes by time.
fn can_stream(format: &dyn FormatReader) -> bool {
    format.format_info().short_name != "isomp4" || format.tracks().len() == 1
}

fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Unsupported(what) if what.starts_with("core (probe)"))
}

fn open_error(error: &Error, source: &AudioSource, input: &AudioInput) -> FeatureError {
    let unreadable = |what| FeatureError::Unreadable { what, byte: source.position(), seconds: 0.0 };
    match error {
        error if is_unknown(error) => {
            let declared: String = input.content_type.chars().take(64).collect();
            let declared = if declared.is_empty() { declared } else { format!(" (declared as {declared:?})") };
            FeatureError::Unsupported { found: format!("data of an unknown kind{declared}") }
        }
        Error::Unsupported(what) if what.contains("missing") => unreadable(format!("a part of it is missing ({what})")),
        Error::Unsupported(what) => FeatureError::Unsupported { found: format!("audio of this kind ({what})") },
        error => unreadable(error.to_string()),
    }
}

/// The length of an `ID3v2` tag at the start of a file.
fn id3_bytes(head: &[u8]) -> u64 {
    match head {
        [b'I', b'D', b'3', _, _, _, a, b, c, d, ..] => {
            let size = [a, b, c, d].iter().fold(0, |size, &&seven_bits| size << 7 | u64::from(seven_bits & 0x7f));
            size + 10
        }
        _ => 0,
    }
}
