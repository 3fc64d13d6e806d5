//! The arguments of `chorale library`.

use std::{path::PathBuf, time::Duration};

use chorale_library::{Filter, Format, Order};
use clap::{Args, Subcommand, ValueEnum};

use super::listener::{EarlyFlag, ListenerFlags};

pub(crate) const EXAMPLES: &str = "\
Examples:
  chorale library scan ~/Music                  classify what is new there; again at any time
  chorale library stats                         genres, hours, how sure
  chorale library find --genre jazz --min-confidence 0.7
  chorale library find --genre reggae --paths0 | xargs -0 mpv
  chorale library export -o library.parquet     for other programs
  chorale library watch ~/Music                 classify what comes, until Ctrl-C";

const SCAN_HELP: &str = "\
A scan may be ended at any time, by Ctrl-C too: what was done is kept, and the same command goes on
from there. Files that are known by path, size and time are passed over; moved and copied ones are
known by their content. With another model than that of the last scan, tracks are classified again;
the old verdicts are kept, in case that model comes back.

Exit codes: 0 all done, 1 something failed or was left undone, 2 wrong usage or configuration.";

#[derive(Debug, Subcommand)]
pub(crate) enum LibraryCommand {
    /// Classify the audio files in folders, and remember what they are
    #[command(after_help = SCAN_HELP)]
    Scan(ScanArguments),
    /// Show the library in numbers: genres, hours, confidence
    Stats(StatsArguments),
    /// List tracks by genre, confidence, artist …
    Find(FindArguments),
    /// Write the library as a table: CSV, JSON lines or Parquet
    Export(ExportArguments),
    /// Scan folders, and then classify what is new or changed in them, until Ctrl-C
    Watch(WatchArguments),
}

#[derive(Debug, Args)]
pub(crate) struct LibraryArguments {
    #[command(subcommand)]
    pub(crate) command: LibraryCommand,
}

/// Where the library's index is.
#[derive(Debug, Args)]
pub(crate) struct IndexFlag {
    /// The library's index [default: chorale/library.sqlite in $XDG_DATA_HOME, or in ~/.local/share]
    #[arg(long, value_name = "FILE")]
    pub(crate) index: Option<PathBuf>,
}

/// Who listens, and how.
#[derive(Debug, Args)]
pub(crate) struct ListeningFlags {
    #[command(flatten)]
    pub(crate) listener: ListenerFlags,
    #[command(flatten)]
    pub(crate) early: EarlyFlag,
    /// Files in flight at a time [default: the number of cores and two more]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct ScanArguments {
    /// Folders to search for audio files, or files
    #[arg(required = true, value_name = "DIR")]
    pub(crate) folders: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) index: IndexFlag,
    #[command(flatten)]
    pub(crate) listening: ListeningFlags,
    /// Classify again what is known already
    #[arg(long)]
    pub(crate) rescan: bool,
    /// Try again what failed before; without this, only what is changed, or could not be read
    #[arg(long)]
    pub(crate) retry_failed: bool,
    /// Forget files that are gone from these folders; without this, they are marked, and known again when they are back
    #[arg(long)]
    pub(crate) prune: bool,
    /// Print one JSON object a line for each file, and one with the summary at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// Folders to watch, with all folders in them
    #[arg(required = true, value_name = "DIR")]
    pub(crate) folders: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) index: IndexFlag,
    #[command(flatten)]
    pub(crate) listening: ListeningFlags,
    /// How long a file must not have changed to count as whole
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) settle: Duration,
    /// Print one JSON object a line for each file
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArguments {
    #[command(flatten)]
    pub(crate) index: IndexFlag,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which tracks.
#[derive(Debug, Args)]
pub(crate) struct FilterFlags {
    /// Only these genres, comma-separated; `unknown` is one
    #[arg(long = "genre", short, value_name = "GENRE", value_delimiter = ',')]
    pub(crate) genres: Vec<String>,
    /// Only tracks whose genre is at least this probable, 0 to 1
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) min_confidence: Option<f64>,
    /// Only tracks whose artist, as the file's tags say, has this in the name, in any case
    #[arg(long, value_name = "NAME")]
    pub(crate) artist: Option<String>,
    /// Only what lies in this folder, or this file; may be given again
    #[arg(long, value_name = "PATH")]
    pub(crate) under: Vec<PathBuf>,
    /// Only tracks at least this long, for example 2m30s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) min_length: Option<Duration>,
    /// Only tracks at most this long
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) max_length: Option<Duration>,
    /// In which order
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = SortOrder::Path)]
    pub(crate) sort: SortOrder,
    /// The first so many in that order
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) limit: Option<usize>,
}

impl FilterFlags {
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            genres: self.genres.clone(),
            min_confidence: self.min_confidence,
            artist: self.artist.clone(),
            under: self.under.clone(),
            min_seconds: self.min_length.map(|length| length.as_secs_f64()),
            max_seconds: self.max_length.map(|length| length.as_secs_f64()),
            order: self.sort.into(),
            limit: self.limit,
        }
    }
}

/// In which order tracks are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortOrder {
    /// By path
    Path,
    /// Surest first
    Confidence,
    /// Longest first
    Length,
    /// By genre, in it the surest first
    Genre,
    /// By artist, album and title
    Artist,
}

impl From<SortOrder> for Order {
    fn from(order: SortOrder) -> Self {
        match order {
            SortOrder::Path => Self::Path,
            SortOrder::Confidence => Self::Confidence,
            SortOrder::Length => Self::Duration,
            SortOrder::Genre => Self::Genre,
            SortOrder::Artist => Self::Artist,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct FindArguments {
    #[command(flatten)]
    pub(crate) index: IndexFlag,
    #[command(flatten)]
    pub(crate) filter: FilterFlags,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the paths alone, each with a zero byte after it, as `xargs -0` reads them
    #[arg(long, conflicts_with = "json")]
    pub(crate) paths0: bool,
    /// List the files that have no verdict instead, and why
    #[arg(long, conflicts_with_all = ["genres", "min_confidence", "artist", "under", "min_length", "max_length", "limit"])]
    pub(crate) failed: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(crate) index: IndexFlag,
    #[command(flatten)]
    pub(crate) filter: FilterFlags,
    /// How to write it [default: what the file's name ends in]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<ExportFormat>,
    /// File to write, or - for standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// What other programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A table of texts
    Csv,
    /// A JSON object a line
    Jsonl,
    /// A table of typed columns
    Parquet,
}

impl From<ExportFormat> for Format {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Csv => Self::Csv,
            ExportFormat::Jsonl => Self::JsonLines,
            ExportFormat::Parquet => Self::Parquet,
        }
    }
}

pub(super) fn probability(text: &str) -> Result<f64, String> {
    let expected = || "expected a number from 0 to 1, for example 0.7".to_owned();
    text.parse().ok().filter(|number| (0.0..=1.0).contains(number)).ok_or_else(expected)
}
