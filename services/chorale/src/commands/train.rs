//! `chorale train`: labelled tracks to a model folder.

use chorale_trainer::{FitOptions, Progress, TrainOptions, train};

use crate::{cli::TrainArguments, exit::Exit};

pub(crate) fn run(arguments: &TrainArguments) -> anyhow::Result<Exit> {
    let folder_name = || arguments.out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let outcome = train(
        &TrainOptions {
            data: arguments.data.data.clone(),
            out: arguments.out.clone(),
            name: arguments.name.clone().unwrap_or_else(folder_name),
            backbone: arguments.backbone.clone(),
            cache: arguments.data.cache.clone(),
            device: arguments.data.device,
            fit: FitOptions {
                epochs: arguments.epochs,
                batch: arguments.batch,
                learning_rate: arguments.learning_rate,
                weight_decay: arguments.weight_decay,
                dropout: arguments.dropout,
                label_smoothing: arguments.label_smoothing,
                patience: arguments.patience,
                seed: arguments.data.seed,
                ..FitOptions::default()
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
