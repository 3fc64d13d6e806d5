//! One file for each subcommand.

pub(crate) mod classify;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod features;
pub(crate) mod healthcheck;
pub(crate) mod library;
pub(crate) mod man;
pub(crate) mod models;
pub(crate) mod playlist;
pub(crate) mod plot;
pub(crate) mod serve;
pub(crate) mod tag;
pub(crate) mod token;
pub(crate) mod train;

use std::fmt::Display;

use chorale_trainer::Skipped;
use serde::Serialize;

/// The asynchronous runtime of commands that serve or call.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}

/// Prints what a model did on labelled tracks.
fn print_report<R: Serialize + Display>(report: &R, json: bool) -> anyhow::Result<()> {
    if json {
        anstream::println!("{}", serde_json::to_string(report)?);
    } else {
        anstream::println!("{report}");
    }
    Ok(())
}

/// Names the tracks that were left out, on standard error.
fn report_skipped(skipped: &[Skipped]) {
    for Skipped { track, reason } in skipped {
        anstream::eprintln!("{track}: left out: {reason}");
    }
}
