//! The arguments of `chorale playlist`.

use std::{path::PathBuf, time::Duration};

use chorale_library::{Mix, PathStyle, PlaylistFormat};
use clap::{Args, ValueEnum};

use super::{library::IndexFlag, tag::TrackFlags};

pub(crate) const HELP: &str = "\
Examples:
  chorale playlist --genre jazz -o jazz.m3u8
  chorale playlist --mix \"70 % jazz, 30 % blues\" --length 2h --shuffle -o evening.m3u8
  chorale playlist --like song.mp3 --tracks 25 -o like-song.xspf
  chorale playlist --genre reggae --min-confidence 0.7 | mpv --playlist=-

The surest tracks come first, or those most like the track of --like, or any with --shuffle. No artist comes
twice in a row as long as somebody else is left. Every beginning of a mix has its shares, too.

Exit codes: 0 done, 1 there is no such playlist, 2 wrong usage. What was short is said on standard error.";

#[derive(Debug, Args)]
pub(crate) struct PlaylistArguments {
    /// Only what lies in these folders, or these files [default: the whole library]
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// File to write, .m3u8 or .xspf; or - for standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub(crate) out: PathBuf,
    /// How to write it [default: what the file's name ends in; m3u8 on standard output]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<FormatFlag>,
    #[command(flatten)]
    pub(crate) index: IndexFlag,
    #[command(flatten)]
    pub(crate) filter: TrackFlags,
    /// Shares of genres, as in "70 % jazz, 30 % blues" or "2 jazz, 1 blues"
    #[arg(long, value_name = "SHARES", conflicts_with = "genres", value_parser = mix)]
    pub(crate) mix: Option<Mix>,
    /// As close to this length as can be, for example 2h or 45m
    #[arg(long, short, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) length: Option<Duration>,
    /// This many tracks at most
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tracks: Option<u32>,
    /// Tracks that sound like this one of the library, the most alike first
    #[arg(long, value_name = "FILE", conflicts_with = "shuffle")]
    pub(crate) like: Option<PathBuf>,
    /// Choose and order by chance
    #[arg(long)]
    pub(crate) shuffle: bool,
    /// Where chance starts: the same seed and library give the same playlist [default: another one each time]
    #[arg(long, value_name = "N", requires = "shuffle")]
    pub(crate) seed: Option<u64>,
    /// Let an artist come twice in a row
    #[arg(long)]
    pub(crate) repeat_artists: bool,
    /// How to name the files [default: relative if all lie below the playlist's folder, else absolute]
    #[arg(long, value_enum, value_name = "STYLE")]
    pub(crate) file_paths: Option<PathStyleFlag>,
    /// Name of the playlist [default: that of the file]
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Print the tracks as one JSON object; with -o, beside writing the playlist
    #[arg(long)]
    pub(crate) json: bool,
}

fn mix(text: &str) -> Result<Mix, String> {
    text.parse().map_err(|error: chorale_library::LibraryError| error.to_string())
}

/// A kind of playlist file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatFlag {
    /// Extended M3U in UTF-8, which every player reads
    M3u8,
    /// XML Shareable Playlist Format
    Xspf,
}

impl From<FormatFlag> for PlaylistFormat {
    fn from(format: FormatFlag) -> Self {
        match format {
            FormatFlag::M3u8 => Self::M3u8,
            FormatFlag::Xspf => Self::Xspf,
        }
    }
}

/// How a playlist names files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PathStyleFlag {
    /// From the folder of the playlist
    Relative,
    /// From the root
    Absolute,
}

impl From<PathStyleFlag> for PathStyle {
    fn from(style: PathStyleFlag) -> Self {
        match style {
            PathStyleFlag::Relative => Self::Relative,
            PathStyleFlag::Absolute => Self::Absolute,
        }
    }
}
