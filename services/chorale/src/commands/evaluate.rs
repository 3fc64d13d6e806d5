//! `chorale evaluate`: what a model does on labelled tracks.

use chorale_trainer::{EvaluateOptions, Progress, UnknownReport, evaluate};

use crate::{cli::EvaluateArguments, exit::Exit};

pub(crate) fn run(arguments: &EvaluateArguments) -> anyhow::Result<Exit> {
    let report = evaluate(
        &EvaluateOptions {
            model: arguments.model.clone(),
            data: arguments.data.data.clone(),
            split: arguments.split.clone(),
            tracks: arguments.tracks.clone(),
            not_music: arguments.not_music.clone(),
            seed: arguments.data.seed,
            cache: arguments.data.cache.clone(),
            device: arguments.data.device,
        },
        Progress::Terminal,
    )?;
    super::print_report(&report, arguments.json)?;
    let left_out = |unknown: &UnknownReport| !unknown.skipped.is_empty();
    Ok(Exit::unless(!report.skipped.is_empty() || report.unknown.as_ref().is_some_and(left_out)))
}
