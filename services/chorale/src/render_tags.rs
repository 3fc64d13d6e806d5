//! How changes of tags look.

use std::{fmt::Write, path::Path};

use chorale_library::{FieldChange, KnownTrack, LibraryError, TagRun};

use crate::{
    commands::tag::Counts,
    render::{BOLD, DIM, GREEN, RED, styled},
};

const FIELD_WIDTH: usize = 18;

/// A file and what changes in its tags, a line for each field.
pub(crate) fn changes(path: &str, changes: &[FieldChange]) -> String {
    let mut text = styled(BOLD, path);
    for FieldChange { field, old, new } in changes {
        let old = if old.is_empty() { styled(DIM, "nothing") } else { plain(old) };
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {field:<FIELD_WIDTH$} {old} → {}", styled(GREEN, plain(new)));
    }
    text
}

/// A file whose genre stays.
pub(crate) fn kept(track: &KnownTrack, genres: &[String]) -> String {
    let heard = format!("heard {}, {:.0} %", track.genre, track.confidence * 100.0);
    format!("{}  {}", styled(DIM, track.path.display()), styled(DIM, format!("stays {} ({heard})", plain(genres))))
}

/// A file that is left as it was.
pub(crate) fn failure(path: &Path, error: &LibraryError) -> String {
    format!("{} {error}", styled(RED, format!("{}:", path.display())))
}

/// A run that can be undone.
pub(crate) fn run(run: &TagRun) -> String {
    let since = std::time::Duration::from_secs(run.started_at.unsigned_abs());
    let started = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since);
    format!("{:>4}  {started}  {}", run.run, counted(run.files as usize))
}

/// The last lines: what was done, or would be, and what to do next.
pub(crate) fn tally(counts: &Counts, write: bool, run: Option<i64>) -> String {
    let Counts { changed, unchanged, kept, unknown, failed, unsure } = *counts;
    let changed_files = counted(changed);
    let mut text = match (write, changed) {
        (true, _) => format!("{changed_files} tagged"),
        (false, _) => format!("{changed_files} would be tagged"),
    };
    let others = [
        (unchanged, "the same already"),
        (kept, "with a genre of their own"),
        (unknown, "unknown"),
        (failed, "failed"),
    ];
    for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, ", {count} {what}");
    }
    if kept > 0 {
        text.push_str("\n--overwrite replaces genres that files have from elsewhere, --add adds to them");
    }
    if unsure > 0 && !write {
        let _ =
            write!(text, "\n{unsure} of these verdicts are less than half sure; --min-confidence 0.5 leaves them out");
    }
    match run {
        Some(run) => drop(write!(text, "\n`chorale tag --undo {run}` takes it back")),
        None if changed > 0 && !write => text.push_str("\nnothing was changed yet: --write does it"),
        None => {}
    }
    text
}

/// Values from a file's tags, without what a terminal would obey.
fn plain(values: &[String]) -> String {
    values.join(", ").replace(char::is_control, "\u{fffd}")
}

fn counted(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}
