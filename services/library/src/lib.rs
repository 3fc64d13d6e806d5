//! A music library sorted by genre.
//!
//! An [`Index`] is one SQLite file with every audio file that was looked at, and every verdict. A [`Scanner`] fills it through
//! a server, [`Watch`] keeps it up to date, [`Index::tracks`] and [`export`] read it.

mod credits;
mod error;
mod export;
mod failures;
mod filter;
mod index;
mod location;
mod lock;
mod path_bytes;
mod place;
mod playlist;
mod reading;
mod scan;
mod stop;
mod tagging;
#[cfg(test)]
mod testing;
mod track;
mod verdict;
mod walk;
mod watch;

pub use crate::{
    credits::Credits,
    error::LibraryError,
    export::{Format, export, export_to_file, json_line},
    failures::failure_title,
    filter::{Filter, Order},
    index::{
        FailedFile, FailureStatistics, FileState, Finding, Found, GenreStatistics, Index, Knowledge, ModelStatistics,
        ServedModel, Statistics,
    },
    location::default_index,
    lock::ScanLock,
    playlist::{
        Entry, Mix, Note, PathStyle, Playlist, PlaylistFormat, PlaylistRequest, Ranking, compose, save_playlist,
    },
    scan::{Plan, ScanEvent, ScanOptions, Scanner},
    stop::{Stop, Stopper, stop_signal},
    tagging::{
        ExistingGenre, FieldChange, TagAction, TagRun, TagState, journal_of, preview_tags, tag_runs, undo_tags,
        write_tags,
    },
    track::{IndexedTrack, KnownTrack},
    verdict::{Stretch, TrackVerdict},
    walk::{Unreadable, audio_files, roots},
    watch::Watch,
};
