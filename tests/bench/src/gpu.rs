//! The network on a GPU, by size of batch: beside PyTorch with the same weights, and below what the GPU can do.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use chorale_model::{DeviceSpec, ModelFolder};
use clap::Args;
use serde::Serialize;

use crate::{
    Files,
    contender::Contender,
    entries,
    ours::PRODUCTS,
    race::{self, RowResult},
    report,
    rows::{self, Rival, Row, Setting},
};

/// A batch that gets so much of the most that any gets saturates the device.
const SATURATED: f64 = 0.95;

/// PyTorch as it is.
const EAGER: &str = "PyTorch, eager";
/// PyTorch after `torch.compile`.
const COMPILED: &str = "PyTorch, compiled";

/// What to run where.
#[derive(Args)]
pub(crate) struct GpuArguments {
    /// The device: cuda:0, or cpu, to try the command
    #[arg(long, default_value = "cuda:0")]
    device: DeviceSpec,
    /// Sizes of batches
    #[arg(long, value_name = "CHUNKS", value_delimiter = ',', default_value = "1,8,32,64,128,256")]
    batches: Vec<usize>,
    /// Cores that a contender may use [default: all]
    #[arg(long)]
    cores: Option<usize>,
    /// The model folder
    #[arg(long, value_name = "DIR", default_value = "deploy/models/default")]
    model: PathBuf,
    /// The Python that has PyTorch
    #[arg(long, value_name = "FILE", default_value = "target/tools/bench-torch/bin/python")]
    python: PathBuf,
    /// Leave PyTorch out
    #[arg(long)]
    own: bool,
    /// How often every contender takes its turn
    #[arg(long, default_value_t = 15)]
    turns: usize,
    /// How long a turn takes, at least, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200)]
    turn: u64,
}

/// What came out.
#[derive(Serialize)]
struct GpuResult<'a> {
    device: String,
    /// Multiplications with an addition that a chunk takes.
    chunk_operations: u64,
    /// The same in a second of large matrix products, in 32-bit floats: the roofline, as what must be moved for
    /// a batch, its chunks, the weights and the answers, is little. Planes between layers that are written and read come on top.
    peak_operations: f64,
    batches: Vec<BatchResult<'a>>,
    /// The smallest batch that gets nearly the most chunks through.
    saturated_by: usize,
}

#[derive(Serialize)]
struct BatchResult<'a> {
    chunks: usize,
    chunks_per_second: f64,
    /// Of the roofline.
    share: f64,
    row: &'a RowResult,
}

/// Measures, and prints.
pub(crate) fn run(arguments: &GpuArguments, files: &Files) -> anyhow::Result<()> {
    if let Err(reason) = arguments.device.open() {
        anstream::println!("{}: left out, {reason}", arguments.device);
        return Ok(());
    }
    let scratch = tempfile::tempdir()?;
    let setting = Setting {
        audio: files.audio.canonicalize().with_context(|| files.audio.display().to_string())?,
        model: arguments.model.canonicalize().with_context(|| arguments.model.display().to_string())?,
        python: arguments.python.clone(),
        rivals: "tests/bench/rivals".into(),
        scratch: scratch.path().to_owned(),
    };
    rows::prepare(&setting)?;
    let cores = match arguments.cores {
        Some(cores) => cores,
        None => std::thread::available_parallelism()?.get(),
    };
    let chunk_operations = ModelFolder::open(Some(&setting.model))?.multiply_accumulates()?;
    let turn = Duration::from_millis(arguments.turn);
    let mut peak = Peak::start(arguments, cores, turn)?;
    let mut rows = Vec::new();
    for &chunks in &arguments.batches {
        peak.measure(arguments.turns)?;
        let result = race::run(&row(arguments, &setting, chunks, cores), arguments.turns, turn)
            .with_context(|| format!("a batch of {chunks}"))?;
        report::row(&result);
        rows.push((chunks, result));
        peak.measure(arguments.turns)?;
        // After each, so that what ends a long run early does not lose it.
        report::write(&result_of(arguments, chunk_operations, &peak, &rows)?, files.json.as_deref())?;
    }
    print(&result_of(arguments, chunk_operations, &peak, &rows)?);
    Ok(())
}

