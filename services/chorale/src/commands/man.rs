//! `chorale man`: the manual, made from what `--help` says.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use clap::CommandFactory;

use crate::{
    cli::{Cli, man::ManArguments},
    exit::Exit,
    manual,
};

pub(crate) fn run(arguments: &ManArguments) -> anyhow::Result<Exit> {
    let pages = manual::pages(Cli::command())?;
    match (&arguments.folder, pages.first()) {
        (Some(folder), _) => write_all(folder, &pages)?,
        (None, Some(first)) => io::stdout().write_all(&first.text)?,
        (None, None) => {}
    }
    Ok(Exit::Done)
}

fn write_all(folder: &Path, pages: &[manual::Page]) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for page in pages {
        let path = folder.join(&page.file_name);
        fs::write(&path, &page.text).with_context(|| path.display().to_string())?;
    }
    anstream::eprintln!("{} pages in {}", pages.len(), folder.display());
    Ok(())
}
