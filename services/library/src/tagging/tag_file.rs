//! A file's tags: read from wherever it lies, changed in memory.

use std::{
    io::{Cursor, Read, Seek},
    panic::{AssertUnwindSafe, catch_unwind},
};

use lofty::{
    ape::ApeFile,
    config::{GlobalOptions, ParseOptions, ParsingMode, WriteOptions, apply_global_options},
    error::LoftyError,
    file::{AudioFile, FileType},
    flac::FlacFile,
    iff::{aiff::AiffFile, wav::WavFile},
    mp4::Mp4File,
    mpeg::MpegFile,
    musepack::MpcFile,
    ogg::{OpusFile, SpeexFile, VorbisFile},
    probe::Probe,
    tag::TagExt,
    wavpack::WavPackFile,
};

use super::{
    frames::frame_that_is_there_twice,
    other_tag::OtherTag,
    own_tag::OwnTag,
    state::{CONFIDENCE, HEARD, MODEL, TagState},
};
use crate::LibraryError;

/// A file that is changed in memory.
pub(crate) type Memory = Cursor<Vec<u8>>;
/// What comes of asking lofty.
pub(crate) type Tagged<T> = Result<T, LoftyError>;

/// Covers of this size are read all the same; lofty passes over larger ones, and so they would be lost.
const MAX_ITEM_BYTES: usize = 256 << 20;

/// The tags that players read in a file, and the others.
struct TagFile {
    own: OwnTag,
    others: Vec<OtherTag>,
}

/// What the tags of a file say about its genre.
///
/// # Errors
/// [`LibraryError::NotTaggable`] if its format has no tags, [`LibraryError::Tags`] if they cannot be read.
pub(crate) fn read_state(file: &mut (impl Read + Seek)) -> Result<TagState, LibraryError> {
    guard(|| Ok(TagFile::read(file, ParsingMode::BestAttempt)?.state()))
}

/// The bytes of a file after its tags have become `new`.
///
/// # Errors
/// As [`read_state`], and [`LibraryError::Tags`] if writing them would lose or change anything else.
pub(crate) fn with_state(file: &[u8], new: &TagState) -> Result<Vec<u8>, LibraryError> {
    guard(|| {
        // What is passed over when tags are read would be lost when they are written.
        let mut tags = TagFile::read(&mut Cursor::new(file), ParsingMode::Strict)?.complete();
        if let Some(twice) = frame_that_is_there_twice(file) {
            return Err(LibraryError::Tags(format!(
                "they have the frame {twice} twice, and one of them would be lost"
            )));
        }
        tags.set(new).map_err(unreadable)?;
        let old_version = tags.own.is_old_id3v2();
        let versions: &[bool] = if old_version { &[true, false] } else { &[false] };
        let mut lost = None;
        for &version_3 in versions {
            match tags.write(file, version_3).map_err(unreadable).and_then(|bytes| tags.check(bytes, new)) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => lost = Some(error),
            }
        }
        Err(lost.unwrap_or(LibraryError::NotTaggable))
    })
}

/// Runs what lofty does with hostile bytes: should it slip, that costs one file.
fn guard<T>(call: impl FnOnce() -> Result<T, LibraryError>) -> Result<T, LibraryError> {
    apply_global_options(GlobalOptions::new().allocation_limit(MAX_ITEM_BYTES));
    let slipped = || LibraryError::Tags("the reader of tags failed on them".to_owned());
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(slipped()))
}

fn unreadable(error: impl std::fmt::Display) -> LibraryError {
    LibraryError::Tags(error.to_string())
}

impl TagFile {
    fn read(file: &mut (impl Read + Seek), mode: ParsingMode) -> Result<Self, LibraryError> {
        let junk = junk_before_frames(file)?;
        let mut options = ParseOptions::new().parsing_mode(mode).read_properties(false).max_junk_bytes(junk);
        let probe = Probe::new(&mut *file).options(options).guess_file_type().map_err(unreadable)?;
        let kind = probe.file_type().ok_or(LibraryError::NotTaggable)?;
        // The old tag at the end of many MP3 files has no year, which is not strict; see `frames` for the new one.
        if kind == FileType::Mpeg {
            options = options.parsing_mode(ParsingMode::BestAttempt);
        }
        file.rewind().map_err(unreadable)?;
        let own = read_own(kind, file, options).map_err(unreadable)?.ok_or(LibraryError::NotTaggable)?;
        file.rewind().map_err(unreadable)?;
        let others = OtherTag::read(kind, file, options).map_err(unreadable)?;
        Ok(Self { own, others })
    }

