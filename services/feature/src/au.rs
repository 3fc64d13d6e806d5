//! Sun/NeXT `.au`, which symphonia does not read.

use crate::analyze::Limits;
use crate::decoded::{Decoded, MonoSink};
use crate::error::FeatureError;
use crate::pcm::{Encoding, Interleaved};
use crate::source::AudioSource;
use std::io::{self, Read};

const HEADER_BYTES: u32 = 24;
const UNKNOWN_SIZE: u32 = u32::MAX;

/// Decodes a source that begins with `.snd`.
pub(crate) fn decode(source: &AudioSource, limits: &Limits, sink: &mut MonoSink<'_>) -> Result<Decoded, FeatureError> {
    let mut reader = source.stream();
    let unreadable = |what: String| FeatureError::Unreadable { what, byte: source.position(), seconds: 0.0 };
    let failed = |_| source.failure().unwrap_or_else(|| unreadable("the .au header is cut off".to_owned()));

    let [_magic, data_offset, data_bytes, encoding, sample_rate, channels] = read_words(&mut reader).map_err(failed)?;
    let Some(annotation_bytes) = data_offset.checked_sub(HEADER_BYTES) else {
        return Err(unreadable(format!("the .au header says that its audio begins at byte {data_offset}, inside it")));
    };
    let encoding = match encoding {
        1 => Encoding::MuLaw,
        2 => Encoding::S8,
        3 => Encoding::S16Be,
        4 => Encoding::S24Be,
        5 => Encoding::S32Be,
        6 => Encoding::F32Be,
        7 => Encoding::F64Be,
        27 => Encoding::ALaw,
        other => return Err(FeatureError::Unsupported { found: format!(".au audio with encoding {other}") }),
    };
    let skipped = io::copy(&mut reader.by_ref().take(u64::from(annotation_bytes)), &mut io::sink()).map_err(failed)?;
    if skipped < u64::from(annotation_bytes) {
        return Err(unreadable("the .au header is cut off".to_owned()));
    }

    let frame_bytes = (encoding.bytes() as u64).saturating_mul(u64::from(channels)).max(1);
    let frames = (data_bytes != UNKNOWN_SIZE).then(|| u64::from(data_bytes) / frame_bytes);
    Interleaved { encoding, sample_rate, channels, frames }.decode(source, &mut reader, limits, "au", sink)
}

fn read_words(reader: &mut impl Read) -> io::Result<[u32; 6]> {
    let mut words = [0; 6];
    for word in &mut words {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes)?;
        *word = u32::from_be_bytes(bytes);
    }
    Ok(words)
}
