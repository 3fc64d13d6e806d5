//! The `chorale` binary: parses the command line and hands over to a role or a tool.

mod admin;
mod cli;
mod client;
mod cluster;
mod commands;
mod config;
mod exit;
mod listener;
mod manual;
mod paths;
mod progress;
mod render;
mod render_playlist;
mod render_tags;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    exit::Exit,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Classify(arguments) => commands::classify::run(&arguments),
        Command::Up(arguments) => commands::serve::up(&arguments),
        Command::Gateway(arguments) => commands::serve::gateway(&arguments),
        Command::Feature(arguments) => commands::serve::feature(&arguments),
        Command::Inference(arguments) => commands::serve::inference(&arguments),
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
        Command::Healthcheck(arguments) => commands::healthcheck::run(&arguments),
        Command::Token(arguments) => commands::token::run(&arguments),
        Command::Features(arguments) => commands::features::run(&arguments),
        Command::Plot(arguments) => commands::plot::run(&arguments),
        Command::Train(arguments) => commands::train::run(&arguments),
        Command::Evaluate(arguments) => commands::evaluate::run(&arguments),
        Command::Models(arguments) => commands::models::run(&arguments),
        Command::Library(arguments) => commands::library::run(&arguments),
        Command::Tag(arguments) => commands::tag::run(&arguments),
        Command::Playlist(arguments) => commands::playlist::run(&arguments),
        Command::Completions(arguments) => commands::completions::run(&arguments),
        Command::Man(arguments) => commands::man::run(&arguments),
    };
    outcome.unwrap_or_else(|error| Exit::of_error(&error)).into()
}
