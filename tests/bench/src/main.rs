//! Chorale's speed beside that of its rivals, on this machine, in one run. `tests/bench/run` installs the rivals.
//!
//! Every contender is a process of its own that does its work as often as it is told and says how long it took. Contenders
//! take turns, many times over, and what is reported is the median of the ratios of neighbours: whatever else the machine
//! does slows all of them. What they answer is compared first, so that nobody wins by doing something else.

mod cached;
mod contender;
mod entries;
mod gpu;
mod held;
mod load;
mod ours;
mod plot;
mod race;
mod report;
mod rows;
mod served;
mod served_rivals;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use indicatif::ProgressBar;

use crate::{
    ours::Work,
    rows::{Rival, Setting},
};

#[derive(Parser)]
#[command(about = "Measures Chorale beside its rivals, and prints ratios.", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Rows to measure, by the beginning of their names [default: all]
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// List the rows and their goals, and measure nothing
    #[arg(long)]
    list: bool,
    /// The track that is decoded and classified
    #[arg(long, value_name = "FILE", default_value = "tests/fixtures/genres/blues.mp3")]
    audio: PathBuf,
    /// The model folder
    #[arg(long, value_name = "DIR", default_value = "deploy/models/default")]
    model: PathBuf,
    /// The Python that has the rivals
    #[arg(long, value_name = "FILE", default_value = "target/tools/bench/bin/python")]
    python: PathBuf,
    /// Leave out the rivals that are not our own, and need no Python
    #[arg(long)]
    own: bool,
    /// How often every contender takes its turn
    #[arg(long, default_value_t = 15)]
    turns: usize,
    /// How long a turn takes, at least, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200)]
    turn: u64,
    /// Write the results as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Load a server: its latency alone and under load, and the most that it takes
    Load {
        /// How to load what
        #[command(flatten)]
        load: load::LoadArguments,
        #[command(flatten)]
        files: Files,
    },
    /// Look up verdicts that are known already, beside Redis alone
    Cached {
        /// How to look up
        #[command(flatten)]
        cached: cached::CachedArguments,
        #[command(flatten)]
        files: Files,
    },
    /// Look at the memory that roles hold for open streams, and for a track of hours
    Memory {
        /// What to hold
        #[command(flatten)]
        held: held::HeldArguments,
        #[command(flatten)]
        files: Files,
    },
    /// Run the network on a GPU beside PyTorch, by size of batch, and say how near it is to what the GPU can do
    Gpu {
        /// What to run where
        #[command(flatten)]
        gpu: gpu::GpuArguments,
        #[command(flatten)]
        files: Files,
    },
    /// Take part as a contender: what `tests/bench/rivals/rival.py` describes
    #[command(hide = true)]
    Contender {
        /// What to do
        #[command(subcommand)]
        work: Work,
    },
}

/// What is read and written.
#[derive(Args)]
struct Files {
    /// The track that is classified
    #[arg(long, value_name = "FILE", default_value = "tests/fixtures/genres/blues.mp3")]
    audio: PathBuf,
    /// Write the results as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Contender { work }) => return ours::take_part(work),
        Some(Command::Load { load, files }) => return load::run(load, files),
        Some(Command::Cached { cached, files }) => return cached::run(cached, files),
        Some(Command::Memory { held, files }) => return held::run(held, files),
        Some(Command::Gpu { gpu, files }) => return gpu::run(gpu, files),
        None => {}
    }
    let scratch = tempfile::tempdir()?;
    let setting = Setting {
        audio: arguments.audio.canonicalize().with_context(|| arguments.audio.display().to_string())?,
        model: arguments.model.canonicalize().with_context(|| arguments.model.display().to_string())?,
        python: arguments.python.clone(),
        rivals: "tests/bench/rivals".into(),
        scratch: scratch.path().to_owned(),
    };
    let chosen = |name: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|row| name.starts_with(row));
    let mut rows: Vec<_> = entries::all(&setting).into_iter().filter(|row| chosen(&row.name)).collect();
    if arguments.own {
        rows.iter_mut().for_each(|row| row.rivals.retain(Rival::is_own));
    }
    anyhow::ensure!(!rows.is_empty(), "no row begins with any of {:?}: see --list", arguments.rows);
    if arguments.list {
        report::list(&rows);
        return Ok(());
    }
    rows::prepare(&setting)?;

    let progress = ProgressBar::new(rows.len() as u64);
    let mut results = Vec::new();
    for row in &rows {
        progress.set_message(row.name.clone());
        let result = race::run(row, arguments.turns, Duration::from_millis(arguments.turn))
            .with_context(|| format!("row {}", row.name))?;
        progress.suspend(|| report::row(&result));
        results.push(result);
        progress.inc(1);
    }
    progress.finish_and_clear();
    report::write(&results, arguments.json.as_deref())
}
