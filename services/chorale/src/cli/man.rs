//! The arguments of `chorale man`.

use std::path::PathBuf;

use clap::Args;

pub(crate) const EXAMPLES: &str = "\
Examples:
  chorale man ~/.local/share/man/man1                     then `man chorale`, `man chorale-classify` …
  chorale man | man -l -                                  read the first page without installing anything";

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Folder to write a page for each command to, made if it is not there [default: the first page, to standard output]
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}
