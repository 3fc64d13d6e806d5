//! `chorale library scan`: classify what is new in folders.

use std::path::{Path, PathBuf};

use chorale_library::{Index, LibraryError, ScanEvent, ScanLock, ScanOptions, Scanner, Stop, roots};
use serde::Serialize;

use super::{
    index_path, listening,
    report::Report,
    stats::{files, tracks},
};
use crate::{
    cli::library::ScanArguments,
    commands::block_on,
    exit::{Exit, UsageError},
    listener,
};

const FAREWELL: &str = "stopping when what is in flight is done; Ctrl-C again stops at once";

pub(crate) fn run(arguments: &ScanArguments) -> anyhow::Result<Exit> {
    let config = listener::config(&arguments.listening.listener.model)?;
    let path = index_path(&arguments.index)?;
    let index = Index::create(&path)?;
    let _lock = ScanLock::take(&path)?;
    let mut report = Report::new(arguments.json);
    let roots = existing(&arguments.folders, &mut report)?;
    let options = ScanOptions {
        rescan: arguments.rescan,
        retry_failed: arguments.retry_failed,
        ..listening::scan_options(&arguments.listening)
    };
    block_on(async {
        let stop = listening::stop_at_signal(FAREWELL);
        let listener = listening::listener(&arguments.listening, config).await?;
        let scanner = Scanner::start(index, listener.client.clone(), options).await?;
        let ended = scan(&scanner, &roots, &stop, &mut report).await;
        listener.end().await;
        let ended = ended?;
        let complete = ended.left == 0 && !ended.interrupted;
        if complete {
            scanner.complete()?;
        }
        let pruned = if complete && arguments.prune { scanner.prune(&roots)? } else { 0 };
        report.finish(ended.left);
        conclude(arguments, &path, &scanner, &ended, pruned, &report);
        if let Some(error) = ended.trouble {
            return Err(error.into());
        }
        Ok(Exit::unless(report.tally.failed > 0 || !complete))
    })
}

/// The folders that are there; the others count as failed.
///
/// # Errors
/// If none is there.
pub(super) fn existing(named: &[PathBuf], report: &mut Report) -> Result<Vec<PathBuf>, UsageError> {
    let (found, missing) = roots(named);
    if let (true, Some(first)) = (found.is_empty(), missing.first()) {
        return Err(UsageError(format!("{}: {}", first.path.display(), first.why)));
    }
    for unreadable in &missing {
        report.event(&ScanEvent::Unreadable(unreadable));
    }
    Ok(found)
}

/// How a scan ended.
pub(super) struct Ended {
    /// Files that were not looked at.
    pub(super) left: u64,
    /// Whether there may be others that were not found.
    pub(super) interrupted: bool,
    /// Why, if a server is to blame.
    pub(super) trouble: Option<chorale_client::ClientError>,
}

/// Looks for files, marks those that are gone, and classifies the others.
pub(super) async fn scan(
    scanner: &Scanner,
    roots: &[PathBuf],
    stop: &Stop,
    report: &mut Report,
) -> Result<Ended, LibraryError> {
    say_of_models(scanner, report);
    let bar = report.bar();
    let on_progress = |files| bar.set_position(files);
    let plan = scanner.plan(roots, stop, on_progress, &mut |event| report.event(&event))?;
    if !stop.is_wanted() {
        scanner.mark_gone(roots, &mut |event| report.event(&event))?;
    }
    let (todo, interrupted) = (plan.todo.len() as u64, plan.interrupted);
    report.note(&format!(
        "{} found, {} known already, {} to classify with {} {}",
        files(plan.files()),
        plan.unchanged + plan.failed_before,
        tracks(todo),
        scanner.model().name,
        scanner.model().version,
    ));
    report.listen(todo);
    let before = done(report);
    let trouble = scanner.run(plan.todo, stop, &mut |event| report.event(&event)).await?;
    Ok(Ended { left: todo.saturating_sub(done(report) - before), interrupted, trouble })
}

/// Files that were looked at.
fn done(report: &Report) -> u64 {
    let tally = &report.tally;
    tally.classified + tally.recognised + tally.failed + tally.gone
}

fn say_of_models(scanner: &Scanner, report: &Report) {
    if let Some(previous) = scanner.previous_model() {
        report.note(&format!(
            "The last scan was with the model {} {}, and this one is with {} {}: tracks are classified again, unless this \
             model has heard them before. Until then, their earlier verdicts count.",
            previous.name,
            previous.version,
            scanner.model().name,
            scanner.model().version,
        ));
    }
}

fn conclude(arguments: &ScanArguments, index: &Path, scanner: &Scanner, ended: &Ended, pruned: u64, report: &Report) {
    if arguments.json {
        match serde_json::to_string(&SummaryLine { summary: Summary::new(index, scanner, ended, pruned, report) }) {
            Ok(line) => anstream::println!("{line}"),
            Err(error) => tracing::error!(%error, "the summary could not be written as JSON"),
        }
        return;
    }
    if pruned > 0 {
        anstream::eprintln!("{} forgotten", files(pruned));
    }
    if ended.left > 0 {
        anstream::eprintln!("{} left; the same command goes on from here", tracks(ended.left));
    }
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    summary: Summary<'a>,
}

#[derive(Serialize)]
struct Summary<'a> {
    classified: u64,
    recognised: u64,
    unchanged: u64,
    failed: u64,
    failed_before: u64,
    gone: u64,
    pruned: u64,
    left: u64,
    duration_seconds: f64,
    elapsed_seconds: f64,
    model: ModelObject<'a>,
    index: String,
}

#[derive(Serialize)]
struct ModelObject<'a> {
    name: &'a str,
    version: &'a str,
}

impl<'a> Summary<'a> {
    fn new(index: &Path, scanner: &'a Scanner, ended: &Ended, pruned: u64, report: &Report) -> Self {
        let tally = &report.tally;
        Self {
            classified: tally.classified,
            recognised: tally.recognised,
            unchanged: tally.unchanged,
            failed: tally.failed,
            failed_before: tally.failed_before,
            gone: tally.gone,
            pruned,
            left: ended.left,
            duration_seconds: tally.seconds,
            elapsed_seconds: report.elapsed().as_secs_f64(),
            model: ModelObject { name: &scanner.model().name, version: &scanner.model().version },
            index: index.display().to_string(),
        }
    }
}
