//! `chorale library stats`: the library in numbers.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use chorale_library::{GenreStatistics, Index, Statistics, failure_title};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{index_path, unless_closed, unwritten};
use crate::{
    cli::library::StatsArguments,
    exit::Exit,
    render::{BOLD, DIM, LABEL_WIDTH, YELLOW, bar, colour_of, styled},
};

const BAR_CELLS: usize = 24;
const SECONDS_PER_HOUR: f64 = 3600.0;

pub(crate) fn run(arguments: &StatsArguments) -> anyhow::Result<Exit> {
    let path = index_path(&arguments.index)?;
    let statistics = Index::open(&path)?.statistics()?;
    let text = if arguments.json {
        serde_json::to_string(&StatisticsObject::new(&path, &statistics))? + "\n"
    } else {
        page(&path, &statistics)
    };
    unless_closed(anstream::stdout().write_all(text.as_bytes()).map_err(unwritten))?;
    Ok(Exit::Done)
}

/// The bytes of the index on disk, with what is yet to be merged into it.
fn size_of(index: &Path) -> u64 {
    let log = PathBuf::from(format!("{}-wal", index.display()));
    [index, &log].iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}

fn page(path: &Path, statistics: &Statistics) -> String {
    let mut text = String::new();
    let summary = format!("{}, {}", tracks(statistics.tracks), hours(statistics.seconds));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}\n", styled(BOLD, summary));
    let most = statistics.genres.iter().map(|genre| genre.tracks).max().unwrap_or_default();
    for genre in &statistics.genres {
        let _ = writeln!(text, "{}", genre_row(genre, most, statistics.tracks));
    }
    if !statistics.genres.is_empty() {
        text.push('\n');
    }
    for failure in &statistics.failures {
        let count = HumanCount(failure.files);
        let _ = writeln!(text, "  {} {count} × {}", styled(YELLOW, "failed"), failure_title(&failure.code));
    }
    if !statistics.failures.is_empty() {
        let _ = writeln!(text, "         {}\n", styled(DIM, "`chorale library find --failed` lists them"));
    }
    if statistics.gone > 0 {
        let hint = styled(DIM, "`chorale library scan --prune DIR` forgets them");
        let _ = writeln!(text, "  {} {}, not counted above; {hint}\n", styled(YELLOW, "gone"), files(statistics.gone));
    }
    for (position, model) in statistics.models.iter().enumerate() {
        let which = if position == 0 { "" } else { ", an earlier one" };
        let _ = writeln!(text, "  model  {} {}: {}{which}", model.name, model.version, tracks(model.tracks));
    }
    let _ = writeln!(text, "  index  {}, {}", path.display(), HumanBytes(size_of(path)));
    text
}

fn genre_row(genre: &GenreStatistics, most: u64, all: u64) -> String {
    let share = genre.tracks as f64 / all.max(1) as f64;
    let of_most = genre.tracks as f64 / most.max(1) as f64;
    format!(
        "  {:<LABEL_WIDTH$} {:>7} {:>5.1} %  {}  {:>9}  {}",
        genre.genre,
        HumanCount(genre.tracks).to_string(),
        100.0 * share,
        styled(colour_of(&genre.genre), bar(of_most, BAR_CELLS)),
        hours(genre.seconds),
        styled(DIM, format_args!("{:.0} % sure", 100.0 * genre.mean_confidence)),
    )
}

/// A number of tracks in words.
pub(crate) fn tracks(count: u64) -> String {
    counted(count, "track")
}

/// A number of files in words.
pub(super) fn files(count: u64) -> String {
    counted(count, "file")
}

fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// Seconds as hours, or minutes where there are few.
pub(super) fn hours(seconds: f64) -> String {
    if seconds < SECONDS_PER_HOUR {
        return format!("{:.0} min", seconds / 60.0);
    }
    format!("{:.1} h", seconds / SECONDS_PER_HOUR)
}

#[derive(Serialize)]
struct StatisticsObject<'a> {
    index: String,
    index_bytes: u64,
    tracks: u64,
    duration_seconds: f64,
    genres: Vec<GenreObject<'a>>,
    failed: Vec<FailureObject<'a>>,
    gone: u64,
    models: Vec<ModelObject<'a>>,
}

#[derive(Serialize)]
struct GenreObject<'a> {
    genre: &'a str,
    tracks: u64,
    share: f64,
    duration_seconds: f64,
    mean_confidence: f64,
}

#[derive(Serialize)]
struct FailureObject<'a> {
    code: &'a str,
    files: u64,
}

#[derive(Serialize)]
struct ModelObject<'a> {
    name: &'a str,
    version: &'a str,
    tracks: u64,
    current: bool,
}

impl<'a> StatisticsObject<'a> {
    fn new(path: &Path, statistics: &'a Statistics) -> Self {
        let genre = |genre: &'a GenreStatistics| GenreObject {
            genre: &genre.genre,
            tracks: genre.tracks,
            share: genre.tracks as f64 / statistics.tracks.max(1) as f64,
            duration_seconds: genre.seconds,
            mean_confidence: genre.mean_confidence,
        };
        let models = statistics.models.iter().enumerate().map(|(position, model)| ModelObject {
            name: &model.name,
            version: &model.version,
            tracks: model.tracks,
            current: position == 0,
        });
        let failures = statistics.failures.iter();
        Self {
            index: path.display().to_string(),
            index_bytes: size_of(path),
            tracks: statistics.tracks,
            duration_seconds: statistics.seconds,
            genres: statistics.genres.iter().map(genre).collect(),
            failed: failures.map(|failure| FailureObject { code: &failure.code, files: failure.files }).collect(),
            gone: statistics.gone,
            models: models.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use chorale_library::{FailureStatistics, ModelStatistics};

    use super::*;

    #[test]
    fn a_page_shows_genres_failures_and_models() {
        let genre = |genre: &str, tracks, mean_confidence| GenreStatistics {
            genre: genre.to_owned(),
            tracks,
            seconds: 240.0 * tracks as f64,
            mean_confidence,
        };
        let model =
            |version: &str, tracks| ModelStatistics { name: "m".to_owned(), version: version.to_owned(), tracks };
        let statistics = Statistics {
            tracks: 1_500,
            seconds: 360_000.0,
            genres: vec![genre("jazz", 1_200, 0.81), genre("unknown", 300, 0.2)],
            failures: vec![FailureStatistics { code: "AUDIO_EMPTY".to_owned(), files: 2 }],
            gone: 1,
            models: vec![model("new", 1_499), model("old", 1)],
        };
        let text = anstream::adapter::strip_str(&page(Path::new("/no/index"), &statistics)).to_string();
        let expected = "\
1,500 tracks, 100.0 h

  jazz         1,200  80.0 %  ████████████████████████     80.0 h  81 % sure
  unknown        300  20.0 %  ██████                       20.0 h  20 % sure

  failed 2 × empty
         `chorale library find --failed` lists them

  gone 1 file, not counted above; `chorale library scan --prune DIR` forgets them

  model  m new: 1,499 tracks
  model  m old: 1 track, an earlier one
  index  /no/index, 0 B
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_empty_library_is_shown_as_one() {
        let text = page(Path::new("/no/index"), &Statistics::default());
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(text, "0 tracks, 0 min\n\n  index  /no/index, 0 B\n");
    }
}
