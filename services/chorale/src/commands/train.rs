//! `chorale train`: labelled tracks to a network that was trained as a whole.

use std::{env, process::Command, thread::available_parallelism};

use anyhow::Context;
use chorale_model::{Architecture, DeviceSpec, ModelFolder};
use chorale_trainer::{
    Backbone, EnsembleOptions, LearnOptions, Measured, NetworkOptions, NetworkOutcome, Progress, Room, Teaching,
    train_ensemble, train_seed_cnn,
};

use crate::{
    cli::train::{Network, TrainArguments},
    exit::{Exit, UsageError},
};

/// How many threads candle shares a product or a sum between. It is read when the process starts.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// How much of every target is what a teacher says.
const TEACHER_SHARE: f64 = 0.8;

pub(crate) fn run(arguments: &TrainArguments) -> anyhow::Result<Exit> {
    if arguments.data.device == DeviceSpec::Cpu && env::var_os(THREADS_VARIABLE).is_none() {
        start_again_alone()?;
    }
    let threads = arguments.threads.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    let options = NetworkOptions {
        data: arguments.data.data.clone(),
        out: arguments.out.clone(),
        name: model_name(arguments),
        device: arguments.data.device,
        threads,
        checkpoint: arguments.checkpoint.clone(),
        resume: arguments.resume,
        split_by: arguments.split_by.into(),
        not_music: arguments.not_music.clone(),
        refit: arguments.refit.clone(),
        learn: learn_options(arguments),
    };
    let outcome = match arguments.arch {
        Network::Ensemble => run_ensemble(arguments, &options, Architecture::Ensemble)?,
        Network::Small => run_ensemble(arguments, &options, Architecture::Small)?,
        Network::SeedCnn => {
            if let Some(flag) = ensemble_flag(arguments) {
                let text =
                    format!("{flag} is not for --arch seed-cnn: it starts from nothing, alone, and is as published");
                return Err(UsageError(text).into());
            }
            train_seed_cnn(&options, Progress::Terminal)?
        }
    };
    super::report_skipped(&outcome.skipped);
    match &outcome.measured {
        Measured::Tracks(report) => super::print_report(report, arguments.json)?,
        Measured::Chunks(report) => super::print_report(report, arguments.json)?,
        Measured::Nothing => {}
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
    anstream::eprintln!("Try it: chorale classify --model {} SONG", arguments.out.display());
    Ok(Exit::unless(!outcome.skipped.is_empty()))
}

fn run_ensemble(
    arguments: &TrainArguments,
    options: &NetworkOptions,
    architecture: Architecture,
) -> anyhow::Result<NetworkOutcome> {
    let shape = architecture.ensemble().context("not an ensemble")?;
    let start = match &arguments.backbone {
        Some(path) => Backbone::read(path, shape)?,
        None => Backbone::embedded(architecture)?,
    };
    let default = EnsembleOptions::default();
    let members = if architecture == Architecture::Small { 1 } else { default.members };
    let rates = &arguments.backbone_rates;
    let ensemble = EnsembleOptions {
        members: arguments.members.map_or(members, usize::from),
        dropout: arguments.dropout.unwrap_or(default.dropout),
        backbone_rates: if rates.is_empty() { default.backbone_rates } else { rates.clone() },
        front_rate: arguments.front_rate.unwrap_or(default.front_rate),
        // What a discriminant would add, a teacher has passed on already.
        discriminant: arguments.discriminant.unwrap_or(if arguments.teacher.is_some() {
            0.0
        } else {
            default.discriminant
        }),
        room: Room { share: arguments.augment.unwrap_or(default.room.share), ..default.room },
    };
    let teaching = match &arguments.teacher {
        Some(folder) => {
            let share = arguments.teacher_share.unwrap_or(TEACHER_SHARE);
            let features = arguments.teacher_features.unwrap_or(0.0);
            Some(Teaching { model: ModelFolder::load(folder)?, share, features })
        }
        None => None,
    };
    Ok(train_ensemble(options, architecture, &start, teaching.as_ref(), &ensemble, Progress::Terminal)?)
}

/// The first flag that is for ensembles only.
fn ensemble_flag(arguments: &TrainArguments) -> Option<&'static str> {
    let flags = [
        ("--backbone", arguments.backbone.is_some()),
        ("--dropout", arguments.dropout.is_some()),
        ("--augment", arguments.augment.is_some()),
        ("--members", arguments.members.is_some()),
        ("--backbone-rates", !arguments.backbone_rates.is_empty()),
        ("--front-rate", arguments.front_rate.is_some()),
        ("--teacher", arguments.teacher.is_some()),
        ("--discriminant", arguments.discriminant.is_some()),
    ];
    flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
}

/// Becomes the same process with one thread for each product. Training shares the chunks of a batch between threads; if
/// candle shared every sum of each of them as well, they would mostly wait for each other.
fn start_again_alone() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let mut process = Command::new(env::current_exe()?);
        let error = process.args(env::args_os().skip(1)).env(THREADS_VARIABLE, "1").exec();
        Err(anyhow::Error::new(error).context("cannot start again with one thread for each product"))
    }
    #[cfg(not(unix))]
    Ok(())
}

fn learn_options(arguments: &TrainArguments) -> LearnOptions {
    let mut learn = match arguments.arch {
        Network::Ensemble | Network::Small => LearnOptions::ensemble(arguments.data.seed),
        Network::SeedCnn => LearnOptions::seed_cnn(arguments.data.seed),
    };
    learn.epochs = arguments.epochs.unwrap_or(learn.epochs);
    learn.batches.batch = arguments.batch.unwrap_or(learn.batches.batch);
    learn.batches.label_smoothing = arguments.label_smoothing.unwrap_or(learn.batches.label_smoothing);
    learn.batches.mix = arguments.mix.unwrap_or(learn.batches.mix);
    learn.schedule.learning_rate = arguments.learning_rate.unwrap_or(learn.schedule.learning_rate);
    learn.optimizer.weight_decay = arguments.weight_decay.unwrap_or(learn.optimizer.weight_decay);
    learn.patience = arguments.patience.unwrap_or(learn.patience);
    learn
}

/// What the model is to be called.
fn model_name(arguments: &TrainArguments) -> String {
    let folder_name = || arguments.out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    arguments.name.clone().unwrap_or_else(folder_name)
}
