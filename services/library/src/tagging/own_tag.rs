//! The four kinds of tags, each with the fields that tagging is about.

use lofty::{
    TextEncoding,
    ape::{ApeItem, ApeTag},
    config::WriteOptions,
    file::AudioFile,
    flac::FlacFile,
    id3::v2::{Frame, FrameId, Id3v2Tag, Id3v2Version, TextInformationFrame},
    mp4::{Atom, AtomData, AtomIdent, Ilst},
    ogg::{OggPictureStorage, VorbisComments},
    tag::{ItemValue, TagExt},
};

use super::tag_file::{Memory, Tagged};

const ID3V2_GENRE: FrameId<'static> = FrameId::Valid(std::borrow::Cow::Borrowed("TCON"));
const ID3V2_SEPARATOR: &str = "\0";
const VORBIS_GENRE: &str = "GENRE";
const MP4_GENRE: AtomIdent<'static> = AtomIdent::Fourcc(*b"\xa9gen");
/// The name space that players and other taggers use for fields of their own.
const MP4_MEAN: &str = "com.apple.iTunes";
const APE_GENRE: &str = "Genre";

/// The kind of tags that players read in a kind of file.
pub(crate) enum OwnTag {
    /// MP3, WAV and AIFF.
    Id3v2(Box<Id3v2Tag>),
    /// Ogg.
    Vorbis(VorbisComments),
    /// FLAC, whose pictures lie beside the comments.
    Flac(Box<FlacFile>),
    /// MP4.
    Mp4(Ilst),
    /// Monkey's Audio, Musepack and WavPack.
    Ape(ApeTag),
}

impl OwnTag {
    /// The genres, as text.
    pub(crate) fn genres(&self) -> Vec<String> {
        match self {
            Self::Id3v2(tag) => tag.genres().map(|genres| owned(genres.filter(|genre| !genre.is_empty()))),
            Self::Vorbis(tag) => Some(owned(tag.get_all(VORBIS_GENRE))),
            Self::Flac(file) => file.vorbis_comments().map(|tag| owned(tag.get_all(VORBIS_GENRE))),
            Self::Mp4(tag) => tag.get(&MP4_GENRE).map(|atom| owned(atom.data().filter_map(text))),
            Self::Ape(tag) => tag.get(APE_GENRE).and_then(ApeItem::text_values).map(owned),
        }
        .unwrap_or_default()
    }

    /// A field of ours.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        match self {
            Self::Id3v2(tag) => tag.get_user_text(name),
            Self::Vorbis(tag) => tag.get(name),
            Self::Flac(file) => file.vorbis_comments().and_then(|tag| tag.get(name)),
            Self::Mp4(tag) => tag.get(&freeform(name)).and_then(|atom| atom.data().find_map(text)),
            Self::Ape(tag) => tag.get(name).and_then(ApeItem::text_values).and_then(|mut values| values.next()),
        }
        .map(str::to_owned)
    }

    pub(crate) fn set_genres(&mut self, genres: &[String]) -> Tagged<()> {
        match self {
            Self::Id3v2(tag) => {
                tag.retain(|frame| *frame.id() != ID3V2_GENRE);
                let value = genres.join(ID3V2_SEPARATOR);
                tag.insert(Frame::Text(TextInformationFrame::new(ID3V2_GENRE, TextEncoding::UTF8, value)));
            }
            Self::Vorbis(tag) => set_comments(tag, VORBIS_GENRE, genres),
            Self::Flac(file) => set_flac_comments(file, VORBIS_GENRE, genres),
            Self::Mp4(tag) => set_atom(tag, MP4_GENRE, genres),
            Self::Ape(tag) => tag.insert(ApeItem::new(APE_GENRE.to_owned(), ItemValue::Text(genres.join("\0")))?),
        }
        Ok(())
    }

    /// Sets a field of ours.
    pub(crate) fn set_field(&mut self, name: &str, value: &str) -> Tagged<()> {
        let values = [value.to_owned()];
        match self {
            Self::Id3v2(tag) => {
                tag.remove_user_text(name);
                tag.insert_user_text(name.to_owned(), value.to_owned());
            }
            Self::Vorbis(tag) => set_comments(tag, name, &values),
            Self::Flac(file) => set_flac_comments(file, name, &values),
            Self::Mp4(tag) => set_atom(tag, freeform(name).into_owned(), &values),
            Self::Ape(tag) => tag.insert(ApeItem::new(name.to_owned(), ItemValue::Text(value.to_owned()))?),
        }
        Ok(())
    }

    /// Whether the tag is ID3v2 of a version before 2.4, which some players know no other than.
    pub(crate) fn is_old_id3v2(&self) -> bool {
        matches!(self, Self::Id3v2(tag) if !tag.is_empty() && tag.original_version() != Id3v2Version::V4)
    }

    /// Writes the tag into a file.
    pub(crate) fn save(&self, file: &mut Memory, options: WriteOptions) -> Tagged<()> {
        match self {
            Self::Id3v2(tag) => tag.save_to(file, options),
            Self::Vorbis(tag) => tag.save_to(file, options),
            Self::Flac(flac) => flac.save_to(file, options),
            Self::Mp4(tag) => tag.save_to(file, options),
            Self::Ape(tag) => tag.save_to(file, options),
        }
    }

    /// What is in the tag, one entry an item, to see that nothing gets lost.
    pub(crate) fn inventory(&self) -> Vec<String> {
        let mut items: Vec<String> = match self {
            Self::Id3v2(tag) => (&**tag).into_iter().map(|frame| frame.id_str().to_owned()).collect(),
            Self::Vorbis(tag) => comment_list(tag),
            Self::Flac(file) => {
                let pictures = file.pictures().iter().map(|(picture, _)| format!("picture {}", picture.data().len()));
                file.vorbis_comments().map(comment_list).unwrap_or_default().into_iter().chain(pictures).collect()
            }
            Self::Mp4(tag) => {
                tag.into_iter().map(|atom| format!("{:?} {}", atom.ident(), atom.data().count())).collect()
            }
            Self::Ape(tag) => tag.into_iter().map(|item| item.key().to_owned()).collect(),
        };
        items.sort_unstable();
        items
    }
}

fn owned<'a>(values: impl Iterator<Item = &'a str>) -> Vec<String> {
    values.map(str::to_owned).collect()
}

fn comment_list(tag: &VorbisComments) -> Vec<String> {
    tag.items().map(|(key, value)| format!("{key}={value}")).collect()
}

fn set_comments(tag: &mut VorbisComments, key: &str, values: &[String]) {
    // What is removed is gone once the iterator is.
    drop(tag.remove(key));
    for value in values {
        tag.push(key.to_owned(), value.clone());
    }
}

fn set_flac_comments(file: &mut FlacFile, key: &str, values: &[String]) {
    let mut tag = file.remove_vorbis_comments().unwrap_or_default();
    set_comments(&mut tag, key, values);
    file.set_vorbis_comments(tag);
}

fn freeform(name: &str) -> AtomIdent<'_> {
    AtomIdent::Freeform { mean: MP4_MEAN.into(), name: name.into() }
}

fn text(data: &AtomData) -> Option<&str> {
    match data {
        AtomData::UTF8(text) | AtomData::UTF16(text) => Some(text),
        _ => None,
    }
}

fn set_atom(tag: &mut Ilst, ident: AtomIdent<'static>, values: &[String]) {
    let data = values.iter().cloned().map(AtomData::UTF8).collect();
    drop(tag.remove(&ident));
    if let Some(atom) = Atom::from_collection(ident, data) {
        tag.insert(atom);
    }
}
