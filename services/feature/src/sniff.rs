//! What the first bytes say about the rest.

/// The first bytes that [`sniff`] wants to see.
pub(crate) const SNIFF_BYTES: usize = 64;

/// How to go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// Sun/NeXT `.au`.
    Au,
    /// A container whose demuxer reads to the end before it begins.
    WholeFileFirst,
    /// Known, and nothing that can be decoded.
    Foreign(&'static str),
    /// Worth probing.
    Unknown,
}

/// Signatures at a byte offset of files that symphonia would search for audio in vain, or worse, find some.
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (28, b"OpusHead", "ogg opus audio"),
    (28, b"Speex   ", "ogg speex audio"),
    (29, b"theora", "ogg theora video"),
    (0, b"wvPk", "WavPack audio"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"MPCK", "Musepack audio"),
    (0, b"MP+", "Musepack audio"),
    (0, b"TTA1", "True Audio"),
    (0, b"DSD ", "DSD audio"),
    (0, b"FRM8", "DSD audio"),
    (0, b"#!AMR", "AMR audio"),
    (0, b"MThd", "MIDI (notes, not audio)"),
    (0, b"RF64", "RF64 (wav over 4 GiB)"),
    (0, b"riff\x2e\x91\xcf\x11", "Sony Wave64 audio"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (asf, wma, wmv)"),
    (0, b"FLV", "Flash video"),
    (8, b"AVI ", "AVI video"),
    (8, b"WEBP", "a WebP picture"),
    (0, b"\x89PNG\r\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b\x08", "a gzip archive"),
    (0, b"Rar!\x1a\x07", "a rar archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-zip archive"),
    (0, b"\x7fELF", "a program"),
];

/// Looks at the first [`SNIFF_BYTES`] bytes.
pub(crate) fn sniff(head: &[u8]) -> Sniffed {
    if head.starts_with(b".snd") {
        return Sniffed::Au;
    }
    if head.starts_with(b"caff") {
        return Sniffed::WholeFileFirst;
    }
    let has = |offset: usize, signature: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(signature));
    match FOREIGN.iter().find(|(offset, signature, _)| has(*offset, signature)) {
        Some((_, _, name)) => Sniffed::Foreign(name),
        None if is_text(head) => Sniffed::Foreign("a text file"),
        None => Sniffed::Unknown,
    }
}

/// Whether all of `head` is printable. No audio container begins with this many text characters.
fn is_text(head: &[u8]) -> bool {
    // A character may be cut off at the end of what was peeked.
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if head.len() - error.valid_up_to() < 4 => {
            std::str::from_utf8(head.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !valid.is_empty() && !valid.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_audio_from_the_rest() {
        assert_eq!(sniff(b".snd\0\0\0\x18"), Sniffed::Au);
        assert_eq!(sniff(b"caff\0\x01\0\0"), Sniffed::WholeFileFirst);
        assert_eq!(sniff(b"RIFF\x24\0\0\0WAVEfmt "), Sniffed::Unknown);
        assert_eq!(sniff(b"RIFF\x24\0\0\0AVI LIST"), Sniffed::Foreign("AVI video"));
        assert_eq!(sniff("Grüße,\nno music".as_bytes()), Sniffed::Foreign("a text file"));
        assert_eq!(sniff(b"ID3\x04\0\0\0\0\x02\x00TSSE"), Sniffed::Unknown);
        assert_eq!(sniff(b""), Sniffed::Unknown);
    }
}
