//! `chorale train`: labelled tracks to a network that was trained as a whole.

use std::{collections::BTreeMap, thread::available_parallelism};

use anyhow::Context;
use chorale_model::Architecture;
use chorale_trainer::{
    Backbone, EnsembleLearner, EnsembleOptions, LearnOptions, Measured, NetworkOptions, NoAugmentation, Progress,
    Recipe, Room, SeedCnnLearner, train_network,
};

use crate::{
    cli::{Network, TrainArguments},
    exit::{Exit, UsageError},
};

pub(crate) fn run(arguments: &TrainArguments) -> anyhow::Result<Exit> {
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
        not_music: arguments.not_music.clone(),
        learn: learn_options(arguments),
    };
    match arguments.arch {
        Network::Ensemble => train_ensemble(arguments, &options, Architecture::Ensemble),
        Network::Small => train_ensemble(arguments, &options, Architecture::Small),
        Network::Musicnn | Network::SeedCnn => train_seed_cnn(arguments, &options),
    }
}

fn train_seed_cnn(arguments: &TrainArguments, options: &NetworkOptions) -> anyhow::Result<Exit> {
    if arguments.backbone.is_some() || arguments.dropout.is_some() || arguments.members.is_some() {
        let text = "--backbone, --members and --dropout are not for --arch seed-cnn: it starts from nothing, alone, and its \
                    dropout is fixed";
        return Err(UsageError(text.to_owned()).into());
    }
    let recipe = Recipe {
        architecture: Architecture::SeedCnn,
        build: &|train, seed, device| Ok(Box::new(SeedCnnLearner::new(train.labels(), seed, device)?)),
        augment: &NoAugmentation,
        context: serde_json::Value::Null,
        provenance: BTreeMap::new(),
        licences: Vec::new(),
    };
    train_recipe(arguments, options, &recipe)
}

fn train_ensemble(
    arguments: &TrainArguments,
    options: &NetworkOptions,
    architecture: Architecture,
) -> anyhow::Result<Exit> {
    let Some(backbone) = &arguments.backbone else {
        return Err(UsageError(
            "--arch ensemble and small start from published weights: name them by --backbone".to_owned(),
        )
        .into());
    };
    let shape = architecture.ensemble().context("no ensemble")?;
    let start = Backbone::read(backbone, shape)?;
    let default = EnsembleOptions::default();
    let members = if architecture == Architecture::Small { 1 } else { default.members };
    let ensemble = EnsembleOptions {
        members: arguments.members.map_or(members, usize::from),
        dropout: arguments.dropout.unwrap_or(default.dropout),
        ..default
    };
    let room = Room::default();
    let recipe = Recipe {
        architecture,
        build: &|train, seed, device| {
            Ok(Box::new(EnsembleLearner::new(&start.start, shape, &ensemble, train, seed, device)?))
        },
        augment: &room,
        context: serde_json::json!({ "ensemble": ensemble, "room": room, "backbone": start.digest }),
        provenance: BTreeMap::from([("backbone".to_owned(), start.origin.clone())]),
        licences: vec![start.licence.clone()],
    };
    train_recipe(arguments, options, &recipe)
}

fn train_recipe(arguments: &TrainArguments, options: &NetworkOptions, recipe: &Recipe<'_>) -> anyhow::Result<Exit> {
    let outcome = train_network(options, recipe, Progress::Terminal)?;
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
    let mut learn = match arguments.arch {
        Network::Ensemble | Network::Small => LearnOptions::ensemble(arguments.data.seed),
        Network::Musicnn | Network::SeedCnn => LearnOptions::seed_cnn(arguments.data.seed),
    };
    learn.epochs = arguments.epochs.unwrap_or(learn.epochs);
    learn.batches.batch = arguments.batch.unwrap_or(learn.batches.batch);
    learn.batches.label_smoothing = arguments.label_smoothing.unwrap_or(learn.batches.label_smoothing);
    learn.schedule.learning_rate = arguments.learning_rate.unwrap_or(learn.schedule.learning_rate);
    learn.optimizer.weight_decay = arguments.weight_decay.unwrap_or(learn.optimizer.weight_decay);
    learn.patience = arguments.patience.unwrap_or(learn.patience);
    learn
}