    /// The tags with what a new ID3v2 tag has to take over from the others.
    fn complete(mut self) -> Self {
        if let (OwnTag::Id3v2(tag), Some(other)) = (&mut self.own, self.others.first())
            && tag.is_empty()
        {
            **tag = other.to_id3v2();
        }
        self
    }

    fn state(&self) -> TagState {
        let mut genres = self.own.genres();
        if genres.is_empty() {
            genres = self.others.iter().find_map(OtherTag::genre).into_iter().collect();
        }
        TagState {
            genres,
            heard: self.own.field(HEARD),
            confidence: self.own.field(CONFIDENCE),
            model: self.own.field(MODEL),
        }
    }

    fn set(&mut self, new: &TagState) -> Tagged<()> {
        self.own.set_genres(&new.genres)?;
        for (name, value) in [(HEARD, &new.heard), (CONFIDENCE, &new.confidence), (MODEL, &new.model)] {
            if let Some(value) = value {
                self.own.set_field(name, value)?;
            }
        }
        // What is in step already stays as it lies in the file.
        let mut changed = Vec::new();
        for mut tag in std::mem::take(&mut self.others) {
            if tag.follow(&new.genres)? {
                changed.push(tag);
            }
        }
        self.others = changed;
        Ok(())
    }

    fn write(&self, file: &[u8], version_3: bool) -> Tagged<Vec<u8>> {
        let options = WriteOptions::new().use_id3v23(version_3);
        let mut memory = Cursor::new(file.to_vec());
        self.own.save(&mut memory, options)?;
        for tag in &self.others {
            memory.set_position(0);
            tag.save(&mut memory, options)?;
        }
        Ok(memory.into_inner())
    }

    /// The bytes of a file that was written, if its tags read back as they should be.
    fn check(&self, bytes: Vec<u8>, wanted: &TagState) -> Result<Vec<u8>, LibraryError> {
        let read = Self::read(&mut Cursor::new(bytes.as_slice()), ParsingMode::Strict)?;
        if read.state() != *wanted {
            return Err(LibraryError::Tags("the genre would read back as something else".to_owned()));
        }
        let (before, after) = (self.own.inventory(), read.own.inventory());
        match before.iter().find(|item| !after.contains(item)) {
            Some(lost) => Err(LibraryError::Tags(format!("writing them would lose {lost}"))),
            None if before.len() != after.len() => {
                Err(LibraryError::Tags("writing them would change their number".to_owned()))
            }
            None => Ok(bytes),
        }
    }
}

/// How many bytes may lie before the first frame of MPEG audio. Behind an ID3v2 tag there may be some; elsewhere, what looks
/// like a frame is found in the first bytes of many formats.
fn junk_before_frames(file: &mut (impl Read + Seek)) -> Result<usize, LibraryError> {
    const NONE_BUT_A_FRAME_SYNC: usize = 2;
    let mut head = Vec::new();
    file.by_ref().take(3).read_to_end(&mut head).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    Ok(if head == b"ID3" { ParseOptions::DEFAULT_MAX_JUNK_BYTES } else { NONE_BUT_A_FRAME_SYNC })
}

