use std::fs;

use ::parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};

use super::*;
use crate::testing::small_library;

fn exported(format: Format) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let index = small_library(folder.path());
    assert_eq!(export(&index, &Filter::default(), format, &mut bytes, Path::new("-")).unwrap(), 3);
    bytes
}

#[test]
fn a_file_name_says_which_format() {
    let of = |name: &str| Format::of_name(Path::new(name));
    assert_eq!(of("a.csv"), Some(Format::Csv));
    assert_eq!(of("a.JSONL"), Some(Format::JsonLines));
    assert_eq!(of("a.b.parquet"), Some(Format::Parquet));
    assert_eq!((of("csv"), of("a.xlsx")), (None, None));
}

#[test]
fn csv_has_a_header_and_quotes_what_needs_it() {
    let text = String::from_utf8(exported(Format::Csv)).unwrap();
    let mut lines = text.lines();
    let header = "path,artist,album,title,genre,confidence,duration_seconds,early,model_version,blake3_digest,\
                  probability_blues,probability_hip hop,probability_jazz";
    assert_eq!(lines.next(), Some(header));
    let digest = "01".repeat(32);
    let first = format!(r#"/m/a.mp3,"ÉTIENNE, ""X""",,So,jazz,0.9,30,false,1,{digest},0.1,,0.9"#);
    assert_eq!(lines.next(), Some(first.as_str()));
    assert_eq!(lines.count(), 2);
}

#[test]
fn json_lines_have_all_there_is() {
    let text = String::from_utf8(exported(Format::JsonLines)).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["artist"], "ÉTIENNE, \"X\"");
    assert_eq!(lines[0]["segments"][1]["genre"], "blues");
    assert_eq!(lines[0]["embedding"].as_array().unwrap().len(), 2);
    assert!(lines[1]["artist"].is_null());
    assert!(text.contains(r#""probabilities":{"jazz":0.9,"blues":0.1}"#), "most probable first: {text}");
}

#[test]
fn parquet_is_read_back_as_it_was_written() {
    let reader = {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&exported(Format::Parquet)).unwrap();
        SerializedFileReader::new(file).unwrap()
    };
    let rows: Vec<Row> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    let field = |row: usize, name: &str| {
        let found = rows[row].get_column_iter().find(|(column, _)| *column == name);
        found.unwrap_or_else(|| panic!("no column {name}")).1.clone()
    };
    assert_eq!(field(0, "artist"), Field::Str("ÉTIENNE, \"X\"".to_owned()));
    assert_eq!(field(1, "artist"), Field::Null);
    assert_eq!(field(0, "confidence"), Field::Double(0.9));
    assert_eq!(field(0, "probability_jazz"), Field::Double(0.9));
    assert_eq!(field(0, "probability_hip_hop"), Field::Null);
    let Field::ListInternal(embedding) = field(0, "embedding") else { panic!("{:?}", field(0, "embedding")) };
    assert_eq!(embedding.elements(), [Field::Float(0.6), Field::Float(0.8)]);
    let Field::ListInternal(none) = field(2, "embedding") else { panic!("{:?}", field(2, "embedding")) };
    assert!(none.elements().is_empty());
    let Field::ListInternal(segments) = field(1, "segments") else { panic!("{:?}", field(1, "segments")) };
    let Some(Field::Group(second)) = segments.elements().get(1) else { panic!("{segments:?}") };
    assert_eq!(second.get_column_iter().next().unwrap().1, &Field::Double(15.0));
}

/// Nobody reads any more.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn who_writes_to_nobody_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let index = small_library(folder.path());
    for format in [Format::Csv, Format::JsonLines, Format::Parquet] {
        let error = export(&index, &Filter::default(), format, Closed, Path::new("-")).unwrap_err();
        let LibraryError::Write { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::BrokenPipe, "{format:?}");
    }
}

#[test]
fn a_file_is_replaced_as_a_whole_or_left() {
    let folder = tempfile::tempdir().unwrap();
    let index = small_library(folder.path());
    let out = folder.path().join("out.csv");
    fs::write(&out, "before").unwrap();
    let polka = Filter { genres: vec!["polka".to_owned()], ..Filter::default() };
    export_to_file(&index, &polka, Format::Csv, &out).unwrap_err();
    assert_eq!(fs::read_to_string(&out).unwrap(), "before");
    assert_eq!(export_to_file(&index, &Filter::default(), Format::Csv, &out).unwrap(), 3);
    assert!(fs::read_to_string(&out).unwrap().starts_with("path,"));
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains(".chorale-")), "{names:?}");
    let nowhere = folder.path().join("no/such/folder.csv");
    let error = export_to_file(&index, &Filter::default(), Format::Csv, &nowhere).unwrap_err().to_string();
    assert!(error.contains("cannot be written"), "{error}");
}
