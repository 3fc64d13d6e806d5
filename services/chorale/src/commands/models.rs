//! `chorale models`: what a model is, and what it was measured to do.

use anyhow::Context;
use chorale_model::ModelFolder;

use crate::{cli::ModelsArguments, exit::Exit, render};

pub(crate) fn run(arguments: &ModelsArguments) -> anyhow::Result<Exit> {
    if arguments.folders.is_empty() {
        print("embedded", &ModelFolder::embedded().context("the embedded model")?, arguments)?;
        return Ok(Exit::Done);
    }
    let mut exit = Exit::Done;
    for folder in &arguments.folders {
        let name = folder.display().to_string();
        match ModelFolder::load(folder) {
            Ok(model) => print(&name, &model, arguments)?,
            Err(error) => exit = Exit::of_error(&anyhow::Error::new(error).context(name)),
        }
    }
    Ok(exit)
}

fn print(source: &str, model: &ModelFolder, arguments: &ModelsArguments) -> anyhow::Result<()> {
    if arguments.card {
        anstream::println!("{}", model.card().trim_end());
    } else if arguments.json {
        anstream::println!("{}", serde_json::to_string(model.manifest())?);
    } else {
        anstream::println!("{}", render::model(source, model.manifest()));
    }
    Ok(())
}
