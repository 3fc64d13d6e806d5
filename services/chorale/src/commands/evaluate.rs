//! `chorale evaluate`: what a model does on labelled tracks.

use chorale_trainer::{EvaluateOptions, Progress, evaluate};

use crate::{cli::EvaluateArguments, exit::Exit};

pub(crate) fn run(arguments: &EvaluateArguments) -> anyhow::Result<Exit> {
    let report = evaluate(
        &EvaluateOptions {
            model: arguments.model.clone(),
            data: arguments.data.data.clone(),
            split: arguments.split.clone(),
            tracks: arguments.tracks.clone(),
            seed: arguments.data.seed,
            cache: arguments.data.cache.clone(),
            device: arguments.data.device,
        },
        Progress::Terminal,
    )?;
    if let Some(folder) = &arguments.report {
        report.save(folder)?;
    }
    super::print_report(&report, arguments.json)?;
    Ok(Exit::unless(!report.skipped.is_empty()))
}
