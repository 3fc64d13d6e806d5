//! The library as a Parquet file: typed columns, compressed, with lists for segments and embedding.

use std::{collections::BTreeSet, fmt::Write as _, io, io::Write, path::Path, sync::Arc};

use parquet::{
    basic::Compression,
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, FloatType},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};

use super::unwritten;
use crate::{Filter, Index, IndexedTrack, LibraryError, Stretch};

/// Tracks in a row group: a few megabytes with their embeddings.
const GROUP: usize = 4096;

/// Present, and the first of its list.
const DEFINED: i16 = 1;

pub(super) fn export<W: Write + Send>(
    index: &Index,
    filter: &Filter,
    out: W,
    name: &Path,
) -> Result<u64, LibraryError> {
    let unwritten = unwritten(name);
    let failed = |error: ParquetError| unwritten(of_file(error));
    let labels = index.labels()?;
    let schema = Arc::new(parse_message_type(&schema(&labels)).map_err(failed)?);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(failed)?;
    let mut group = Vec::with_capacity(GROUP);
    let mut count = 0;
    index.visit(filter, |indexed| {
        count += 1;
        group.push(indexed);
        if group.len() == GROUP {
            write_group(&mut writer, &group, &labels).map_err(failed)?;
            group.clear();
        }
        Ok::<_, LibraryError>(())
    })?;
    if !group.is_empty() {
        write_group(&mut writer, &group, &labels).map_err(failed)?;
    }
    if let Some(model) = index.current_model()? {
        writer.append_key_value_metadata(KeyValue::new("chorale.model_version".to_owned(), model.version));
    }
    writer.close().map_err(failed)?;
    Ok(count)
}

/// The file system's own error, where it is one.
fn of_file(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => error.downcast::<io::Error>().map_or_else(io::Error::other, |error| *error),
        other => io::Error::other(other),
    }
}

/// The columns, in the order in which [`write_group`] fills them. A label that is no word of letters and digits has other
/// characters replaced.
fn schema(labels: &BTreeSet<String>) -> String {
    let mut schema = "message track {
        required binary path (UTF8);
        optional binary artist (UTF8);
        optional binary album (UTF8);
        optional binary title (UTF8);
        required binary genre (UTF8);
        required double confidence;
        required double duration_seconds;
        required boolean early;
        required binary model_version (UTF8);
        required fixed_len_byte_array(32) blake3_digest;\n"
        .to_owned();
    for label in labels {
        // Writing to a string cannot fail.
        let _ = writeln!(schema, "optional double probability_{};", word(label));
    }
    schema.push_str(
        "required group segments (LIST) { repeated group list { required group element {
            required double start_seconds;
            required double end_seconds;
            required binary genre (UTF8);
            required double confidence;
        } } }
        required group embedding (LIST) { repeated group list { required float element; } }
    }",
    );
    schema
}

fn word(label: &str) -> String {
    label.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' }).collect()
}

fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    tracks: &[IndexedTrack],
    labels: &BTreeSet<String>,
) -> Result<(), ParquetError> {
    let mut columns = Columns(writer.next_row_group()?);
    columns.required::<ByteArrayType>(tracks, |row| text(&row.track.path.to_string_lossy()))?;
    columns.optional::<ByteArrayType>(tracks, |row| row.track.artist.as_deref().map(text))?;
    columns.optional::<ByteArrayType>(tracks, |row| row.track.album.as_deref().map(text))?;
    columns.optional::<ByteArrayType>(tracks, |row| row.track.title.as_deref().map(text))?;
    columns.required::<ByteArrayType>(tracks, |row| text(&row.track.genre))?;
    columns.required::<DoubleType>(tracks, |row| row.track.confidence)?;
    columns.required::<DoubleType>(tracks, |row| row.track.duration_seconds)?;
    columns.required::<BoolType>(tracks, |row| row.early)?;
    columns.required::<ByteArrayType>(tracks, |row| text(&row.track.model_version))?;
    columns.required::<FixedLenByteArrayType>(tracks, |row| ByteArray::from(row.track.digest.to_vec()).into())?;
    for label in labels {
        columns.optional::<DoubleType>(tracks, |row| {
            row.track.probabilities.iter().find(|(genre, _)| genre == label).map(|(_, probability)| *probability)
        })?;
    }
    let stretches = |row: &IndexedTrack| row.segments.clone();
    columns.list::<DoubleType, Stretch>(tracks, stretches, |stretch| stretch.start_seconds)?;
    columns.list::<DoubleType, Stretch>(tracks, stretches, |stretch| stretch.end_seconds)?;
    columns.list::<ByteArrayType, Stretch>(tracks, stretches, |stretch| text(&stretch.genre))?;
    columns.list::<DoubleType, Stretch>(tracks, stretches, |stretch| stretch.confidence)?;
    columns.list::<FloatType, f32>(tracks, |row| row.track.embedding.clone(), |number| *number)?;
    columns.0.close()?;
    Ok(())
}

fn text(text: &str) -> ByteArray {
    ByteArray::from(text)
}

/// The columns of a row group, one after the other.
struct Columns<'a, W: Write>(SerializedRowGroupWriter<'a, W>);

impl<W: Write + Send> Columns<'_, W> {
    fn required<T: DataType>(
        &mut self,
        tracks: &[IndexedTrack],
        value: impl Fn(&IndexedTrack) -> T::T,
    ) -> Result<(), ParquetError> {
        let values: Vec<T::T> = tracks.iter().map(value).collect();
        self.write::<T>(&values, None, None)
    }

    fn optional<T: DataType>(
        &mut self,
        tracks: &[IndexedTrack],
        value: impl Fn(&IndexedTrack) -> Option<T::T>,
    ) -> Result<(), ParquetError> {
        let values: Vec<Option<T::T>> = tracks.iter().map(value).collect();
        let definitions: Vec<i16> = values.iter().map(|value| if value.is_some() { DEFINED } else { 0 }).collect();
        let values: Vec<T::T> = values.into_iter().flatten().collect();
        self.write::<T>(&values, Some(&definitions), None)
    }

    /// A column of lists: a repetition level of 0 begins the list of the next track, and an empty one defines nothing.
    fn list<T: DataType, I>(
        &mut self,
        tracks: &[IndexedTrack],
        items: impl Fn(&IndexedTrack) -> Vec<I>,
        value: impl Fn(&I) -> T::T,
    ) -> Result<(), ParquetError> {
        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        for track in tracks {
            let items = items(track);
            if items.is_empty() {
                definitions.push(0);
                repetitions.push(0);
            }
            for (position, item) in items.iter().enumerate() {
                values.push(value(item));
                definitions.push(DEFINED);
                repetitions.push(i16::from(position > 0));
            }
        }
        self.write::<T>(&values, Some(&definitions), Some(&repetitions))
    }

    fn write<T: DataType>(
        &mut self,
        values: &[T::T],
        definitions: Option<&[i16]>,
        repetitions: Option<&[i16]>,
    ) -> Result<(), ParquetError> {
        let missing = || ParquetError::General("more columns than the schema has".to_owned());
        let mut column = self.0.next_column()?.ok_or_else(missing)?;
        column.typed::<T>().write_batch(values, definitions, repetitions)?;
        column.close()
    }
}
