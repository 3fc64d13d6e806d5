//! The arguments of `chorale tag`.

use std::path::PathBuf;

use chorale_library::{ExistingGenre, Filter};
use clap::Args;

use super::library::{IndexFlag, probability};

pub(crate) const HELP: &str = "\
Examples:
  chorale library scan ~/Music               first of all: what is there?
  chorale tag                                what would change, file by file
  chorale tag --write --min-confidence 0.6   write what is sure enough
  chorale tag --undo                         take the last run back, byte for byte

Writes the genre where players look for it, and beside it CHORALE_GENRE, CHORALE_CONFIDENCE and CHORALE_MODEL
(TXXX frames, comments, freeform atoms). A file that names a genre already is left alone, unless Chorale
wrote that genre: see --overwrite and --add.
Audio is never touched: a file is replaced only if every packet of its audio is the same, and no other tag,
extended attribute or access control list is lost. What is needed to undo is kept beside the index: the old
tags, not a second copy of the music. An undo leaves alone what was changed since, is gone or is read-only, and
says so; the next one goes on with the run before, and --undo with a number tries again what was left.

Exit codes: 0 all done, 1 something failed (the rest was done), 2 wrong usage.";

#[derive(Debug, Args)]
pub(crate) struct TagArguments {
    /// Only what lies in these folders, or these files [default: the whole library]
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) index: IndexFlag,
    #[command(flatten)]
    pub(crate) filter: TrackFlags,
    /// Write the tags; without this, nothing is changed, and what would be is shown
    #[arg(long, short)]
    pub(crate) write: bool,
    /// Replace genres that files have from elsewhere
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Keep genres that files have from elsewhere, and add the one that was heard
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) add: bool,
    /// Restore every file that a run of --write changed, byte for byte: the last run that no undo has tried, or the
    /// one with this number
    #[arg(
        long,
        value_name = "RUN",
        num_args = 0..=1,
        conflicts_with_all = ["paths", "write", "overwrite", "add", "genres", "min_confidence", "artist"]
    )]
    #[allow(clippy::option_option, reason = "absent, present, present with a number")]
    pub(crate) undo: Option<Option<i64>>,
    /// List the runs that can be undone
    #[arg(long, conflicts_with_all = ["undo", "paths", "write", "overwrite", "add", "genres", "min_confidence", "artist"])]
    pub(crate) runs: bool,
    /// Where to keep what is needed to undo [default: beside the index, library.sqlite.undo]
    #[arg(long, value_name = "FILE")]
    pub(crate) backup: Option<PathBuf>,
    /// Print one JSON object a line for each file
    #[arg(long)]
    pub(crate) json: bool,
}

impl TagArguments {
    pub(crate) fn existing_genre(&self) -> ExistingGenre {
        match (self.overwrite, self.add) {
            (true, _) => ExistingGenre::Overwrite,
            (false, true) => ExistingGenre::Add,
            (false, false) => ExistingGenre::Keep,
        }
    }
}

/// Which tracks of the library.
#[derive(Debug, Args)]
pub(crate) struct TrackFlags {
    /// Only tracks of these genres, comma-separated
    #[arg(long = "genre", short, value_name = "GENRE", value_delimiter = ',')]
    pub(crate) genres: Vec<String>,
    /// Only tracks whose genre is at least this probable, 0 to 1
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) min_confidence: Option<f64>,
    /// Only tracks whose artist, as the file's tags say, has this in the name, in any case
    #[arg(long, value_name = "NAME")]
    pub(crate) artist: Option<String>,
}

impl TrackFlags {
    /// The tracks that lie under one of `under`, anywhere if there is none.
    pub(crate) fn filter(&self, under: Vec<PathBuf>) -> Filter {
        Filter {
            genres: self.genres.clone(),
            min_confidence: self.min_confidence,
            artist: self.artist.clone(),
            under,
            ..Filter::default()
        }
    }
}
