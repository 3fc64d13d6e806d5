//! Measuring a model on labelled tracks.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use chorale_model::{Architecture, Backbone, Classifier, DeviceSpec, Head, ModelFolder, POOLED_FEATURES};

use crate::{
    Catalogue, ChunkReport, ChunkSide, Examples, Progress, Report, Result, Track, TrainerError,
    cache::PooledCache,
    catalogue, default_cache_folder, examples,
    hear::hear,
    metrics::{self, ScoredTrack},
    pooled::{PooledTrack, pooled_tracks},
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
    let model = open_model(options)?;
    let catalogue = Catalogue::open(&options.data, options.seed)?;
    let tracks = match &options.split {
        Some(split) => catalogue.split(split)?,
        None => catalogue.tracks().iter().collect(),
    };
    let tracks = match &options.tracks {
        Some(list) => listed(tracks, list)?,
        None => tracks,
    };
    let (scored, skipped) = match model.manifest().network()? {
        Architecture::Musicnn => {
            let backbone = Backbone::new(model.weights(), &options.device.open()?)?;
            let cache = open_cache(options.cache.as_deref(), &model);
            let pooled = pooled_tracks(&catalogue, &tracks, &backbone, &cache, progress)?;
            (score(&model, &pooled.tracks)?, pooled.skipped)
        }
        Architecture::Ensemble | Architecture::Small | Architecture::SeedCnn => {
            let loaded = examples::load(&catalogue, &tracks, progress)?;
            let classifier = Classifier::load(&model, options.device)?;
            let examples = Examples::new(loaded.tracks, &model.manifest().labels)?;
            (hear(&classifier, &examples, progress)?, loaded.skipped)
        }
    };
    Ok(Report::new(model.manifest(), options.split.as_deref(), &scored, skipped))
}

/// Measures a model on one side of a split by chunk: the one that training with the same data and seed has made. Splits of
/// the data are ignored.
///
/// # Errors
/// Where model or data cannot be read, a track's genre is not one of the model's labels, no chunk can be used, or the
/// split is neither `train` nor `test`.
pub fn evaluate_chunks(options: &EvaluateOptions, progress: Progress) -> Result<ChunkReport> {
    let split = options.split.as_deref().unwrap_or("none");
    let side: ChunkSide = split.parse()?;
    if options.tracks.is_some() {
        let (option, expected) = ("split by chunk", "no list of tracks");
        return Err(TrainerError::Option { option, expected, found: "one".to_owned() });
    }
    let model = open_model(options)?;
    let catalogue = Catalogue::open(&options.data, options.seed)?;
    let tracks: Vec<&Track> = catalogue.tracks().iter().collect();
    let loaded = examples::load(&catalogue, &tracks, progress)?;
    let chosen = side.select(&loaded.tracks, options.seed);
    if chosen.is_empty() {
        let reason = format!("none of its chunks is in the split `{side}`");
        return Err(TrainerError::NothingUsable { tracks: tracks.len(), reason });
    }
    let examples = Examples::new(chosen, &model.manifest().labels)?;
    let scored = hear(&Classifier::load(&model, options.device)?, &examples, progress)?;
    Ok(ChunkReport::new(model.manifest(), split, options.seed, &scored))
}

fn open_model(options: &EvaluateOptions) -> Result<ModelFolder> {
    Ok(match &options.model {
        Some(folder) => ModelFolder::load(folder)?,
        None => ModelFolder::embedded()?,
    })
}

/// The logits of pooled tracks by the head of `model`, computed on the CPU.
pub(crate) fn score(model: &ModelFolder, tracks: &[PooledTrack<'_>]) -> Result<Vec<ScoredTrack>> {
    let labels = &model.manifest().labels;
    let genres = metrics::genre_indices(tracks, labels)?;
    let cpu = DeviceSpec::Cpu.open()?;
    let head = Head::new(model.weights(), labels.len(), &cpu)?;
    let mut logits = Vec::new();
    for track in tracks {
        let features = Tensor::from_slice(&track.features, (track.chunks(), POOLED_FEATURES), &cpu)?;
        logits.extend(head.logits(&features)?.to_vec2::<f32>()?);
    }
    Ok(metrics::score(tracks, &genres, logits))
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
