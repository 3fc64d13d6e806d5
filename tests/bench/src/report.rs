//! What is printed and written.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::{
    race::{RivalResult, RowResult},
    rows::Row,
};

/// Prints the rows and what we want of them.
pub(crate) fn list(rows: &[Row]) {
    for row in rows {
        anstream::println!("{}, {}, a {}", row.name, cores(row.cores), row.unit.0);
        for rival in &row.rivals {
            anstream::println!("    {:<28} goal {}", rival.name, factor(rival.goal));
        }
    }
}

/// Prints a row.
pub(crate) fn row(result: &RowResult) {
    let RowResult { name, unit, our_seconds, .. } = result;
    anstream::println!("{name}, {}: {} a {unit}", cores(result.cores), time(*our_seconds));
    for rival in &result.rivals {
        let RivalResult { name, versions, seconds, ratio: [low, middle, high], goal: wanted, .. } = rival;
        anstream::println!(
            "    {name:<28} {:>9} = {:>6} ({} to {})   {}   [{versions}]",
            time(*seconds),
            factor(*middle),
            factor(*low),
            factor(*high),
            goal(rival.met(), &factor(*wanted)),
        );
    }
}

/// Writes results as JSON, if a file is wanted.
pub(crate) fn write(results: &impl Serialize, json: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = json else { return Ok(()) };
    std::fs::write(path, serde_json::to_string_pretty(results)?).with_context(|| path.display().to_string())
}

/// What was wanted, and whether it is so.
pub(crate) fn goal(met: bool, wanted: &str) -> String {
    format!("goal {wanted}: {}", if met { "met" } else { "missed" })
}

fn cores(cores: usize) -> String {
    if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") }
}

fn factor(factor: f64) -> String {
    format!("{factor:.2}×")
}

fn time(seconds: f64) -> String {
    if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else if seconds >= 1e-3 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.1} µs", seconds * 1e6)
    }
}
