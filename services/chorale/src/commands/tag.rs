//! `chorale tag`: genres into the files' own tags, and out of them again.

use std::{io::Write, path::Path};

use chorale_library::{
    FieldChange, Index, KnownTrack, LibraryError, TagAction, journal_of, preview_tags, tag_runs, undo_tags, write_tags,
};
use indicatif::ProgressBar;
use serde::Serialize;

use super::library::{index_path, places, usage};
use crate::{cli::tag::TagArguments, exit::Exit, progress, render_tags};

/// Verdicts that are less sure than this are worth a word.
const UNSURE: f64 = 0.5;

pub(crate) fn run(arguments: &TagArguments) -> anyhow::Result<Exit> {
    let index = index_path(&arguments.index)?;
    let journal = arguments.backup.clone().unwrap_or_else(|| journal_of(&index));
    if arguments.runs {
        return runs(&journal, arguments.json);
    }
    let mut index = Index::open(&index)?;
    if let Some(run) = arguments.undo {
        return undo(&mut index, &journal, run, arguments.json);
    }
    let tracks = index.tracks(&arguments.filter.filter(places(&arguments.paths)?)).map_err(usage)?;
    let mut report = Report::new(arguments, tracks.len());
    let existing = arguments.existing_genre();
    if arguments.write {
        let run = write_tags(&mut index, &journal, &tracks, existing, |track, outcome| report.track(track, &outcome));
        report.progress.finish_and_clear();
        report.finish(run?);
    } else {
        preview_tags(&tracks, existing, |track, outcome| report.track(track, &outcome));
        report.progress.finish_and_clear();
        report.finish(None);
    }
    Ok(Exit::unless(report.counts.failed > 0))
}

fn runs(journal: &Path, json: bool) -> anyhow::Result<Exit> {
    let runs = tag_runs(journal)?;
    for run in &runs {
        say(&if json { serde_json::to_string(run)? } else { render_tags::run(run) });
    }
    if runs.is_empty() && !json {
        anstream::eprintln!("no run of `chorale tag --write` can be undone");
    }
    Ok(Exit::Done)
}

fn undo(index: &mut Index, journal: &Path, run: Option<i64>, json: bool) -> anyhow::Result<Exit> {
    let (mut restored, mut failed) = (0, 0);
    let run = undo_tags(index, journal, run, |path, outcome| {
        let name = if outcome.is_ok() { "restored" } else { "failed" };
        match &outcome {
            Ok(()) => restored += 1,
            Err(_) => failed += 1,
        }
        if json {
            let error = outcome.as_ref().err().map(ToString::to_string);
            print_json(&FileLine { path: &path.to_string_lossy(), outcome: name, changes: &[], genres: &[], error });
        } else if let Err(error) = outcome {
            anstream::eprintln!("{}", render_tags::failure(path, &error));
        }
    })?;
    if !json {
        anstream::eprintln!("{}", render_tags::undone(run, restored, failed));
    }
    Ok(Exit::unless(failed > 0))
}

/// A line of `--json`.
#[derive(Serialize)]
struct FileLine<'a> {
    path: &'a str,
    /// `tagged`, or `would_tag` without --write; `unchanged`, `kept`, `unknown`, `restored` or `failed`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    changes: &'a [FieldChange],
    /// What is kept.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    genres: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Prints a line. Who reads the output may have seen enough, as `head` does: the work goes on.
fn say(line: &str) {
    let _ = writeln!(anstream::stdout(), "{line}");
}

fn print_json(line: &impl Serialize) {
    match serde_json::to_string(line) {
        Ok(line) => say(&line),
        Err(error) => tracing::error!(%error, "a result could not be written as JSON"),
    }
}

/// The last line of `--json`.
#[derive(Serialize)]
struct SummaryLine<'a> {
    summary: Summary<'a>,
}

#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    counts: &'a Counts,
    /// What --undo takes, if anything was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<i64>,
}

/// How many files had which fate.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Counts {
    /// Those that were tagged, or would be.
    pub(crate) changed: usize,
    pub(crate) unchanged: usize,
    pub(crate) kept: usize,
    pub(crate) unknown: usize,
    pub(crate) failed: usize,
    /// Of those that change, how many verdicts are less than half sure.
    pub(crate) unsure: usize,
}

/// What the user sees: changes on standard output; progress, errors and the tally on standard error.
struct Report {
    json: bool,
    write: bool,
    counts: Counts,
    progress: ProgressBar,
}

impl Report {
    fn new(arguments: &TagArguments, tracks: usize) -> Self {
        let progress = progress::bar(tracks, "files");
        Self { json: arguments.json, write: arguments.write, counts: Counts::default(), progress }
    }

    fn track(&mut self, track: &KnownTrack, outcome: &Result<TagAction, LibraryError>) {
        let path = track.path.to_string_lossy();
        let line = |outcome| FileLine { path: &path, outcome, changes: &[], genres: &[], error: None };
        let (line, text) = match outcome {
            Ok(TagAction::Change(changes)) => {
                self.counts.changed += 1;
                self.counts.unsure += usize::from(track.confidence < UNSURE);
                let name = if self.write { "tagged" } else { "would_tag" };
                (FileLine { changes, ..line(name) }, Some(render_tags::changes(&track.path, changes)))
            }
            Ok(TagAction::Kept(genres)) => {
                self.counts.kept += 1;
                (FileLine { genres, ..line("kept") }, Some(render_tags::kept(track, genres)))
            }
            Ok(TagAction::Same) => {
                self.counts.unchanged += 1;
                (line("unchanged"), None)
            }
            Ok(TagAction::NoGenre) => {
                self.counts.unknown += 1;
                (line("unknown"), None)
            }
            Err(error) => {
                self.counts.failed += 1;
                (FileLine { error: Some(error.to_string()), ..line("failed") }, None)
            }
        };
        self.progress.suspend(|| match (outcome, text) {
            _ if self.json => print_json(&line),
            (Err(error), _) => anstream::eprintln!("{}", render_tags::failure(&track.path, error)),
            (Ok(_), Some(text)) => say(&text),
            (Ok(_), None) => {}
        });
        self.progress.inc(1);
    }

    fn finish(&self, run: Option<i64>) {
        if self.json {
            print_json(&SummaryLine { summary: Summary { counts: &self.counts, run } });
        } else {
            anstream::eprintln!("{}", render_tags::tally(&self.counts, self.write, run));
        }
    }
}
