//! `chorale playlist`: tracks of the library in an order worth hearing.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use chorale_library::{
    Entry, Index, LibraryError, PathStyle, Playlist, PlaylistFormat, PlaylistRequest, Ranking, compose, save_playlist,
};
use serde::Serialize;

use super::library::{index_path, places, unless_closed, unwritten, usage};
use crate::{
    cli::playlist::PlaylistArguments,
    exit::{Exit, UsageError},
    render, render_playlist,
};

/// What a playlist is called that nobody gave a name.
const TITLE: &str = "Chorale";

pub(crate) fn run(arguments: &PlaylistArguments) -> anyhow::Result<Exit> {
    let to_stdout = arguments.out.as_os_str() == "-";
    let format = match (arguments.format, to_stdout) {
        (Some(format), _) => format.into(),
        (None, true) => PlaylistFormat::M3u8,
        (None, false) => PlaylistFormat::of(&arguments.out).ok_or_else(|| {
            UsageError(format!("{}: expected a name that ends in .m3u8 or .xspf, or --format", arguments.out.display()))
        })?,
    };
    let index = Index::open(&index_path(&arguments.index)?)?;
    let tracks = index.tracks(&arguments.filter.filter(places(&arguments.paths)?)).map_err(usage)?;
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let request = PlaylistRequest {
        mix: arguments.mix.clone(),
        tracks: arguments.tracks.map(|tracks| tracks as usize),
        seconds: arguments.length.map(|length| length.as_secs_f64()),
        repeat_artists: arguments.repeat_artists,
        ranking: ranking(arguments, &index, seed)?,
    };
    let playlist = compose(&tracks, &request)?;
    let file = if to_stdout { None } else { Some(std::path::absolute(&arguments.out)?) };
    let folder = match &file {
        Some(file) => file.parent().map_or_else(PathBuf::new, Path::to_owned),
        None => std::env::current_dir()?,
    };
    let folder = folder.canonicalize().with_context(|| format!("the folder {}", folder.display()))?;
    let title = title(arguments, file.as_deref());
    let text = playlist.render(format, &title, &folder, style(arguments, &playlist, &folder))?;
    match &file {
        Some(file) => save_playlist(file, &text)?,
        None if !arguments.json => unless_closed(std::io::stdout().write_all(text.as_bytes()).map_err(unwritten))?,
        None => {}
    }
    report(arguments, &playlist, seed)?;
    Ok(Exit::Done)
}

fn ranking(arguments: &PlaylistArguments, index: &Index, seed: u64) -> anyhow::Result<Ranking> {
    let Some(like) = &arguments.like else {
        return Ok(if arguments.shuffle { Ranking::Shuffled(seed) } else { Ranking::Surest });
    };
    let track = match (index.track_at(like)?, like.metadata()) {
        (Some(track), _) => track,
        (None, Ok(_)) => return Err(LibraryError::NotInIndex(like.clone()).into()),
        (None, Err(source)) => return Err(LibraryError::Read { path: like.clone(), source }.into()),
    };
    Ok(Ranking::Like(Box::new(track)))
}

fn title(arguments: &PlaylistArguments, file: Option<&Path>) -> String {
    let stem = file.and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    arguments.title.clone().or(stem).unwrap_or_else(|| TITLE.to_owned())
}

fn style(arguments: &PlaylistArguments, playlist: &Playlist, folder: &Path) -> PathStyle {
    let to_file = arguments.out.as_os_str() != "-";
    let all_below = playlist.entries.iter().all(|entry| entry.track.path.starts_with(folder));
    let default = if to_file && all_below { PathStyle::Relative } else { PathStyle::Absolute };
    arguments.file_paths.map_or(default, PathStyle::from)
}

#[derive(Serialize)]
struct PlaylistObject<'a> {
    tracks: Vec<EntryObject<'a>>,
    duration_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct EntryObject<'a> {
    path: String,
    genre: &'a str,
    confidence: f64,
    duration_seconds: f64,
    artist: Option<&'a str>,
    album: Option<&'a str>,
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity: Option<f64>,
}

impl<'a> From<&'a Entry> for EntryObject<'a> {
    fn from(Entry { track, similarity }: &'a Entry) -> Self {
        Self {
            path: track.path.to_string_lossy().into_owned(),
            genre: &track.genre,
            confidence: track.confidence,
            duration_seconds: track.duration_seconds,
            artist: track.artist.as_deref(),
            album: track.album.as_deref(),
            title: track.title.as_deref(),
            similarity: *similarity,
        }
    }
}

/// Says what came of it: as JSON on standard output, or in a few lines on standard error.
fn report(arguments: &PlaylistArguments, playlist: &Playlist, seed: u64) -> anyhow::Result<()> {
    let seed = arguments.shuffle.then_some(seed);
    if arguments.json {
        let object = PlaylistObject {
            tracks: playlist.entries.iter().map(EntryObject::from).collect(),
            duration_seconds: playlist.seconds(),
            seed,
            notes: playlist.notes.iter().map(render_playlist::note).collect(),
        };
        anstream::println!("{}", serde_json::to_string(&object)?);
        return Ok(());
    }
    anstream::eprintln!("{}", render_playlist::line(playlist, &arguments.out, seed));
    for note in &playlist.notes {
        anstream::eprintln!("{} {}", render::styled(render::YELLOW, "note:"), render_playlist::note(note));
    }
    Ok(())
}