/// The tags that players read in files of this kind, empty if the file has none. `None` for kinds that have no such tags.
fn read_own(kind: FileType, file: &mut (impl Read + Seek), options: ParseOptions) -> Tagged<Option<OwnTag>> {
    let id3v2 = |tag: Option<&lofty::id3::v2::Id3v2Tag>| OwnTag::Id3v2(Box::new(tag.cloned().unwrap_or_default()));
    let ape = |tag: Option<&lofty::ape::ApeTag>| OwnTag::Ape(tag.cloned().unwrap_or_default());
    Ok(Some(match kind {
        FileType::Mpeg => id3v2(MpegFile::read_from(file, options)?.id3v2()),
        FileType::Wav => id3v2(WavFile::read_from(file, options)?.id3v2()),
        FileType::Aiff => id3v2(AiffFile::read_from(file, options)?.id3v2()),
        FileType::Flac => {
            let mut flac = FlacFile::read_from(file, options)?;
            // Read only: it stays in the file as it is.
            let _ = flac.remove_id3v2();
            OwnTag::Flac(Box::new(flac))
        }
        FileType::Vorbis => OwnTag::Vorbis(VorbisFile::read_from(file, options)?.vorbis_comments().clone()),
        FileType::Opus => OwnTag::Vorbis(OpusFile::read_from(file, options)?.vorbis_comments().clone()),
        FileType::Speex => OwnTag::Vorbis(SpeexFile::read_from(file, options)?.vorbis_comments().clone()),
        FileType::Mp4 => OwnTag::Mp4(Mp4File::read_from(file, options)?.ilst().cloned().unwrap_or_default()),
        FileType::Ape => ape(ApeFile::read_from(file, options)?.ape()),
        FileType::Mpc => ape(MpcFile::read_from(file, options)?.ape()),
        FileType::WavPack => ape(WavPackFile::read_from(file, options)?.ape()),
        // An ID3v2 tag in front of bare AAC frames is a habit of some, and noise to others.
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use lofty::{
        TextEncoding,
        id3::v2::{AttachedPictureFrame, Frame, FrameId, Id3v2Tag, Id3v2Version, TextInformationFrame},
        picture::{MimeType, Picture, PictureType},
        tag::{Accessor, ItemKey, Tag, TagType},
    };

    use super::*;
    use crate::tagging::{audio_digest::audio_digest, delta::Delta};

    fn fixtures(folder: &str) -> Vec<PathBuf> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(folder);
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn clip(name: &str) -> Vec<u8> {
        let path = fixtures("formats").into_iter().find(|path| path.ends_with(name)).unwrap();
        fs::read(path).unwrap()
    }

    fn jazz() -> TagState {
        TagState {
            genres: vec!["Blé & <Co>".to_owned(), "Jazz".to_owned()],
            heard: Some("jazz".to_owned()),
            confidence: Some("0.875".to_owned()),
            model: Some("b9248c00d381".to_owned()),
        }
    }

    fn state_of(bytes: &[u8]) -> TagState {
        read_state(&mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn every_format_with_tags_takes_them_and_keeps_its_audio() {
        let mut taggable = Vec::new();
        for path in fixtures("formats") {
            let original = fs::read(&path).unwrap();
            let tagged = match with_state(&original, &jazz()) {
                Ok(tagged) => tagged,
                Err(error) => {
                    assert!(matches!(error, LibraryError::NotTaggable), "{}: {error}", path.display());
                    continue;
                }
            };
            assert_eq!(state_of(&tagged), jazz(), "{}", path.display());
            assert_eq!(audio_digest(&tagged).unwrap(), audio_digest(&original).unwrap(), "{}", path.display());
            let delta = Delta::between(&original, &tagged);
            assert_eq!(delta.restore(&tagged).unwrap(), original, "{}", path.display());
            let kept = delta.to_parts().unwrap();
            assert!(kept.0.len() + kept.1.len() < 8_000, "{}: {} bytes kept", path.display(), kept.1.len());
            taggable.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
        taggable.sort();
        let expected = [
            "clip-alac.m4a",
            "clip-moov-last.m4a",
            "clip.aiff",
            "clip.flac",
            "clip.m4a",
            "clip.mp3",
            "clip.ogg",
            "clip.wav",
            "stereo-44100.mp3",
        ];
        assert_eq!(taggable, expected);
    }

    #[test]
    fn broken_files_are_refused_or_tagged_but_never_a_panic() {
        for path in fixtures("broken") {
            let _ = with_state(&fs::read(&path).unwrap(), &jazz());
        }
    }

    /// The clip with a title, a picture, fields of other taggers, and `more`.
    fn tagged_clip(version_3: bool, more: Option<Frame<'static>>) -> Vec<u8> {
        let mut tag = Id3v2Tag::new();
        tag.set_title("Title".to_owned());
        tag.insert_user_text("OTHER".to_owned(), "value".to_owned());
        let cover = Picture::unchecked(vec![7; 70_000]).pic_type(PictureType::CoverFront).mime_type(MimeType::Jpeg);
        tag.insert(Frame::Picture(AttachedPictureFrame::new(TextEncoding::Latin1, cover.build())));
        more.map(|frame| tag.insert(frame));
        let mut memory = Cursor::new(clip("clip.mp3"));
        tag.save_to(&mut memory, WriteOptions::new().use_id3v23(version_3)).unwrap();
        memory.into_inner()
    }

    fn id3v2_of(bytes: &[u8]) -> Id3v2Tag {
        MpegFile::read_from(&mut Cursor::new(bytes), ParseOptions::new()).unwrap().id3v2().unwrap().clone()
    }

    #[test]
    fn what_else_is_in_the_tags_stays_and_so_does_their_version() {
        for (version_3, version) in [(true, Id3v2Version::V3), (false, Id3v2Version::V4)] {
            let original = tagged_clip(version_3, None);
            let tagged = with_state(&original, &jazz()).unwrap();
            let tag = id3v2_of(&tagged);
            assert_eq!(tag.original_version(), version);
            assert_eq!(tag.title().as_deref(), Some("Title"));
            assert_eq!(tag.get_user_text("OTHER"), Some("value"));
            assert_eq!(state_of(&tagged), jazz());
            let kept = Delta::between(&original, &tagged);
            assert!(kept.to_parts().unwrap().1.len() < 9_000, "the cover is in both");
        }
    }

    #[test]
    fn a_frame_that_the_old_version_cannot_hold_is_not_lost() {
        let sort_order = FrameId::Valid("TSOP".into());
        let frame = TextInformationFrame::new(sort_order.clone(), TextEncoding::Latin1, "Artist, The");
        let mut original = tagged_clip(false, Some(Frame::Text(frame)));
        // iTunes writes this frame into ID3v2.3 all the same; sizes of frames below 128 bytes are alike in both.
        let picture = original.windows(4).position(|bytes| bytes == b"APIC").unwrap();
        let size = u32::from_be_bytes(original[picture + 4..picture + 8].try_into().unwrap());
        let plain = (size >> 24 & 0x7f) << 21 | (size >> 16 & 0x7f) << 14 | (size >> 8 & 0x7f) << 7 | size & 0x7f;
        original[picture + 4..picture + 8].copy_from_slice(&plain.to_be_bytes());
        original[3] = 3;
        assert_eq!(id3v2_of(&original).get_text(&sort_order), Some("Artist, The"));
        let tagged = with_state(&original, &jazz()).unwrap();
        assert_eq!(id3v2_of(&tagged).get_text(&sort_order), Some("Artist, The"));
        assert_eq!(state_of(&tagged), jazz());
    }

    #[test]
    fn other_tags_of_the_file_do_not_contradict() {
        let mut old = Tag::new(TagType::Id3v1);
        old.insert_text(ItemKey::TrackTitle, "Title".to_owned());
        old.set_genre("Rock".to_owned());
        let mut memory = Cursor::new(clip("clip.mp3"));
        old.save_to(&mut memory, WriteOptions::new()).unwrap();
        let original = memory.into_inner();
        assert_eq!(state_of(&original).genres, ["Rock"]);
        let tagged = with_state(&original, &TagState { genres: vec!["Jazz".to_owned()], ..jazz() }).unwrap();
        let file = MpegFile::read_from(&mut Cursor::new(tagged.as_slice()), ParseOptions::new()).unwrap();
        assert_eq!(file.id3v1().unwrap().genre().as_deref(), Some("Jazz"));
        assert_eq!(file.id3v1().unwrap().title().as_deref(), Some("Title"));
        assert_eq!(file.id3v2().unwrap().title().as_deref(), Some("Title"), "who reads the new tag alone finds it");
        assert_eq!(audio_digest(&tagged).unwrap(), audio_digest(&original).unwrap());
    }

    #[test]
    fn players_that_know_no_id3v2_in_wav_files_see_the_genre() {
        let tagged = with_state(&clip("clip.wav"), &jazz()).unwrap();
        let file = WavFile::read_from(&mut Cursor::new(tagged.as_slice()), ParseOptions::new()).unwrap();
        assert_eq!(file.riff_info().unwrap().genre().as_deref(), Some("Blé & <Co>"));
    }

    #[test]
    fn pictures_beside_the_comments_of_a_flac_file_stay() {
        use lofty::{ogg::OggPictureStorage, picture::PictureInformation};
        let mut flac = FlacFile::read_from(&mut Cursor::new(clip("clip.flac")), ParseOptions::new()).unwrap();
        let cover =
            Picture::unchecked(vec![7; 9_000]).pic_type(PictureType::CoverFront).mime_type(MimeType::Png).build();
        flac.insert_picture(cover, Some(PictureInformation::default())).unwrap();
        let mut memory = Cursor::new(clip("clip.flac"));
        flac.save_to(&mut memory, WriteOptions::new()).unwrap();
        let tagged = with_state(&memory.into_inner(), &jazz()).unwrap();
        let read = FlacFile::read_from(&mut Cursor::new(tagged.as_slice()), ParseOptions::new()).unwrap();
        assert_eq!(read.pictures().len(), 1);
        assert_eq!(state_of(&tagged), jazz());
    }
}
