//! A report as a folder: the pictures, the numbers, and a page that holds them all.

use std::path::Path;

use askama::Template;

use crate::{
    Report, Result, TrainerError, file,
    picture::{self, printable},
    report::LEARNT,
};

const PAGE_FILE: &str = "index.html";
const NUMBERS_FILE: &str = "report.json";
const CONFUSION_FILE: &str = "confusion.svg";
const RELIABILITY_FILE: &str = "reliability.svg";
const GENRES_FILE: &str = "genres.svg";

/// What the page shows. Everything but the pictures is escaped where it is put in.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    confusion: &'a str,
    reliability: &'a str,
    genres: &'a str,
}

impl Page<'_> {
    /// What was measured, in words.
    fn measured(&self) -> String {
        let split =
            self.report.split.as_deref().map_or(String::new(), |split| format!(" of the split “{}”", printable(split)));
        format!("{} tracks{split}, {} chunks", self.report.tracks, self.report.chunks)
    }

    fn interval(&self) -> String {
        let [low, high] = self.report.track_accuracy_interval.map(|share| share * 100.0);
        format!("{low:.1} to {high:.1} %")
    }
}

/// `share` in percent, as the page writes it.
fn percent(share: &f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `share` in percent, or a dash.
fn percent_if_any(share: &Option<f64>) -> String {
    share.as_ref().map_or("–".to_owned(), percent)
}

/// Writes the report into `folder`, the page last: who finds it finds what it was made from beside it.
pub(crate) fn save(report: &Report, folder: &Path) -> Result<()> {
    let confusion = picture::confusion(report)?;
    let reliability = picture::reliability(report)?;
    let genres = picture::genres(report)?;
    let page = Page { report, confusion: &confusion, reliability: &reliability, genres: &genres };
    let page = page.render().map_err(|error| TrainerError::Picture(error.into()))?;
    let numbers = serde_json::to_vec(report).map_err(|error| TrainerError::Picture(error.into()))?;
    file::create_folder(folder)?;
    file::write(&folder.join(CONFUSION_FILE), confusion.as_bytes())?;
    file::write(&folder.join(RELIABILITY_FILE), reliability.as_bytes())?;
    file::write(&folder.join(GENRES_FILE), genres.as_bytes())?;
    file::write(&folder.join(NUMBERS_FILE), &numbers)?;
    file::write(&folder.join(PAGE_FILE), page.as_bytes())
}
