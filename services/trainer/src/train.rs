//! Training a model folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chorale_model::{
    ARCHITECTURE, Adapter, Backbone, DeviceSpec, Licence, Manifest, ModelFolder, Weights, contract::feature_id,
    import_musicnn,
};

use crate::{
    Catalogue, FitOptions, Progress, Report, Result, Skipped, TrainerError,
    cache::PooledCache,
    card::Card,
    default_cache_folder, evaluate,
    fit::{self, Examples},
    metrics,
    pooled::{PooledTrack, pooled_tracks},
};

const TRAIN_SPLIT: &str = "train";
const VALID_SPLIT: &str = "valid";
const ADAPTER_FILE: &str = "adapter.json";
const MUSICNN_NOTICE: &str = include_str!("musicnn_notice.txt");

/// What to train, on what, and how.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Labelled tracks in any layout of [`Catalogue::open`], with the splits `train` and `valid`.
    pub data: PathBuf,
    /// The folder that the model is written to.
    pub out: PathBuf,
    /// What the model is called.
    pub name: String,
    /// The published weights of MusiCNN as safetensors, with `adapter.json` beside them; none to start from the default
    /// model's backbone and dense layers.
    pub backbone: Option<PathBuf>,
    /// Where pooled features are kept; none for [`default_cache_folder`].
    pub cache: Option<PathBuf>,
    /// Where the backbone runs. The head is always fitted on the CPU.
    pub device: DeviceSpec,
    /// How to fit. Its seed also decides the splits of data that has none.
    pub fit: FitOptions,
}

/// A trained model.
#[derive(Clone, Debug)]
pub struct TrainOutcome {
    /// The model, as it was written.
    pub model: ModelFolder,
    /// What it does on the validation tracks.
    pub valid: Report,
    /// The epoch that it is from, from 1.
    pub best_epoch: usize,
    /// Epochs run.
    pub epochs: usize,
    /// Training tracks used.
    pub train_tracks: usize,
    /// Training tracks left out.
    pub skipped: Vec<Skipped>,
    /// Time spent on features, or on reading them from the cache.
    pub feature_time: Duration,
    /// Time spent on the fit.
    pub fit_time: Duration,
}

/// Trains a model: pooled features of every track once, then the head.
///
/// # Errors
/// Where data or weights cannot be read, a genre has no training track, the fit diverges, or the folder cannot be
/// written.
pub fn train(options: &TrainOptions, progress: Progress) -> Result<TrainOutcome> {
    options.fit.check()?;
    let start = start_weights(options.backbone.as_deref())?;
    let catalogue = Catalogue::open(&options.data, options.fit.seed)?;
    let (train_tracks, valid_tracks) = (catalogue.split(TRAIN_SPLIT)?, catalogue.split(VALID_SPLIT)?);

    let started = Instant::now();
    let backbone = Backbone::new(&start.weights, &options.device.open()?)?;
    let cache_folder = options.cache.clone().unwrap_or_else(default_cache_folder);
    let cache = PooledCache::new(&cache_folder, &start.weights.backbone_hash(), feature_id());
    let train = pooled_tracks(&catalogue, &train_tracks, &backbone, &cache, progress)?;
    let valid = pooled_tracks(&catalogue, &valid_tracks, &backbone, &cache, progress)?;
    let feature_time = started.elapsed();

    let labels = labels(&train.tracks, &valid.tracks, &train_tracks.iter().map(|track| &track.genre).collect())?;
    let train_genres = metrics::genre_indices(&train.tracks, &labels)?;
    let valid_genres = metrics::genre_indices(&valid.tracks, &labels)?;
    let started = Instant::now();
    let mut weights = start.weights;
    // The products of a step are too small to share between threads: waiting for each other would cost more.
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let fitted = one_thread.install(|| {
        fit::fit(
            &mut weights,
            labels.len(),
            &Examples { tracks: &train.tracks, genres: &train_genres },
            &Examples { tracks: &valid.tracks, genres: &valid_genres },
            &options.fit,
            progress,
        )
    })?;
    let fit_time = started.elapsed();

    let mut manifest = Manifest {
        name: options.name.clone(),
        version: String::new(),
        labels,
        feature_id: feature_id().to_owned(),
        architecture: ARCHITECTURE.to_owned(),
        temperature: 1.0,
        unknown_below: 0.0,
        metrics: BTreeMap::new(),
        provenance: provenance(options, start.origin, train.tracks.len(), valid.tracks.len()),
        licences: start.licences,
    };
    let uncalibrated = ModelFolder::new(manifest.clone(), weights.clone(), String::new())?;
    let scored = evaluate::score(&uncalibrated, &valid.tracks)?;
    manifest.temperature = metrics::fit_temperature(&scored);
    let calibrated = ModelFolder::new(manifest, weights, String::new())?;
    let mut manifest = calibrated.manifest().clone();
    let report = Report::new(&manifest, Some(VALID_SPLIT), &scored, valid.skipped);
    manifest.metrics.insert(VALID_SPLIT.to_owned(), report.summary());
    let card = Card { manifest: &manifest, valid: &report }.to_string();
    let model = ModelFolder::new(manifest, calibrated.weights().clone(), card)?;
    model.save(&options.out)?;
    Ok(TrainOutcome {
        model,
        valid: report,
        best_epoch: fitted.best_epoch,
        epochs: fitted.epochs,
        train_tracks: train.tracks.len(),
        skipped: train.skipped,
        feature_time,
        fit_time,
    })
}

