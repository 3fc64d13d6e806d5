//! `chorale models`: what a model is, and what it was measured to do.

use std::path::Path;

use anyhow::{Context, anyhow};
use chorale_model::ModelFolder;
use chorale_trainer::pareto::{self, ParetoPoint};

use crate::{cli::ModelsArguments, exit::Exit, render};

/// The split whose accuracy compares models.
const SPLIT: &str = "valid";

pub(crate) fn run(arguments: &ModelsArguments) -> anyhow::Result<Exit> {
    if arguments.folders.is_empty() {
        print("embedded", &ModelFolder::embedded().context("the embedded model")?, arguments)?;
        return Ok(Exit::Done);
    }
    let mut exit = Exit::Done;
    let mut models = Vec::new();
    for folder in &arguments.folders {
        let name = folder.display().to_string();
        match ModelFolder::open(Some(folder)) {
            Ok(model) => {
                print(&name, &model, arguments)?;
                models.push((name, model));
            }
            Err(error) => exit = Exit::of_error(&anyhow::Error::new(error).context(name)),
        }
    }
    match &arguments.pareto {
        Some(picture) if !draw(&models, picture, arguments.json)? => Ok(Exit::Failed),
        _ => Ok(exit),
    }
}

/// Draws the models that have been measured, prints them as a table unless JSON is wanted, and says whether all have been
/// measured.
fn draw(models: &[(String, ModelFolder)], picture: &Path, json: bool) -> anyhow::Result<bool> {
    let embedded = [ModelFolder::embedded(), ModelFolder::embedded_small()];
    let embedded = embedded.into_iter().collect::<Result<Vec<_>, _>>().context("the embedded models")?;
    let shipped = |version: &str| embedded.iter().any(|model| model.manifest().version == version);
    let mut points = Vec::new();
    for (folder, model) in models {
        let manifest = model.manifest();
        let Some(metrics) = manifest.metrics.get(SPLIT) else {
            Exit::of_error(&anyhow!("{folder}: expected metrics of the split `{SPLIT}` in model.json, found none"));
            continue;
        };
        points.push(ParetoPoint {
            name: manifest.name.clone(),
            multiply_accumulates: model.multiply_accumulates()?,
            accuracy: metrics.track_accuracy,
            interval: metrics.track_accuracy_interval,
            shipped: shipped(&manifest.version),
        });
    }
    pareto::draw(&points, picture)?;
    if !json {
        anstream::println!("\n{}", pareto::table(&points).trim_end());
    }
    Ok(points.len() == models.len())
}

fn print(source: &str, model: &ModelFolder, arguments: &ModelsArguments) -> anyhow::Result<()> {
    if arguments.card {
        anstream::println!("{}", model.card().trim_end());
    } else if arguments.json {
        anstream::println!("{}", serde_json::to_string(model.manifest())?);
    } else {
        let (cost, embedding) = (model.multiply_accumulates()?, model.embedding_length()?);
        anstream::println!("{}", render::model(source, model.manifest(), cost, embedding));
    }
    Ok(())
}
