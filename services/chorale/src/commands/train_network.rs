//! `chorale train --arch seed-cnn`: labelled tracks to a network that has learnt nothing else.

use std::{collections::BTreeMap, thread::available_parallelism};

use chorale_model::Architecture;
use chorale_trainer::{
    LearnOptions, Measured, NetworkOptions, NoAugmentation, Progress, Recipe, SeedCnnLearner, train_network,
};

use crate::{
    cli::TrainArguments,
    exit::{Exit, UsageError},
};

pub(crate) fn run(arguments: &TrainArguments) -> anyhow::Result<Exit> {
    if arguments.backbone.is_some() || arguments.dropout.is_some() {
        let text =
            "--backbone and --dropout are not for --arch seed-cnn: it starts from nothing, and its dropout is fixed";
        return Err(UsageError(text.to_owned()).into());
    }
    let threads = arguments.threads.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    let options = NetworkOptions {
        data: arguments.data.data.clone(),
        out: arguments.out.clone(),
        name: super::train::model_name(arguments),
        device: arguments.data.device,
        threads,
        checkpoint: arguments.checkpoint.clone(),
        resume: arguments.resume,
        split_by: arguments.split_by.into(),
        learn: learn_options(arguments),
    };
    let recipe = Recipe {
        architecture: Architecture::SeedCnn,
        build: &|labels, seed, device| Ok(Box::new(SeedCnnLearner::new(labels, seed, device)?)),
        augment: &NoAugmentation,
        context: serde_json::Value::Null,
        provenance: BTreeMap::new(),
        licences: Vec::new(),
    };
    let outcome = train_network(&options, &recipe, Progress::Terminal)?;
    super::report_skipped(&outcome.skipped);
    match &outcome.measured {
        Measured::Tracks(report) => super::print_report(report, arguments.json)?,
        Measured::Chunks(report) => super::print_report(report, arguments.json)?,
    }
    let manifest = outcome.model.manifest();
    anstream::eprintln!(
        "\n{} {} written to {} (epoch {} of {}; {:.0} s)",
        manifest.name,
        manifest.version,
        arguments.out.display(),
        outcome.best_epoch,
        outcome.history.len(),
        outcome.learn_time.as_secs_f64(),
    );
    Ok(Exit::unless(!outcome.skipped.is_empty()))
}

fn learn_options(arguments: &TrainArguments) -> LearnOptions {
    let mut learn = LearnOptions::seed_cnn(arguments.data.seed);
    learn.epochs = arguments.epochs.unwrap_or(learn.epochs);
    learn.batches.batch = arguments.batch.unwrap_or(learn.batches.batch);
    learn.batches.label_smoothing = arguments.label_smoothing.unwrap_or(learn.batches.label_smoothing);
    learn.schedule.learning_rate = arguments.learning_rate.unwrap_or(learn.schedule.learning_rate);
    learn.optimizer.weight_decay = arguments.weight_decay.unwrap_or(learn.optimizer.weight_decay);
    learn.patience = arguments.patience.unwrap_or(learn.patience);
    learn
}