/// The labels of a new model: the genres of the training tracks, in alphabetical order.
fn labels(train: &[PooledTrack<'_>], valid: &[PooledTrack<'_>], wanted: &BTreeSet<&String>) -> Result<Vec<String>> {
    let learnt: BTreeSet<&String> = train.iter().map(|track| &track.track.genre).collect();
    if let Some(genre) = wanted.iter().find(|genre| !learnt.contains(*genre)) {
        return Err(TrainerError::EmptyGenre { genre: (*genre).clone(), split: TRAIN_SPLIT.to_owned() });
    }
    if let Some(track) = valid.iter().find(|track| !learnt.contains(&track.track.genre)) {
        return Err(TrainerError::EmptyGenre { genre: track.track.genre.clone(), split: TRAIN_SPLIT.to_owned() });
    }
    if learnt.len() < 2 {
        return Err(TrainerError::TooFewGenres { split: TRAIN_SPLIT.to_owned(), found: learnt.len() });
    }
    Ok(learnt.into_iter().cloned().collect())
}

/// What training starts from.
struct Start {
    weights: Weights,
    origin: String,
    licences: Vec<Licence>,
}

fn start_weights(backbone: Option<&Path>) -> Result<Start> {
    let Some(path) = backbone else {
        let model = ModelFolder::embedded()?;
        let manifest = model.manifest();
        let origin = manifest.provenance.get("backbone").cloned().unwrap_or_default();
        return Ok(Start { weights: model.weights().clone(), origin, licences: manifest.licences.clone() });
    };
    let read = |path: &Path| fs::read(path).map_err(|source| TrainerError::Read { path: path.to_owned(), source });
    let adapter = Adapter::from_json(&read(&path.with_file_name(ADAPTER_FILE))?)?;
    let weights = import_musicnn(&read(path)?, &adapter)?;
    let origin = "MusiCNN (musicnn 0.1.0, model MSD_musicnn), trained on the Million Song Dataset by Jordi Pons, Music \
                  Technology Group, Universitat Pompeu Fabra; kernels over time resampled to 24 frames a second";
    let notice = MUSICNN_NOTICE.trim_end().to_owned();
    let licence = Licence { part: "backbone".to_owned(), spdx: "ISC".to_owned(), notice };
    Ok(Start { weights, origin: origin.to_owned(), licences: vec![licence] })
}

fn provenance(options: &TrainOptions, backbone: String, train: usize, valid: usize) -> BTreeMap<String, String> {
    let data = options.data.file_name().unwrap_or_default().to_string_lossy();
    let fit = &options.fit;
    let head = format!(
        "fitted on {train} tracks of {data}, stopped by {valid} others: AdamW, batch {}, learning rate {}, weight decay {}, \
         dropout {}, label smoothing {}, averaging {}, patience {}, seed {}",
        fit.batch,
        fit.learning_rate,
        fit.weight_decay,
        fit.dropout,
        fit.label_smoothing,
        fit.averaging,
        fit.patience,
        fit.seed
    );
    BTreeMap::from([("backbone".to_owned(), backbone), ("head".to_owned(), head)])
}
