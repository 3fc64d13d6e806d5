//! `chorale evaluate`: what a model does on labelled tracks.

use chorale_trainer::{EvaluateOptions, Progress, UnknownReport, evaluate, evaluate_chunks};

use crate::{
    cli::train::{EvaluateArguments, SplitUnit},
    exit::Exit,
};

pub(crate) fn run(arguments: &EvaluateArguments) -> anyhow::Result<Exit> {
    let options = EvaluateOptions {
        model: arguments.model.clone(),
        data: arguments.data.data.clone(),
        split: arguments.split.clone(),
        tracks: arguments.tracks.clone(),
        not_music: arguments.not_music.clone(),
        seed: arguments.data.seed,
        device: arguments.data.device,
    };
    if arguments.split_by == SplitUnit::Chunk {
        super::print_report(&evaluate_chunks(&options, Progress::Terminal)?, arguments.json)?;
        return Ok(Exit::unless(false));
    }
    let report = evaluate(&options, Progress::Terminal)?;
    if let Some(folder) = &arguments.report {
        report.save(folder)?;
    }
    super::print_report(&report, arguments.json)?;
    let left_out = |unknown: &UnknownReport| !unknown.skipped.is_empty();
    Ok(Exit::unless(!report.skipped.is_empty() || report.unknown.as_ref().is_some_and(left_out)))
}
