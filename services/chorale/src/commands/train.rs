//! `chorale train`: labelled tracks to a model folder.

use chorale_trainer::{FitOptions, Progress, TrainOptions, train};

use crate::{
    cli::{Network, SplitUnit, TrainArguments},
    exit::{Exit, UsageError},
};

pub(crate) fn run(arguments: &TrainArguments) -> anyhow::Result<Exit> {
    if arguments.arch != Network::Musicnn {
        return super::train_network::run(arguments);
    }
    let only_networks = arguments.resume || arguments.checkpoint.is_some() || arguments.threads.is_some();
    if only_networks || arguments.split_by == SplitUnit::Chunk {
        let text = "--resume, --checkpoint, --threads and --split-by chunk need --arch seed-cnn";
        return Err(UsageError(text.to_owned()).into());
    }
    let default = FitOptions::default();
    let outcome = train(
        &TrainOptions {
            data: arguments.data.data.clone(),
            out: arguments.out.clone(),
            name: model_name(arguments),
            backbone: arguments.backbone.clone(),
            cache: arguments.data.cache.clone(),
            device: arguments.data.device,
            fit: FitOptions {
                epochs: arguments.epochs.unwrap_or(default.epochs),
                batch: arguments.batch.unwrap_or(default.batch),
                learning_rate: arguments.learning_rate.unwrap_or(default.learning_rate),
                weight_decay: arguments.weight_decay.unwrap_or(default.weight_decay),
                dropout: arguments.dropout.unwrap_or(default.dropout),
                label_smoothing: arguments.label_smoothing.unwrap_or(default.label_smoothing),
                patience: arguments.patience.unwrap_or(default.patience),
                seed: arguments.data.seed,
                ..default
            },
        },
        Progress::Terminal,
    )?;
    super::report_skipped(&outcome.skipped);
    super::print_report(&outcome.valid, arguments.json)?;
    let manifest = outcome.model.manifest();
    anstream::eprintln!(
        "\n{} {} written to {} (epoch {} of {}; features {:.0} s, fit {:.0} s)",
        manifest.name,
        manifest.version,
        arguments.out.display(),
        outcome.best_epoch,
        outcome.epochs,
        outcome.feature_time.as_secs_f64(),
        outcome.fit_time.as_secs_f64(),
    );
    Ok(Exit::unless(!outcome.skipped.is_empty()))
}

/// What the model is to be called.
pub(crate) fn model_name(arguments: &TrainArguments) -> String {
    let folder_name = || arguments.out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    arguments.name.clone().unwrap_or_else(folder_name)
}
