//! What a scan tells its user: lines of JSON on standard output; progress, failures and the tally on standard error.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    path::Path,
    time::{Duration, Instant},
};

use chorale_library::{Found, ScanEvent, failure_title};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{
    outcome,
    stats::{files, hours, tracks},
};
use crate::render::{DIM, RED, shown, styled};

/// Files that are named for each reason to fail.
const EXAMPLES: usize = 3;
const SEARCHING: &str = "{spinner:.cyan} {human_pos} audio files found";
const LISTENING: &str = "{bar:32.cyan/dim} {human_pos}/{human_len} tracks, {rate} a second, {msg} of audio, {eta} left";

/// How many files had which outcome.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) classified: u64,
    pub(super) recognised: u64,
    pub(super) unchanged: u64,
    pub(super) failed: u64,
    pub(super) failed_before: u64,
    pub(super) gone: u64,
    /// Seconds of audio that were classified.
    pub(super) seconds: f64,
}

/// What a scan tells its user.
pub(super) struct Report {
    json: bool,
    /// A line for each file, also for people.
    lines: bool,
    progress: ProgressBar,
    started: Instant,
    pub(super) tally: Tally,
    failures: BTreeMap<String, Failures>,
}

/// Files that failed for one reason.
#[derive(Default)]
struct Failures {
    count: u64,
    examples: Vec<String>,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        let is_seen = std::io::stderr().is_terminal();
        let target = if is_seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let progress = ProgressBar::with_draw_target(None, target);
        let report = Self {
            json,
            lines: false,
            progress,
            started: Instant::now(),
            tally: Tally::default(),
            failures: BTreeMap::new(),
        };
        report.style(SEARCHING);
        report.progress.enable_steady_tick(Duration::from_millis(100));
        report
    }

    /// Shows how many files were found so far.
    pub(super) fn bar(&self) -> ProgressBar {
        self.progress.clone()
    }

    /// So many files are listened to from now on.
    pub(super) fn listen(&mut self, files: u64) {
        self.progress.reset();
        self.progress.set_length(files);
        self.progress.set_message(hours(0.0));
        self.style(LISTENING);
        self.started = Instant::now();
    }

    /// From now on, there is a line for each file and no bar.
    pub(super) fn follow(&mut self) {
        self.progress.finish_and_clear();
        self.lines = true;
    }

    pub(super) fn note(&self, text: &str) {
        if !self.json {
            self.progress.suspend(|| anstream::eprintln!("{text}"));
        }
    }

    pub(super) fn event(&mut self, event: &ScanEvent<'_>) {
        self.count(event);
        if self.json {
            match outcome::json_line(event) {
                Some(Ok(line)) => self.progress.suspend(|| print(&line)),
                Some(Err(error)) => tracing::error!(%error, "an outcome could not be written as JSON"),
                None => {}
            }
        } else if self.lines
            && let Some(line) = outcome::text_line(event)
        {
            print(&line);
        }
        self.progress.set_message(hours(self.tally.seconds));
    }

    fn count(&mut self, event: &ScanEvent<'_>) {
        match event {
            ScanEvent::Unchanged(_) => self.tally.unchanged += 1,
            ScanEvent::FailedBefore(_) => self.tally.failed_before += 1,
            ScanEvent::Gone(_) => self.tally.gone += 1,
            ScanEvent::Unreadable(unreadable) => self.failed("UNREADABLE", &unreadable.path, &unreadable.why),
            ScanEvent::Waiting(_) => {}
            ScanEvent::Finding(finding) => {
                self.progress.inc(1);
                match &finding.found {
                    Found::Classified(verdict) => {
                        self.tally.classified += 1;
                        self.tally.seconds += verdict.duration_seconds;
                    }
                    Found::Recognised(_) => self.tally.recognised += 1,
                    Found::Failed { code, message } => self.failed(code, &finding.file.path, message),
                    Found::Gone => self.tally.gone += 1,
                }
            }
        }
    }

    fn failed(&mut self, code: &str, path: &Path, message: &str) {
        self.tally.failed += 1;
        let failures = self.failures.entry(code.to_owned()).or_default();
        failures.count += 1;
        if failures.examples.len() < EXAMPLES {
            failures.examples.push(format!("{}: {message}", shown(path)));
        }
    }

    /// The tally, and the failures by their reasons, the most common one first; so many files are left.
    pub(super) fn finish(&self, left: u64) {
        self.progress.finish_and_clear();
        if self.json {
            return;
        }
        anstream::eprintln!("{}", self.summary(left));
        let mut failures: Vec<_> = self.failures.iter().collect();
        failures.sort_by_key(|(_, failures)| std::cmp::Reverse(failures.count));
        for (code, Failures { count, examples }) in failures {
            anstream::eprintln!("\n{}", styled(RED, format_args!("{} failed: {}", files(*count), failure_title(code))));
            for example in examples {
                anstream::eprintln!("  {example}");
            }
            let more = count - examples.len() as u64;
            if more > 0 {
                let hint = format!("  and {} more; `chorale library find --failed` lists all", HumanCount(more));
                anstream::eprintln!("{}", styled(DIM, hint));
            }
        }
    }

    fn summary(&self, left: u64) -> String {
        let Tally { classified, recognised, failed, failed_before, gone, seconds, unchanged } = self.tally;
        let elapsed = self.started.elapsed().as_secs_f64();
        let mut parts = Vec::new();
        if classified > 0 {
            let rate = classified as f64 / elapsed.max(1e-3);
            let (tracks, audio) = (tracks(classified), hours(seconds));
            parts.push(format!("{tracks} classified ({audio} of audio in {elapsed:.1} s, {rate:.0} a second)"));
        } else if recognised == 0 && failed == 0 {
            parts.push(if left > 0 { "nothing classified yet" } else { "nothing is new" }.to_owned());
        }
        let others = [
            (recognised, "known by their content"),
            (unchanged, "known already"),
            (failed, "failed"),
            (failed_before, "failed before and are not tried again without --retry-failed"),
            (gone, "gone"),
        ];
        parts.extend(
            others.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{} {what}", HumanCount(*count))),
        );
        parts.join(", ")
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // A bar that cannot be drawn is no reason to stop.
                let _ = write!(out, "{:.0}", state.per_sec());
            };
            self.progress.set_style(style.with_key("rate", rate));
        }
    }
}

/// An error leaves no bar behind.
impl Drop for Report {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}

/// A line on standard output. Who does not read it any more misses nothing: the index has it.
fn print(line: &str) {
    let _ = writeln!(anstream::stdout(), "{line}");
}
