//! `chorale library find`: tracks, one a line.

use std::{
    io::{BufWriter, Write},
    path::Path,
};

use chorale_library::{FailedFile, Index, IndexedTrack, KnownTrack, LibraryError, json_line};
use chorale_picture::words::clock;
use serde::Serialize;

use super::{
    index_path,
    stats::{files, hours, tracks},
    unless_closed, unwritten, usage,
};
use crate::{
    cli::library::FindArguments,
    exit::Exit,
    render::{DIM, LABEL_WIDTH, RED, YELLOW, colour_of, shown, styled},
};

pub(crate) fn run(arguments: &FindArguments) -> anyhow::Result<Exit> {
    let index = Index::open(&index_path(&arguments.index)?)?;
    let found = if arguments.failed { list_failed(&index, arguments)? } else { list(&index, arguments)? };
    if !arguments.json && !arguments.paths0 {
        anstream::eprintln!("{found}");
    }
    Ok(Exit::Done)
}

/// Lists tracks, and returns a summary.
fn list(index: &Index, arguments: &FindArguments) -> anyhow::Result<String> {
    let mut out = Out::new(arguments);
    let (mut count, mut seconds) = (0, 0.0);
    let written = index.visit(&arguments.filter.filter(), |indexed| {
        count += 1;
        seconds += indexed.track.duration_seconds;
        if arguments.json {
            out.line(&json_line(&indexed, false).map_err(|error| unwritten(error.into()))?)
        } else if arguments.paths0 {
            out.path(&indexed.track.path)
        } else {
            out.line(&line(&indexed))
        }
    });
    unless_closed(written.and_then(|()| out.flush())).map_err(usage)?;
    Ok(if count == 0 { "no tracks are like that".to_owned() } else { format!("{}, {}", tracks(count), hours(seconds)) })
}

fn list_failed(index: &Index, arguments: &FindArguments) -> anyhow::Result<String> {
    let mut out = Out::new(arguments);
    let failed = index.failed_files()?;
    let mut write = || {
        for file in &failed {
            if arguments.json {
                let line = serde_json::to_string(&FailedObject::from(file));
                out.line(&line.map_err(|error| unwritten(error.into()))?)?;
            } else if arguments.paths0 {
                out.path(&file.path)?;
            } else {
                out.line(&format!("{}  {}", styled(RED, shown(&file.path)), file.message))?;
            }
        }
        out.flush()
    };
    unless_closed(write())?;
    Ok(if failed.is_empty() { "no files failed".to_owned() } else { files(failed.len() as u64) + " failed" })
}

fn line(indexed: &IndexedTrack) -> String {
    let track = &indexed.track;
    let genre = styled(colour_of(&track.genre), format_args!("{:<LABEL_WIDTH$}", track.genre));
    let damaged = if indexed.warnings.is_empty() { String::new() } else { styled(YELLOW, "  (damaged)") };
    let credits = credits(track).map(|credits| format!("{credits}  ")).unwrap_or_default();
    let path = shown(&track.path);
    format!(
        "{genre} {:>3.0} % {:>7}  {credits}{}{damaged}",
        100.0 * track.confidence,
        clock(track.duration_seconds),
        if credits.is_empty() { path } else { styled(DIM, path) },
    )
}

/// Who plays what, as far as the file's tags say.
fn credits(track: &KnownTrack) -> Option<String> {
    match (&track.artist, &track.title) {
        (Some(artist), Some(title)) => Some(format!("{artist} – {title}")),
        (Some(one), None) | (None, Some(one)) => Some(one.clone()),
        (None, None) => None,
    }
}

#[derive(Serialize)]
struct FailedObject<'a> {
    path: String,
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: &'a str,
    message: &'a str,
}

impl<'a> From<&'a FailedFile> for FailedObject<'a> {
    fn from(file: &'a FailedFile) -> Self {
        let error = ErrorObject { code: &file.code, message: &file.message };
        Self { path: file.path.display().to_string(), error }
    }
}

/// Standard output, many lines at a time.
struct Out(BufWriter<Box<dyn Write>>);

impl Out {
    /// Paths are bytes, which a stream that cares for colours would not leave as they are.
    fn new(arguments: &FindArguments) -> Self {
        let plain = arguments.json || arguments.paths0;
        Self(BufWriter::new(if plain { Box::new(std::io::stdout()) } else { Box::new(anstream::stdout()) }))
    }

    fn line(&mut self, line: &str) -> Result<(), LibraryError> {
        writeln!(self.0, "{line}").map_err(unwritten)
    }

    fn path(&mut self, path: &Path) -> Result<(), LibraryError> {
        let bytes = path.as_os_str().as_encoded_bytes();
        self.0.write_all(bytes).and_then(|()| self.0.write_all(&[0])).map_err(unwritten)
    }

    fn flush(&mut self) -> Result<(), LibraryError> {
        self.0.flush().map_err(unwritten)
    }
}