/// What has come out so far.
fn result_of<'a>(
    arguments: &GpuArguments,
    chunk_operations: u64,
    peak: &Peak,
    rows: &'a [(usize, RowResult)],
) -> anyhow::Result<GpuResult<'a>> {
    let peak_operations = peak.operations();
    let batch = |(chunks, row): &'a (usize, RowResult)| {
        let chunks_per_second = row.our_seconds.recip();
        let share = chunks_per_second * chunk_operations as f64 / peak_operations;
        BatchResult { chunks: *chunks, chunks_per_second, share, row }
    };
    let rates: Vec<(usize, f64)> = rows.iter().map(|(chunks, row)| (*chunks, row.our_seconds.recip())).collect();
    Ok(GpuResult {
        device: arguments.device.to_string(),
        chunk_operations,
        peak_operations,
        batches: rows.iter().map(batch).collect(),
        saturated_by: saturated_by(&rates).context("no size of a batch")?,
    })
}

fn row(arguments: &GpuArguments, setting: &Setting, chunks: usize, cores: usize) -> Row {
    let (device, size) = (arguments.device.to_string(), chunks.to_string());
    let (model, input) = (setting.model.as_os_str(), setting.chunks());
    let torch = |name, way: &str| Rival {
        name,
        start: entries::python(setting, "torch_forward.py", &[&way, &device, &model, &input, &size]),
        goal: 1.0,
        tolerance: Some(1e-3),
        may_be_away: true,
    };
    let rivals = vec![torch(EAGER, "eager"), torch(COMPILED, "compiled")];
    Row {
        name: format!("gpu-{chunks}"),
        cores,
        unit: ("chunk", chunks as f64),
        ours: entries::ours(&[&"forward", &model, &input, &size, &"--device", &device]),
        rivals: if arguments.own { Vec::new() } else { rivals },
    }
}

/// Large matrix products on the device. They take turns with the rows, as whatever else the machine does slows both.
struct Peak {
    contender: Contender,
    rows: u32,
    rounds: u64,
    /// Seconds of the quickest round.
    least: f64,
}

impl Peak {
    fn start(arguments: &GpuArguments, cores: usize, turn: Duration) -> anyhow::Result<Self> {
        let rows: u32 = if arguments.device == DeviceSpec::Cpu { 1_024 } else { 8_192 };
        let start = entries::ours(&[&"product", &rows.to_string(), &"--device", &arguments.device.to_string()]);
        let mut contender = Contender::start(&start, cores)?;
        let rounds = (turn.as_secs_f64() / contender.run(1)?).ceil().max(1.0) as u64;
        Ok(Self { contender, rows, rounds, least: f64::INFINITY })
    }

    fn measure(&mut self, turns: usize) -> anyhow::Result<()> {
        for _ in 0..turns {
            self.least = self.least.min(self.contender.run(self.rounds)? / self.rounds as f64);
        }
        Ok(())
    }

    /// Multiplications with an addition in a second.
    fn operations(&self) -> f64 {
        PRODUCTS as f64 * f64::from(self.rows).powi(3) / self.least
    }
}

/// The smallest batch whose rate is nearly the best, of sizes and rates.
fn saturated_by(rates: &[(usize, f64)]) -> Option<usize> {
    let best = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    rates.iter().filter(|(_, rate)| *rate >= SATURATED * best).map(|(chunks, _)| *chunks).min()
}

fn print(result: &GpuResult<'_>) {
    anstream::println!(
        "\n{}: {:.2} T multiplications with an addition a second in large products; a chunk takes {:.0} M",
        result.device,
        result.peak_operations / 1e12,
        result.chunk_operations as f64 / 1e6
    );
    anstream::println!("\n| batch | chunks a second | of the roofline | {EAGER} | {COMPILED} |");
    anstream::println!("|---|---|---|---|---|");
    for BatchResult { chunks, chunks_per_second, share, row } in &result.batches {
        let rival = |name| {
            let rival = row.rivals.iter().find(|rival| rival.name == name);
            rival.map_or_else(|| "-".to_owned(), |rival| format!("{:.2}×", rival.ratio[1]))
        };
        let (eager, compiled) = (rival(EAGER), rival(COMPILED));
        anstream::println!("| {chunks} | {chunks_per_second:.0} | {:.1} % | {eager} | {compiled} |", 100.0 * share);
    }
    anstream::println!("\nsaturated by batches of {}; × is how many times as long PyTorch takes", result.saturated_by);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_saturated_by_the_smallest_batch_near_the_best() {
        assert_eq!(saturated_by(&[(1, 10.0), (8, 60.0), (32, 96.0), (64, 100.0), (128, 99.0)]), Some(32));
        assert_eq!(saturated_by(&[(64, 100.0), (1, 100.0)]), Some(1));
        assert_eq!(saturated_by(&[]), None);
    }
}
