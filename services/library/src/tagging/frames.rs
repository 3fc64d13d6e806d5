//! The frames of an ID3v2 tag as they lie in a file, where lofty keeps one of two with the same name.

const HEADER: usize = 10;
/// Flags of a header: bytes are inserted into the whole tag, or more headers follow.
const UNSYNCHRONISED_OR_EXTENDED: u8 = 0xC0;

/// The first text frame that an ID3v2 tag at the beginning of `file` has twice; of frames with a name of their own, `TXXX`,
/// there may be many. None for a tag that cannot be walked through so simply.
pub(crate) fn frame_that_is_there_twice(file: &[u8]) -> Option<String> {
    let header = file.get(..HEADER).filter(|header| header.starts_with(b"ID3"))?;
    let &[_, _, _, version, _, flags, ref size @ ..] = header else { return None };
    if !(3..=4).contains(&version) || flags & UNSYNCHRONISED_OR_EXTENDED != 0 {
        return None;
    }
    let mut rest = file.get(HEADER..)?;
    rest = rest.get(..length(size, 7)?).unwrap_or(rest);
    let mut seen: Vec<&[u8]> = Vec::new();
    // Behind the last frame there may be zeros.
    while let Some((frame, behind)) = rest.split_at_checked(HEADER).filter(|(frame, _)| frame.first() != Some(&0)) {
        let (name, size) = (frame.get(..4)?, frame.get(4..8)?);
        if name.first() == Some(&b'T') && name != b"TXXX" {
            if seen.contains(&name) {
                return Some(String::from_utf8_lossy(name).into_owned());
            }
            seen.push(name);
        }
        rest = behind.get(length(size, if version == 4 { 7 } else { 8 })?..)?;
    }
    None
}

/// A number of four bytes that have this many bits each.
fn length(bytes: &[u8], bits: u32) -> Option<usize> {
    let number =
        bytes.iter().try_fold(0_u32, |number, byte| number.checked_shl(bits).map(|number| number | u32::from(*byte)));
    usize::try_from(number?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(version: u8, names: &[&[u8; 4]]) -> Vec<u8> {
        let frames: Vec<u8> =
            names.iter().flat_map(|name| [&name[..], &[0, 0, 0, 2, 0, 0, 3, b'x']].concat()).collect();
        let size = u8::try_from(frames.len() + 5).unwrap();
        [&[b'I', b'D', b'3', version, 0, 0, 0, 0, 0, size][..], &frames, &[0; 5], b"audio TPE1"].concat()
    }

    #[test]
    fn two_frames_of_one_name_are_found() {
        for version in [3, 4] {
            assert_eq!(
                frame_that_is_there_twice(&tag(version, &[b"TIT2", b"TPE1", b"TXXX", b"TXXX", b"COMM", b"COMM"])),
                None
            );
            let twice = frame_that_is_there_twice(&tag(version, &[b"TPE1", b"TIT2", b"TPE1"]));
            assert_eq!(twice.as_deref(), Some("TPE1"));
        }
        for other in [&b""[..], b"ID3", b"ID3\x04\0\0\x7f\x7f\x7f\x7fTPE1\xff\xff\xff\xff\0\0", b"RIFF    WAVE"] {
            assert_eq!(frame_that_is_there_twice(other), None);
        }
    }
}
