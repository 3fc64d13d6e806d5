//! How changes of tags look.

use std::{fmt::Write, path::Path};

use chorale_library::{FieldChange, KnownTrack, LibraryError, TagRun};

use crate::{
    commands::tag::Counts,
    render::{BOLD, DIM, GREEN, RED, shown, styled},
};

const FIELD_WIDTH: usize = 18;

/// A file and what changes in its tags, a line for each field.
pub(crate) fn changes(path: &Path, changes: &[FieldChange]) -> String {
    let mut text = styled(BOLD, shown(path));
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
    format!("{}  {}", styled(DIM, shown(&track.path)), styled(DIM, format!("stays {} ({heard})", plain(genres))))
}

/// A file that is left as it was.
pub(crate) fn failure(path: &Path, error: &LibraryError) -> String {
    // What is wrong with this file names it already.
    let what = match error {
        LibraryError::Read { path: other, source } if other == path => format!("it cannot be read: {source}"),
        LibraryError::Write { path: other, source } if other == path => format!("it cannot be written: {source}"),
        error => error.to_string(),
    };
    format!("{} {what}", styled(RED, format!("{}:", shown(path))))
}

/// A run that can be undone.
pub(crate) fn run(run: &TagRun) -> String {
    let since = std::time::Duration::from_secs(run.started_at.unsigned_abs());
    let started = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since);
    let left = if run.tried { ", which an undo left alone" } else { "" };
    format!("{:>4}  {started}  {}{left}", run.run, counted(run.files as usize))
}

/// The last line of an undo, and what to do about what is left.
pub(crate) fn undone(run: i64, restored: usize, left: usize) -> String {
    let text = format!("run {run}: {restored} restored, {left} left alone");
    if left == 0 {
        return text;
    }
    format!("{text}\n`chorale tag --undo {run}` tries these again; `chorale tag --undo` goes on with the run before")
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
        let (verb, them) = if unsure == 1 { ("is", "it") } else { ("are", "them") };
        let _ = write!(
            text,
            "\n{unsure} of these verdicts {verb} less than half sure; --min-confidence 0.5 leaves {them} out"
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_file_once() {
        let path = Path::new("/m/a\u{7}.mp3");
        let of = |named: &Path| {
            let error = LibraryError::Read { path: named.to_owned(), source: std::io::ErrorKind::NotFound.into() };
            anstream::adapter::strip_str(&failure(path, &error)).to_string()
        };
        assert_eq!(of(path), "/m/a\u{fffd}.mp3: it cannot be read: entity not found");
        assert_eq!(of(Path::new("/n")), "/m/a\u{fffd}.mp3: /n cannot be read: entity not found");
    }

    #[test]
    fn an_undo_says_what_to_do_about_what_is_left() {
        assert_eq!(undone(2, 43, 0), "run 2: 43 restored, 0 left alone");
        assert!(undone(2, 42, 1).ends_with("`chorale tag --undo` goes on with the run before"));
    }
}
