//! Measuring a model on labelled tracks.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use chorale_model::{Backbone, DeviceSpec, Head, ModelFolder, POOLED_FEATURES};

use crate::{
    Catalogue, NotMusic, Prediction, Progress, Report, Result, Track, TrainerError, UnknownReport,
    cache::PooledCache,
    catalogue, default_cache_folder,
    metrics::{self, ScoredTrack},
    pooled::{PooledTrack, pool, pooled_tracks},
};

/// What to measure, and on what.
#[derive(Clone, Debug, Default)]
pub struct EvaluateOptions {
    /// The model's folder; none for the default model.
    pub model: Option<PathBuf>,
    /// Labelled tracks in any layout of [`Catalogue::open`].
    pub data: PathBuf,
    /// Only tracks of this split; none for all.
    pub split: Option<String>,
    /// Only the tracks named in the column `track` of this CSV file.
    pub tracks: Option<PathBuf>,
    /// Audio that is no music, to measure how much of it gets `unknown`: a folder with a subfolder a kind, or a CSV file
    /// with the columns `file` and `kind`; none to leave that out.
    pub not_music: Option<PathBuf>,
    /// Where data without splits is split: see [`Catalogue::open`].
    pub seed: u64,
    /// Where pooled features are kept; none for [`default_cache_folder`].
    pub cache: Option<PathBuf>,
    /// Where the network runs.
    pub device: DeviceSpec,
}

/// Measures a model.
///
/// # Errors
/// Where model or data cannot be read, a track's genre is not one of the model's labels, or no track can be used.
pub fn evaluate(options: &EvaluateOptions, progress: Progress) -> Result<Report> {
    let model = match &options.model {
        Some(folder) => ModelFolder::load(folder)?,
        None => ModelFolder::embedded()?,
    };
    let catalogue = Catalogue::open(&options.data, options.seed)?;
    let tracks = match &options.split {
        Some(split) => catalogue.split(split)?,
        None => catalogue.tracks().iter().collect(),
    };
    let tracks = match &options.tracks {
        Some(list) => listed(tracks, list)?,
        None => tracks,
    };
    let device = options.device.open()?;
    let backbone = Backbone::new(model.weights(), &device)?;
    let cache = open_cache(options.cache.as_deref(), &model);
    let pooled = pooled_tracks(&catalogue, &tracks, &backbone, &cache, progress)?;
    let scored = score(&model, &pooled.tracks)?;
    let mut report = Report::new(model.manifest(), options.split.as_deref(), &scored, pooled.skipped);
    if let Some(not_music) = &options.not_music {
        report.unknown = Some(measure_unknown(&model, &backbone, &cache, not_music, &report.predictions, progress)?);
    }
    Ok(report)
}

fn measure_unknown(
    model: &ModelFolder,
    backbone: &Backbone,
    cache: &PooledCache,
    not_music: &Path,
    music: &[Prediction],
    progress: Progress,
) -> Result<UnknownReport> {
    let catalogue = Catalogue::open_not_music(not_music)?;
    let tracks: Vec<&Track> = catalogue.tracks().iter().collect();
    let pooled = pool(&catalogue, &tracks, backbone, cache, progress)?;
    // No genre is right for these, so that it does not matter which one they have.
    let scored = scored_as(model, &pooled.tracks, &vec![0; pooled.tracks.len()])?;
    let heard = (pooled.tracks.iter().zip(&scored))
        .map(|(track, scored)| NotMusic::heard(&track.track.genre, scored, model.manifest()));
    let silent = pooled.silent.iter().map(|track| NotMusic::silent(&track.genre, &track.name));
    let files = heard.chain(silent).collect();
    Ok(UnknownReport::new(model.manifest().unknown_below, music, files, pooled.skipped))
}

/// The logits of pooled tracks by the head of `model`, computed on the CPU.
pub(crate) fn score(model: &ModelFolder, tracks: &[PooledTrack<'_>]) -> Result<Vec<ScoredTrack>> {
    let genres = metrics::genre_indices(tracks, &model.manifest().labels)?;
    scored_as(model, tracks, &genres)
}

fn scored_as(model: &ModelFolder, tracks: &[PooledTrack<'_>], genres: &[usize]) -> Result<Vec<ScoredTrack>> {
    let labels = &model.manifest().labels;
    let cpu = DeviceSpec::Cpu.open()?;
    let head = Head::new(model.weights(), labels.len(), &cpu)?;
    let mut logits = Vec::new();
    for track in tracks {
        let features = Tensor::from_slice(&track.features, (track.chunks(), POOLED_FEATURES), &cpu)?;
        logits.extend(head.logits(&features)?.to_vec2::<f32>()?);
    }
    Ok(metrics::score(tracks, genres, logits))
}

pub(crate) fn open_cache(folder: Option<&Path>, model: &ModelFolder) -> PooledCache {
    let folder = folder.map_or_else(default_cache_folder, Path::to_owned);
    PooledCache::new(&folder, &model.weights().backbone_hash(), &model.manifest().feature_id)
}

fn listed<'a>(tracks: Vec<&'a Track>, list: &Path) -> Result<Vec<&'a Track>> {
    let names = catalogue::track_list(list)?;
    let known: HashSet<&str> = tracks.iter().map(|track| track.name.as_str()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name.as_str())) {
        return Err(TrainerError::NoSuchTrack(name.clone()));
    }
    let names: HashSet<&str> = names.iter().map(String::as_str).collect();
    Ok(tracks.into_iter().filter(|track| names.contains(track.name.as_str())).collect())
}
