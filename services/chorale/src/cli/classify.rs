//! The arguments of `chorale classify`.

use std::path::PathBuf;

use clap::Args;

use super::listener::{EarlyFlag, ListenerFlags};

#[derive(Debug, Args)]
pub(crate) struct ClassifyArguments {
    /// Audio files, folders to search for audio files, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Print one JSON object a line for each file
    #[arg(long)]
    pub(crate) json: bool,
    /// With --json: add each track's embedding, numbers that are close for tracks that sound alike
    #[arg(long, requires = "json")]
    pub(crate) embedding: bool,
    /// Genres to list for each file, most probable first [default: 3; with --json: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top: Option<u32>,
    /// Show the full card with the timeline for each of several files too
    #[arg(long, conflicts_with = "json")]
    pub(crate) long: bool,
    #[command(flatten)]
    pub(crate) early: EarlyFlag,
    /// Files to classify at a time [default: the number of cores]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    #[command(flatten)]
    pub(crate) listener: ListenerFlags,
}
