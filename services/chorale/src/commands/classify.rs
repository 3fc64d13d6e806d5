//! `chorale classify`: every track through the public RPC, of a server or of a cluster in this process.

use std::{
    io::IsTerminal,
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use chorale_client::{Client, Priority, Verdict};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::block_on;
use crate::{
    cli::classify::ClassifyArguments,
    client::{self, Manner, TrackError},
    exit::{Exit, UsageError},
    listener::{self, Listener},
    paths::{self, Track},
    render,
};

const DEFAULT_TOP: usize = 3;

pub(crate) fn run(arguments: &ClassifyArguments) -> anyhow::Result<Exit> {
    if arguments.paths.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
        return Err(UsageError("standard input (-) can be classified once only".to_owned()).into());
    }
    block_on(async {
        let flags = &arguments.listener;
        let listener = Listener::start(flags, listener::config(&flags.model)?, flags.timeout.into()).await?;
        let exit = classify_all(arguments, &listener.client).await;
        listener.end().await;
        exit
    })
}

async fn classify_all(arguments: &ClassifyArguments, client: &Client) -> anyhow::Result<Exit> {
    let tracks = paths::expand(&arguments.paths);
    let single = matches!(arguments.paths.as_slice(), [path] if !path.is_dir());
    let manner = Manner {
        early_error_rate: arguments.early.error_rate(),
        priority: if single { Priority::Interactive } else { Priority::Bulk },
        want_embedding: arguments.embedding,
    };
    let jobs = arguments
        .jobs
        .map_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get), usize::from)
        .min(tracks.len().max(1));
    let report = Report::new(arguments, &tracks);
    let started = Instant::now();
    let failures = AtomicUsize::new(0);
    futures::stream::iter(&tracks)
        .map(|track| {
            let report = &report;
            async move {
                let begun = Instant::now();
                let result = client::classify(client, track, manner, |seconds| report.heard(track, seconds)).await;
                (track, result, begun.elapsed())
            }
        })
        .buffered(jobs)
        .for_each(|(track, result, elapsed)| {
            if result.is_err() {
                failures.fetch_add(1, Ordering::Relaxed);
            }
            report.track(track, &result, elapsed);
            std::future::ready(())
        })
        .await;
    let failures = failures.into_inner();
    report.finish(tracks.len(), failures, started.elapsed());
    Ok(Exit::unless(failures > 0))
}

/// What the user sees: results on standard output; progress, errors and the tally on standard error.
struct Report {
    json: bool,
    cards: bool,
    several: bool,
    embedding: bool,
    top: usize,
    progress: ProgressBar,
}

impl Report {
    fn new(arguments: &ClassifyArguments, tracks: &[Track]) -> Self {
        let several = tracks.len() > 1;
        let default_top = if arguments.json { usize::MAX } else { DEFAULT_TOP };
        Self {
            json: arguments.json,
            cards: arguments.long || !several,
            several,
            embedding: arguments.embedding,
            top: arguments.top.map_or(default_top, |top| top as usize),
            progress: progress_bar(tracks.len()),
        }
    }

    fn heard(&self, track: &Track, seconds: f64) {
        if !self.several {
            self.progress.set_message(format!("{}: {seconds:.0} s heard", track.name()));
        }
    }

    fn track(&self, track: &Track, result: &Result<Verdict, TrackError>, elapsed: Duration) {
        let name = track.name();
        self.progress.suspend(|| match result {
            Ok(verdict) if self.json => {
                print_json(render::json_line(&name, verdict, self.top, self.embedding));
            }
            Ok(verdict) if self.cards => anstream::println!("{}", render::card(&name, verdict, elapsed, self.top)),
            Ok(verdict) => anstream::println!("{}", render::line(&name, verdict)),
            Err(error) if self.json => print_json(render::json_error_line(&name, error)),
            Err(error) => anstream::eprintln!("{}{name}:{} {error}", render::RED.render(), render::RED.render_reset()),
        });
        self.progress.inc(1);
    }

    fn finish(&self, tracks: usize, failures: usize, elapsed: Duration) {
        self.progress.finish_and_clear();
        if self.several && !self.json {
            let classified = tracks - failures;
            anstream::eprintln!("{classified} classified, {failures} failed, in {:.1} s", elapsed.as_secs_f64());
        }
    }
}

fn print_json(line: serde_json::Result<String>) {
    match line {
        Ok(line) => anstream::println!("{line}"),
        Err(error) => tracing::error!(%error, "a result could not be written as JSON"),
    }
}

/// A spinner for one track, a bar with an ETA for several, nothing where nobody looks.
fn progress_bar(tracks: usize) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let template = if tracks > 1 {
        "{bar:40.cyan/dim} {pos}/{len} tracks, {per_sec}, {eta} left"
    } else {
        "{spinner:.cyan} {msg}"
    };
    let bar = ProgressBar::with_draw_target(Some(tracks as u64), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
