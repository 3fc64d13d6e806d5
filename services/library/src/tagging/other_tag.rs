//! Tags that a file has beside those that players read first: they are kept in step, so that no two disagree.

use std::borrow::Cow;

use lofty::{
    ape::{ApeItem, ApeTag},
    config::{ParseOptions, WriteOptions},
    file::{AudioFile, FileType},
    id3::{v1::Id3v1Tag, v2::Id3v2Tag},
    iff::wav::{RiffInfoList, WavFile},
    mpeg::MpegFile,
    tag::{Accessor, ItemValue, Tag, TagExt, TagType},
};

use super::tag_file::{Memory, Tagged};

const APE_GENRE: &str = "Genre";

/// Such a tag.
pub(crate) enum OtherTag {
    /// At the end of an MP3 file; its genre is one of a list.
    Id3v1(Id3v1Tag),
    /// At the end of an MP3 file.
    Ape(ApeTag),
    /// In a WAV file, for the many players that know no ID3v2 there.
    RiffInfo(RiffInfoList),
}

impl OtherTag {
    /// The other tags of a file. A WAV file always has one: it may be empty.
    pub(crate) fn read(
        kind: FileType,
        file: &mut (impl std::io::Read + std::io::Seek),
        options: ParseOptions,
    ) -> Tagged<Vec<Self>> {
        Ok(match kind {
            FileType::Mpeg => {
                let mpeg = MpegFile::read_from(file, options)?;
                // An ID3v1 tag has the beginnings of names only.
                let ape = mpeg.ape().cloned().map(Self::Ape);
                ape.into_iter().chain(mpeg.id3v1().cloned().map(Self::Id3v1)).collect()
            }
            FileType::Wav => {
                let wav = WavFile::read_from(file, options)?;
                vec![Self::RiffInfo(wav.riff_info().cloned().unwrap_or_default())]
            }
            _ => Vec::new(),
        })
    }

    pub(crate) fn genre(&self) -> Option<String> {
        match self {
            Self::Id3v1(tag) => tag.genre(),
            Self::Ape(tag) => tag.genre(),
            Self::RiffInfo(tag) => tag.genre(),
        }
        .map(Cow::into_owned)
    }

    /// Names the first of `genres`, unless it names one of them already. A tag without a genre stays so, but for that of a WAV
    /// file. Returns whether that changed it.
    pub(crate) fn follow(&mut self, genres: &[String]) -> Tagged<bool> {
        let (Some(first), genre) = (genres.first().cloned(), self.genre()) else { return Ok(false) };
        if genre.as_ref().is_some_and(|genre| genres.contains(genre)) {
            return Ok(false);
        }
        match self {
            Self::Id3v1(_) | Self::Ape(_) if genre.is_none() => return Ok(false),
            Self::Id3v1(tag) => {
                // What is not on its list cannot be named.
                tag.remove_genre();
                tag.set_genre(first);
            }
            Self::Ape(tag) => tag.insert(ApeItem::new(APE_GENRE.to_owned(), ItemValue::Text(first))?),
            Self::RiffInfo(tag) => tag.set_genre(first),
        }
        Ok(true)
    }

    pub(crate) fn save(&self, file: &mut Memory, options: WriteOptions) -> Tagged<()> {
        match self {
            Self::Id3v1(tag) => tag.save_to(file, options),
            Self::Ape(tag) => tag.save_to(file, options),
            Self::RiffInfo(tag) => tag.save_to(file, options),
        }
    }

    /// The same as ID3v2. A file that had none is read by its new one alone: title and artist have to be in it, too.
    pub(crate) fn to_id3v2(&self) -> Id3v2Tag {
        let mut tag = match self {
            Self::Id3v1(tag) => Tag::from(tag.clone()),
            Self::Ape(tag) => Tag::from(tag.clone()),
            Self::RiffInfo(tag) => Tag::from(tag.clone()),
        };
        tag.re_map(TagType::Id3v2);
        tag.into()
    }
}
