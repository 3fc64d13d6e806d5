//! `chorale completions`: what a shell reads to complete this command line.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::{
    cli::{Cli, completions::CompletionsArguments},
    exit::Exit,
};

pub(crate) fn run(arguments: &CompletionsArguments) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "chorale", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}
