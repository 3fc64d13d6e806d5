//! `chorale plot`: tracks as figures.

mod destination;

use std::{
    io::{IsTerminal, Write},
    num::NonZero,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::available_parallelism,
    time::Duration,
};

use anyhow::{Context, anyhow};
use chorale_client::{ChunkVote, ClassifyOptions, Client, Event, EventKind, GetModelResponse, Priority};
use chorale_picture::{Answer, Look, Part, Sound, png, svg};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::spawn_blocking;

use self::destination::Destination;
use super::block_on;
use crate::{
    cli::plot::{PictureFormat, PlotArguments},
    exit::{Exit, UsageError},
    listener::{self, Listener},
    paths::{self, Track},
    render::RED,
};

pub(crate) fn run(arguments: &PlotArguments) -> anyhow::Result<Exit> {
    if arguments.to.is_some_and(|to| to <= arguments.from) {
        return Err(UsageError("--to has to be later than --from".to_owned()).into());
    }
    let tracks = paths::expand(&arguments.paths);
    if tracks.contains(&Track::Stdin) {
        let why = "expected files, found - : a picture needs audio that can be read twice, which standard input cannot";
        return Err(UsageError(why.to_owned()).into());
    }
    let several = tracks.len() > 1 || arguments.paths.iter().any(|path| path.is_dir());
    if several && arguments.title.is_some() {
        return Err(UsageError("--title is for one file: several would all have the same".to_owned()).into());
    }
    let destination = Destination::of(arguments, several)?;
    destination.prepare()?;
    let look = arguments.look();
    block_on(async {
        if look.parts.iter().all(|part| part.needs_sound()) {
            return Ok(draw_all(arguments, &tracks, &destination, &look, None).await);
        }
        let Listening { listener, model } = listen(arguments).await?;
        let exit = draw_all(arguments, &tracks, &destination, &look, Some((&listener.client, &model))).await;
        listener.end().await;
        Ok(exit)
    })
}

struct Listening {
    listener: Listener,
    model: GetModelResponse,
}

async fn listen(arguments: &PlotArguments) -> anyhow::Result<Listening> {
    let flags = &arguments.listener;
    let listener = Listener::start(flags, listener::config(&flags.model)?, flags.timeout.into()).await?;
    let model = listener.client.model().await?;
    Ok(Listening { listener, model })
}

async fn draw_all(
    arguments: &PlotArguments,
    tracks: &[Track],
    destination: &Destination,
    look: &Look,
    listening: Option<(&Client, &GetModelResponse)>,
) -> Exit {
    let cores = || available_parallelism().map_or(1, NonZero::get);
    let jobs = arguments.jobs.map_or_else(cores, usize::from).min(tracks.len()).max(1);
    let progress = progress_bar(tracks);
    let names = destination.names(tracks);
    let failures = futures::stream::iter(tracks.iter().zip(&names))
        .map(async |(track, picture)| {
            let drawn = draw_one(arguments, track, picture.as_deref(), look, listening).await;
            (track, picture, drawn)
        })
        .buffered(jobs)
        .fold(0, async |failures, (track, picture, drawn)| {
            let written = drawn.and_then(|drawn| write(&drawn, picture.as_deref()));
            progress.suspend(|| match &written {
                Ok(Some(said)) => anstream::println!("{said}"),
                Ok(None) => {}
                Err(error) => anstream::eprintln!("{}{}:{} {error:#}", RED.render(), track.name(), RED.render_reset()),
            });
            progress.inc(1);
            failures + usize::from(written.is_err())
        })
        .await;
    progress.finish_and_clear();
    if tracks.len() > 1 {
        anstream::eprintln!("{} drawn, {failures} failed", tracks.len() - failures);
    }
    Exit::unless(failures > 0)
}

async fn draw_one(
    arguments: &PlotArguments,
    track: &Track,
    picture: Option<&Path>,
    look: &Look,
    listening: Option<(&Client, &GetModelResponse)>,
) -> anyhow::Result<Vec<u8>> {
    let path = match track {
        Track::File(path) => path.clone(),
        Track::Missing(_, why) => return Err(anyhow!("{why}")),
        Track::Stdin => return Err(anyhow!("standard input cannot be drawn")),
    };
    let format = Destination::format_of(arguments, picture)?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let wants_sound = look.parts.iter().any(|part| part.needs_sound());
    let (stretch, path_to_read) = (look.stretch, path.clone());
    let read = spawn_blocking(move || wants_sound.then(|| Sound::read(&path_to_read, stretch)).transpose());
    let answer = match listening {
        Some((client, model)) => Some(ask(client, model, &path, look, arguments).await?),
        None => None,
    };
    let track = chorale_picture::Track { name, sound: read.await??, answer };
    let (look, scale) = (look.clone(), arguments.scale);
    let drawn = spawn_blocking(move || {
        let drawn = svg(&track, &look)?;
        match format {
            PictureFormat::Svg => Ok(drawn.into_bytes()),
            PictureFormat::Png => png(&drawn, scale),
        }
    });
    Ok(drawn.await??)
}

/// The verdict on a file, with the votes of its chunks if they are drawn.
async fn ask(
    client: &Client,
    model: &GetModelResponse,
    path: &Path,
    look: &Look,
    arguments: &PlotArguments,
) -> anyhow::Result<Answer> {
    let votes = Arc::new(Mutex::new(Vec::<ChunkVote>::new()));
    let wants_votes = look.has(Part::Timeline);
    let options = ClassifyOptions {
        events: if wants_votes { vec![EventKind::ChunkVote.into()] } else { Vec::new() },
        // The cache keeps verdicts, and no votes of chunks.
        bypass_cache: wants_votes,
        priority: if arguments.paths.len() > 1 { Priority::Bulk.into() } else { Priority::Interactive.into() },
        ..ClassifyOptions::default()
    };
    let on_event = |event| {
        let mut votes = votes.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            // A new attempt begins at the beginning.
            Event::Accepted(_) => votes.clear(),
            Event::ChunkVote(vote) => votes.push(vote),
            _ => {}
        }
    };
    let verdict = client.classify_file(path, options, on_event).await?;
    let chunks = std::mem::take(&mut *votes.lock().unwrap_or_else(PoisonError::into_inner));
    let served = model.models.iter().filter_map(|served| served.model.as_ref());
    let answered = served.chain(&model.model).find(|model| model.version == verdict.model_version);
    let (name, labels) =
        answered.or(model.model.as_ref()).map(|model| (model.name.clone(), model.labels.clone())).unwrap_or_default();
    Ok(Answer { verdict, chunks, labels, model: name })
}

/// Writes a picture, and says so unless it goes to standard output.
fn write(drawn: &[u8], picture: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = picture else {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(drawn).and_then(|()| stdout.flush()).context("cannot write to standard output")?;
        return Ok(None);
    };
    chorale_model::write_whole(path, drawn).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(format!("{}  {} kB", path.display(), drawn.len().div_ceil(1_000))))
}

/// A spinner for one track, a bar with an ETA for several, nothing where nobody looks.
fn progress_bar(tracks: &[Track]) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let template =
        if tracks.len() > 1 { "{bar:40.cyan/dim} {pos}/{len} pictures, {eta} left" } else { "{spinner:.cyan} {msg}" };
    let bar = ProgressBar::with_draw_target(Some(tracks.len() as u64), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    if let [track] = tracks {
        bar.set_message(format!("listening to {}", track.name()));
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
