//! What is printed.

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
        let RivalResult { name, versions, seconds, ratio: [low, middle, high], goal, .. } = rival;
        let met = if rival.met() { "met" } else { "missed" };
        anstream::println!(
            "    {name:<28} {:>9} = {:>6} ({} to {})   goal {}: {met}   [{versions}]",
            time(*seconds),
            factor(*middle),
            factor(*low),
            factor(*high),
            factor(*goal),
        );
    }
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
