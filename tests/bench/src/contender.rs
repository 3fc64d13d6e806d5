//! A process that does its work as often as it is told, and says how long it took: see `rivals/rival.py`.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::Context;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::rows::Start;

/// What a contender says first.
#[derive(Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// What it is, with its version.
    pub(crate) versions: String,
    /// What it makes of the input.
    pub(crate) answer: Vec<f64>,
}

/// A running contender.
pub(crate) struct Contender {
    process: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
    pub(crate) greeting: Greeting,
}

impl Contender {
    /// Starts a contender on the first `cores` cores that this process may use, and waits until it has warmed up.
    pub(crate) fn start(start: &Start, cores: usize) -> anyhow::Result<Self> {
        let threads = cores.to_string();
        let mut command = Command::new(&start.program);
        command.args(&start.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        for variable in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"] {
            command.env(variable, &threads);
        }
        let all = sched_getaffinity(Pid::from_raw(0))?;
        let mut some = CpuSet::new();
        for core in (0..CpuSet::count()).filter(|core| all.is_set(*core).unwrap_or(false)).take(cores) {
            some.set(core)?;
        }
        // A process has the cores of the one that starts it.
        sched_setaffinity(Pid::from_raw(0), &some)?;
        let spawned = command.spawn();
        sched_setaffinity(Pid::from_raw(0), &all)?;

        let mut process = spawned.with_context(|| format!("cannot start {}", start.program.display()))?;
        let (orders, reports) = process.stdin.take().zip(process.stdout.take()).context("no pipes")?;
        let mut reports = BufReader::new(reports);
        let greeting = serde_json::from_str(&next_line(&mut reports, start)?).context("not a greeting")?;
        Ok(Self { process, orders, reports, greeting })
    }

    /// The seconds that `rounds` rounds take.
    pub(crate) fn run(&mut self, rounds: u64) -> anyhow::Result<f64> {
        writeln!(self.orders, "{rounds}")?;
        let mut line = String::new();
        self.reports.read_line(&mut line)?;
        line.trim().parse().with_context(|| format!("expected seconds, found {line:?}"))
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn next_line(reports: &mut impl BufRead, start: &Start) -> anyhow::Result<String> {
    let mut line = String::new();
    reports.read_line(&mut line)?;
    let command = || {
        let words: Vec<_> = start.arguments.iter().map(|word| word.to_string_lossy()).collect();
        format!("{} {}", start.program.to_string_lossy(), words.join(" "))
    };
    anyhow::ensure!(!line.is_empty(), "it ended before it was ready; try `{}`", command());
    Ok(line)
}
