//! The last bytes that a demuxer has read, to see what it skipped.

/// At least this many bytes are kept; a demuxer reads ahead less than half of it.
const KEPT_BYTES: usize = 256 << 10;

/// Marks of what may lie between the frames of a stream without being damage: tags, and the headers of joined files.
const TAG_MARKS: [&[u8]; 6] = [b"ID3", b"TAG", b"APETAGEX", b"Xing", b"Info", b"VBRI"];

/// The last bytes of a stream.
#[derive(Default)]
pub(crate) struct Recent {
    bytes: Vec<u8>,
    start: u64,
}

/// Where a packet was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its first byte, from the start of the stream.
    pub(crate) position: u64,
    /// Whether what was skipped before it is a tag.
    pub(crate) after_tag: bool,
}

impl Recent {
    /// Adds what was read last.
    pub(crate) fn push(&mut self, read: &[u8]) {
        self.bytes.extend_from_slice(read);
        if self.bytes.len() > 2 * KEPT_BYTES {
            let dropped = self.bytes.len() - KEPT_BYTES;
            self.bytes.drain(..dropped);
            self.start += dropped as u64;
        }
    }

    /// Looks for `packet`, from position `from` on.
    pub(crate) fn find(&self, packet: &[u8], from: u64) -> Option<Found> {
        let offset = usize::try_from(from.saturating_sub(self.start)).ok()?;
        let rest = self.bytes.get(offset..)?;
        let at = find(rest, packet)?;
        let skipped = rest.get(..at)?;
        let after_tag = TAG_MARKS.iter().any(|mark| find(skipped, mark).is_some());
        Some(Found { position: from.max(self.start) + at as u64, after_tag })
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return None;
    }
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_still_there() {
        let mut recent = Recent::default();
        recent.push(b"..frame1..frame2");
        assert_eq!(recent.find(b"frame2", 2), Some(Found { position: 10, after_tag: false }));
        assert_eq!(recent.find(b"frame1", 3), None);
        assert_eq!(recent.find(b"", 0), None);
        for _ in 0..100 {
            recent.push(&[b'x'; 8 << 10]);
        }
        recent.push(b"TAG by someone frame3");
        assert!(recent.bytes.len() <= 2 * KEPT_BYTES);
        let end = 16 + 100 * (8 << 10);
        assert_eq!(recent.find(b"frame3", end), Some(Found { position: end + 15, after_tag: true }));
        assert_eq!(recent.find(b"frame2", 0), None);
    }
}
