//! A digest of the audio in a file, whatever its tags are.
//!
//! It covers the packets as symphonia finds them by the container's own index, each with its place in time and what is to
//! be trimmed, and everything that a decoder has to know. So it tells more than a hash of the bytes outside of the tags: an
//! MP4 file whose audio is all there, but whose index points beside it, has another digest.

use std::{
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};

use symphonia::core::{
    errors::Error,
    formats::{FormatOptions, FormatReader, probe::Hint},
    io::{MediaSourceStream, MediaSourceStreamOptions},
    meta::MetadataOptions,
};

use crate::LibraryError;

/// Packets in a row that cannot be read after which a file counts as unreadable.
const MAX_ERRORS: u32 = 16;
/// Times that a stream may start over, as chained Ogg does.
const MAX_RESTARTS: u32 = 1_024;

/// The BLAKE3 digest of the audio in `file`.
///
/// # Errors
/// [`LibraryError::AudioUnreadable`] if no audio is found.
pub(crate) fn audio_digest(file: &[u8]) -> Result<[u8; 32], LibraryError> {
    // Symphonia aims not to panic on any bytes, but it is a large body of parsers: one that slips costs one file.
    catch_unwind(AssertUnwindSafe(|| digest(file)))
        .unwrap_or_else(|_| Err(LibraryError::AudioUnreadable("the decoder failed on it".to_owned())))
}

fn digest(file: &[u8]) -> Result<[u8; 32], LibraryError> {
    let unreadable = |error: Error| LibraryError::AudioUnreadable(error.to_string());
    let stream = MediaSourceStream::new(Box::new(Cursor::new(file)), MediaSourceStreamOptions::default());
    let mut format = symphonia::default::get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(unreadable)?;
    let mut hasher = blake3::Hasher::new();
    hash_tracks(&mut hasher, &*format);
    let (mut packets, mut errors, mut restarts) = (0_u64, 0, 0);
    loop {
        match format.next_packet() {
            Ok(Some(packet)) => {
                (packets, errors) = (packets + 1, 0);
                let numbers = [
                    u64::from(packet.track_id),
                    packet.pts.get() as u64,
                    packet.dur.get(),
                    packet.trim_start.get(),
                    packet.trim_end.get(),
                    packet.data.len() as u64,
                ];
                for number in numbers {
                    hasher.update(&number.to_le_bytes());
                }
                hasher.update(&packet.data);
            }
            Ok(None) | Err(Error::IoError(_)) => break,
            Err(Error::ResetRequired) if restarts < MAX_RESTARTS => {
                restarts += 1;
                hash_tracks(&mut hasher, &*format);
            }
            Err(error) => {
                errors += 1;
                if errors == MAX_ERRORS {
                    return Err(unreadable(error));
                }
            }
        }
    }
    if packets == 0 {
        return Err(LibraryError::AudioUnreadable("there is none in it".to_owned()));
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Everything that decoders are told. A track's length is not in it: where the container does not say, it is estimated
/// from the length of the file.
fn hash_tracks(hasher: &mut blake3::Hasher, format: &dyn FormatReader) {
    for track in format.tracks() {
        let told = (track.id, &track.codec_params, track.time_base, track.start_ts, track.delay, track.padding);
        hasher.update(format!("{told:?}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/formats/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    }

    #[test]
    fn one_byte_of_audio_makes_another_digest() {
        for name in ["clip.mp3", "clip.ogg", "clip.m4a", "clip.wav", "clip.aiff", "clip.flac"] {
            let mut bytes = clip(name);
            let before = audio_digest(&bytes).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            assert_ne!(audio_digest(&bytes).ok(), Some(before), "{name}");
        }
    }

    #[test]
    fn an_index_that_points_beside_the_audio_makes_another_digest() {
        let mut bytes = clip("clip.m4a");
        let before = audio_digest(&bytes).unwrap();
        let offsets = bytes.windows(4).position(|name| name == b"stco").unwrap() + 12;
        bytes[offsets + 3] ^= 1;
        assert_ne!(audio_digest(&bytes).ok(), Some(before));
    }

    #[test]
    fn what_is_no_audio_has_no_digest() {
        assert!(audio_digest(b"no audio at all, but text that goes on for a while").is_err());
        assert!(audio_digest(&[]).is_err());
    }
}
