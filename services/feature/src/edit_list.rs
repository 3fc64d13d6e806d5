//! What an MP4 edit list leaves out at the ends of a track.
//!
//! An encoder of a transform codec begins with a packet or two that are not part of the audio. MP4 says so in an edit
//! list, which symphonia does not evaluate: without it, everything would come 20 to 50 ms late.

use std::io::{Read, Seek, SeekFrom};

/// Boxes that are looked at before giving up on a hostile file.
const MAX_BOXES: usize = 4_096;

/// The part of a track that is heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Edit {
    /// Seconds of the track before the part that is heard.
    pub(crate) skip_seconds: f64,
    /// Seconds that are heard, if the list says.
    pub(crate) duration_seconds: Option<f64>,
}

/// Reads the edit of track `track_id`, if the file has one that is a single stretch.
pub(crate) fn find(file: &mut (impl Read + Seek + ?Sized), track_id: u32) -> Option<Edit> {
    let mut budget = MAX_BOXES;
    let moov = Boxes::new(0, u64::MAX).find(file, *b"moov", &mut budget)?;
    let mvhd = moov.children().find(file, *b"mvhd", &mut budget)?;
    let movie_timescale = read_timescale(file, &mvhd)?;
    let mut traks = moov.children();
    while let Some(trak) = traks.find(file, *b"trak", &mut budget) {
        let tkhd = trak.children().find(file, *b"tkhd", &mut budget)?;
        if read_track_id(file, &tkhd)? != track_id {
            continue;
        }
        let mdia = trak.children().find(file, *b"mdia", &mut budget)?;
        let mdhd = mdia.children().find(file, *b"mdhd", &mut budget)?;
        let media_timescale = read_timescale(file, &mdhd)?;
        let edts = trak.children().find(file, *b"edts", &mut budget)?;
        let elst = edts.children().find(file, *b"elst", &mut budget)?;
        let (movie_ticks, media_ticks) = read_single_edit(file, &elst)?;
        let duration_seconds = movie_ticks as f64 / f64::from(movie_timescale);
        return Some(Edit {
            skip_seconds: media_ticks as f64 / f64::from(media_timescale),
            duration_seconds: (movie_ticks > 0).then_some(duration_seconds),
        });
    }
    None
}

struct Atom {
    kind: [u8; 4],
    start: u64,
    end: u64,
}

impl Atom {
    fn children(&self) -> Boxes {
        Boxes::new(self.start, self.end)
    }
}

/// The boxes between two positions of a file.
struct Boxes {
    next: u64,
    end: u64,
}

impl Boxes {
    fn new(next: u64, end: u64) -> Self {
        Self { next, end }
    }

    fn find(&mut self, file: &mut (impl Read + Seek + ?Sized), kind: [u8; 4], budget: &mut usize) -> Option<Atom> {
        while self.next < self.end {
            *budget = budget.checked_sub(1)?;
            file.seek(SeekFrom::Start(self.next)).ok()?;
            let short_size = u32::from_be_bytes(read(file)?);
            let found = read(file)?;
            let (header, size) = match short_size {
                0 => (8, self.end - self.next),
                1 => (16, u64::from_be_bytes(read(file)?)),
                size => (8, u64::from(size)),
            };
            let end = self.next.checked_add(size.max(header))?.min(self.end);
            let atom = Atom { kind: found, start: self.next + header, end };
            self.next = end;
            if atom.kind == kind {
                return Some(atom);
            }
        }
        None
    }
}

fn read<const N: usize>(file: &mut (impl Read + ?Sized)) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Goes behind the version of a full box, and says whether its times are 64 bits wide.
fn open_full(file: &mut (impl Read + Seek + ?Sized), atom: &Atom) -> Option<bool> {
    file.seek(SeekFrom::Start(atom.start)).ok()?;
    let [version, _, _, _] = read(file)?;
    Some(version == 1)
}

fn skip_times(file: &mut (impl Read + Seek + ?Sized), wide: bool) -> Option<()> {
    file.seek(SeekFrom::Current(if wide { 16 } else { 8 })).ok().map(drop)
}

fn read_timescale(file: &mut (impl Read + Seek + ?Sized), header: &Atom) -> Option<u32> {
    let wide = open_full(file, header)?;
    skip_times(file, wide)?;
    Some(u32::from_be_bytes(read(file)?)).filter(|&timescale| timescale > 0)
}

fn read_track_id(file: &mut (impl Read + Seek + ?Sized), tkhd: &Atom) -> Option<u32> {
    let wide = open_full(file, tkhd)?;
    skip_times(file, wide)?;
    Some(u32::from_be_bytes(read(file)?))
}

/// The length, in ticks of the movie, and the start, in ticks of the track, of the only stretch.
fn read_single_edit(file: &mut (impl Read + Seek + ?Sized), elst: &Atom) -> Option<(u64, u64)> {
    let wide = open_full(file, elst)?;
    let count = u32::from_be_bytes(read(file)?);
    let mut stretch = None;
    for _ in 0..count.min(16) {
        let (length, start) = if wide {
            (u64::from_be_bytes(read(file)?), i64::from_be_bytes(read(file)?))
        } else {
            (u64::from(u32::from_be_bytes(read(file)?)), i64::from(i32::from_be_bytes(read(file)?)))
        };
        let _rate: [u8; 4] = read(file)?;
        // A negative start is a pause before the audio begins, which says nothing about its samples.
        if let Ok(start) = u64::try_from(start) {
            if stretch.is_some() {
                return None;
            }
            stretch = Some((length, start));
        }
    }
    stretch
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn atom(kind: &[u8; 4], payload: &[&[u8]]) -> Vec<u8> {
        let payload = payload.concat();
        [&(payload.len() as u32 + 8).to_be_bytes()[..], kind, &payload].concat()
    }

    fn movie(edits: &[(u32, i32)]) -> Vec<u8> {
        let word = |value: u32| value.to_be_bytes();
        let timed = |kind, value: u32| atom(kind, &[&[0; 12], &word(value)]);
        let mut list = [word(0), word(edits.len() as u32)].concat();
        for (length, start) in edits {
            list.extend([word(*length), start.to_be_bytes(), word(0x1_0000)].concat());
        }
        let trak = atom(
            b"trak",
            &[
                &timed(b"tkhd", 7),
                &atom(b"edts", &[&atom(b"elst", &[&list])]),
                &atom(b"mdia", &[&timed(b"mdhd", 44_100)]),
            ],
        );
        [atom(b"ftyp", &[b"M4A "]), atom(b"moov", &[&timed(b"mvhd", 1_000), &trak])].concat()
    }

    #[test]
    fn reads_the_only_stretch() {
        let edit = find(&mut Cursor::new(movie(&[(100, -1), (2_000, 1_024)])), 7).unwrap();
        assert_eq!(edit, Edit { skip_seconds: 1_024.0 / 44_100.0, duration_seconds: Some(2.0) });
        assert_eq!(find(&mut Cursor::new(movie(&[(2_000, 0), (2_000, 9)])), 7), None);
        assert_eq!(find(&mut Cursor::new(movie(&[(2_000, 0)])), 8), None);
    }

    #[test]
    fn survives_whatever_is_cut_off_or_broken() {
        let whole = movie(&[(2_000, 1_024)]);
        for length in 0..whole.len() {
            find(&mut Cursor::new(&whole[..length]), 7);
            for value in [0, 1, 0xff] {
                let mut broken = whole.clone();
                broken[length] = value;
                find(&mut Cursor::new(broken), 7);
            }
        }
    }
}
