//! From made-up tracks with hostile names to a page with pictures.

#![allow(clippy::unwrap_used)]

use std::{fmt::Write, fs, path::Path};

use chorale_model::contract::MEL_BANDS;
use chorale_trainer::{EvaluateOptions, Progress, Report, evaluate};
use roxmltree::{Document, ParsingOptions};

const FRAMES: usize = 120;
const HOSTILE: &str = "<script>alert('&')</script>";

/// One track of each of the embedded model's genres, all of them noise, so that most answers are wrong.
fn write_data(folder: &Path) {
    let labels = chorale_model::labels::GENRES;
    let shape = format!("({}, {MEL_BANDS}, {FRAMES})", labels.len());
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    let mut table = "row,track,genre,floor_db\n".to_owned();
    for (row, genre) in labels.iter().enumerate() {
        writeln!(table, "{row},{HOSTILE} {row},{genre},-80").unwrap();
        npy.extend((0..MEL_BANDS * FRAMES).map(|cell| (100 + cell * (2 * row + 7) % 150) as u8));
    }
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("mel_u8.npy"), npy).unwrap();
    fs::write(folder.join("tracks.csv"), table).unwrap();
}

fn measured(place: &Path) -> Report {
    write_data(&place.join("data"));
    let options = EvaluateOptions { data: place.join("data"), ..EvaluateOptions::default() };
    evaluate(&options, Progress::Hidden).unwrap()
}

fn has_text(document: &Document<'_>, wanted: &str) -> bool {
    document.descendants().any(|node| node.is_text() && node.text().is_some_and(|text| text.contains(wanted)))
}

#[test]
fn a_report_becomes_a_page_that_needs_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let report = measured(place.path());
    assert!(!report.surest_mistakes.is_empty());
    let folder = place.path().join("deep/report");
    report.save(&folder).unwrap();
    report.save(&folder).unwrap();
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["confusion.svg", "genres.svg", "index.html", "reliability.svg", "report.json"]);

    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(read("report.json"), serde_json::to_string(&report).unwrap());
    let page = read("index.html");
    let parsed = Document::parse_with_options(&page, ParsingOptions { allow_dtd: true, ..Default::default() }).unwrap();
    for name in ["confusion.svg", "genres.svg", "reliability.svg"] {
        let picture = read(name);
        let document = Document::parse(&picture).unwrap();
        assert!(
            document.root_element().children().any(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "title")))
        );
        assert!(page.contains(&picture), "{name} is part of the page");
        for genre in chorale_model::labels::GENRES.iter().filter(|_| name != "reliability.svg") {
            assert!(has_text(&document, genre), "{genre} is not in {name}");
        }
    }
    assert!(!page.contains("<script"), "names are escaped");
    assert!(has_text(&parsed, &report.surest_mistakes[0].track), "and told");
    let outside = ["src", "href", "srcset", "action"];
    assert!(!parsed.descendants().any(|node| node.attributes().any(|attribute| outside.contains(&attribute.name()))));
    assert!(!page.contains("url(") && !page.contains("@import"));
    for id in ["confusion", "genres", "reliability", "surest-mistakes"] {
        assert!(parsed.descendants().any(|node| node.attribute("id") == Some(id)), "{id}");
    }
    for absent in ["left-out", "learnt"] {
        assert!(!parsed.descendants().any(|node| node.attribute("id") == Some(absent)), "nothing was {absent}");
    }
}

#[test]
fn a_page_is_whole_whatever_names_and_numbers_are_in_it() {
    let place = tempfile::tempdir().unwrap();
    let mut report = measured(place.path());
    report.model = format!("</title>{HOSTILE}\u{0}");
    report.split = Some("\u{1b}[31m\u{ffff}".to_owned());
    for genre in &mut report.genres {
        genre.genre = format!("\u{7}{HOSTILE}{HOSTILE}");
        genre.precision = None;
    }
    report.skipped.push(chorale_trainer::Skipped { track: HOSTILE.to_owned(), reason: HOSTILE.to_owned() });
    report.surest_mistakes.clear();
    report.log_loss = f64::NAN;
    report.learnt = true;
    report.save(place.path()).unwrap();
    let page = fs::read_to_string(place.path().join("index.html")).unwrap();
    Document::parse_with_options(&page, ParsingOptions { allow_dtd: true, ..Default::default() }).unwrap();
    assert!(!page.contains("<script") && page.contains("left-out") && page.contains("what it may remember"));
}

#[test]
fn many_genres_fit_on_a_page() {
    let place = tempfile::tempdir().unwrap();
    let mut report = measured(place.path());
    let genre = report.genres[0].clone();
    report.genres = (0..200).map(|_| genre.clone()).collect();
    report.confusion = (0..200).map(|row| (0..200).map(|said| usize::from(row == said)).collect()).collect();
    report.save(place.path()).unwrap();
    let length = fs::metadata(place.path().join("confusion.svg")).unwrap().len();
    assert!(length < 1 << 20, "{length} bytes");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let place = tempfile::tempdir().unwrap();
    let report = measured(place.path());
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let error = report.save(&file).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write {}", file.display())), "{error}");
    fs::create_dir_all(place.path().join("taken/genres.svg")).unwrap();
    let error = report.save(&place.path().join("taken")).unwrap_err().to_string();
    assert!(error.contains("taken/genres.svg"), "{error}");
}
