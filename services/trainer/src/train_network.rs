//! Training a whole network, from labelled tracks to a model folder.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use candle_core::Device;
use chorale_model::{
    Architecture, Classifier, DeviceSpec, Licence, Manifest, ModelFolder, Weights, contract::feature_id,
};
use serde_json::Value;

use crate::{
    Augment, CHUNK_SPLIT_LEAKS, Catalogue, Checkpoint, ChunkReport, ChunkSide, EpochScores, Examples, LearnOptions,
    Progress, Report, Result, Run, Skipped, SplitBy, Trainable, TrainerError,
    card::{self, Card},
    chunk_split::genres,
    curves,
    evaluate::measure_unknown,
    examples, hear,
    labels::labels,
    learn, metrics,
};

const TRAIN_SPLIT: &str = "train";
const VALID_SPLIT: &str = "valid";
/// The picture of how training went, in the model's folder.
const CURVES_FILE: &str = "curves.svg";
/// Thresholds are rounded to thousandths.
const THRESHOLD_STEPS: f64 = 1_000.0;

/// What to train on, and where to put the result.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// Labelled tracks in any layout of [`Catalogue::open`].
    pub data: PathBuf,
    /// The folder that the model is written to.
    pub out: PathBuf,
    /// What the model is called.
    pub name: String,
    /// Where the network is trained.
    pub device: DeviceSpec,
    /// Threads that run the network on the CPU.
    pub threads: usize,
    /// The folder of the checkpoint; none for `OUT.checkpoint` beside `out`.
    pub checkpoint: Option<PathBuf>,
    /// Whether to go on from the checkpoint.
    pub resume: bool,
    /// What is split: by track, the splits of the data are used; by chunk, they are ignored, and there is no validation.
    pub split_by: SplitBy,
    /// Audio that is no music, for an ensemble to be told from music: a folder or a CSV file. The threshold of the verdict
    /// `unknown` is chosen on it and on the validation tracks.
    pub not_music: Option<PathBuf>,
    /// A model that the same options made: the new one learns from its validation tracks, too, and takes over its
    /// temperature, its threshold and what was measured.
    pub refit: Option<PathBuf>,
    /// How to train. Its seed also decides the splits.
    pub learn: LearnOptions,
}

/// What makes the network, as a function of what it will learn from, the seed and the device.
pub type Build<'a> = dyn Fn(&Examples, u64, &Device) -> Result<Box<dyn Trainable>> + Sync + 'a;

/// What is fitted to the weights when they have learnt, as a function of what they have learnt from and of chunks that are
/// no music.
pub type Conclude<'a> = dyn Fn(&mut Weights, &Examples, &[Vec<u8>], &Device) -> Result<()> + Sync + 'a;

/// A network and what belongs to it.
pub struct Recipe<'a> {
    /// The network.
    pub architecture: Architecture,
    /// What makes it.
    pub build: &'a Build<'a>,
    /// What is done to its weights in the end.
    pub conclude: &'a Conclude<'a>,
    /// What is done to chunks before they are learnt from.
    pub augment: &'a dyn Augment,
    /// Options of the network and the augmentation that change the result. A checkpoint with others is refused.
    pub context: Value,
    /// Where the parts come from, for the manifest. What is learnt here is added as `network`.
    pub provenance: BTreeMap<String, String>,
    /// The licences of the parts.
    pub licences: Vec<Licence>,
}

/// A trained network.
#[derive(Clone, Debug)]
pub struct NetworkOutcome {
    /// The model, as it was written.
    pub model: ModelFolder,
    /// What it does on tracks or chunks that it was not fitted to.
    pub measured: Measured,
    /// The epoch that it is from, from 1.
    pub best_epoch: usize,
    /// What happened in every epoch.
    pub history: Vec<EpochScores>,
    /// Tracks left out.
    pub skipped: Vec<Skipped>,
    /// Time spent on training.
    pub learn_time: Duration,
}

/// A report by track or by chunk.
#[derive(Clone, Debug)]
pub enum Measured {
    /// On the validation tracks.
    Tracks(Box<Report>),
    /// On the chunks held out.
    Chunks(ChunkReport),
    /// Nothing was held out.
    Nothing,
}

/// What is learnt from, and what it is measured on.
struct Data {
    labels: Vec<String>,
    train: Examples,
    held_out: Examples,
    /// Chunks that are no music.
    not_music: Vec<Vec<u8>>,
    skipped: Vec<Skipped>,
}

/// Trains a network, and removes its checkpoint when the model has been written.
///
/// # Errors
/// Where data cannot be read, a genre has nothing to learn from, training diverges, or the folder or the checkpoint cannot
/// be written. A checkpoint that was written stays.
pub fn train_network(options: &NetworkOptions, recipe: &Recipe<'_>, progress: Progress) -> Result<NetworkOutcome> {
    options.learn.check()?;
    // Not the pool that everybody shares: see `Workers`.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    pool.install(|| train_here(options, recipe, progress))
}

fn train_here(options: &NetworkOptions, recipe: &Recipe<'_>, progress: Progress) -> Result<NetworkOutcome> {
    let device = options.device.open()?;
    let data = read(options, progress)?;
    let checkpoint = Checkpoint::new(options.checkpoint.clone().unwrap_or_else(|| beside(&options.out)));
    let seed = options.learn.batches.seed;
    let learner = (recipe.build)(&data.train, seed, &device)?;
    let run = Run {
        device,
        threads: options.threads,
        checkpoint: Some(checkpoint.clone()),
        resume: options.resume,
        progress,
        architecture: recipe.architecture.name().to_owned(),
        context: recipe.context.clone(),
    };
    let started = Instant::now();
    let valid = (options.split_by == SplitBy::Track && options.refit.is_none()).then_some(&data.held_out);
    let learnt = learn(&*learner, recipe.augment, &data.train, valid, &options.learn, &run)?;
    let learn_time = started.elapsed();
    let mut weights = learner.weights(&learnt.values)?;
    drop(learner);
    (recipe.conclude)(&mut weights, &data.train, &data.not_music, &run.device)?;
    let (model, measured) = finish(options, recipe, &data, weights, progress)?;
    model.save(&options.out)?;
    curves::draw(&learnt.history, &options.out.join(CURVES_FILE))?;
    checkpoint.remove();
    let (best_epoch, history, skipped) = (learnt.best_epoch, learnt.history, data.skipped);
    Ok(NetworkOutcome { model, measured, best_epoch, history, skipped, learn_time })
}

fn read(options: &NetworkOptions, progress: Progress) -> Result<Data> {
    let seed = options.learn.batches.seed;
    let catalogue = Catalogue::open(&options.data, seed)?;
    let (train, held_out, wanted, skipped) = match options.split_by {
        SplitBy::Track => {
            let (train, valid) = (catalogue.split(TRAIN_SPLIT)?, catalogue.split(VALID_SPLIT)?);
            let wanted = train.iter().map(|track| track.genre.clone()).collect();
            let (mut train, mut valid) =
                (examples::load(&catalogue, &train, progress)?, examples::load(&catalogue, &valid, progress)?);
            valid.skipped.append(&mut train.skipped);
            if options.refit.is_some() {
                train.tracks.extend(valid.tracks.iter().cloned());
            }
            (train.tracks, valid.tracks, wanted, valid.skipped)
        }
        SplitBy::Chunk => {
            let tracks: Vec<_> = catalogue.tracks().iter().collect();
            let wanted = tracks.iter().map(|track| track.genre.clone()).collect();
            let all = examples::load(&catalogue, &tracks, progress)?;
            let side = |side: ChunkSide| side.select(&all.tracks, seed);
            (side(ChunkSide::Train), side(ChunkSide::Test), wanted, all.skipped)
        }
    };
    let labels = labels(&genres(&train), &genres(&held_out), &wanted, TRAIN_SPLIT)?;
    let not_music = match &options.not_music {
        None => Vec::new(),
        Some(path) => {
            let catalogue = Catalogue::open_not_music(path)?;
            let tracks =
                examples::load_any(&catalogue, &catalogue.tracks().iter().collect::<Vec<_>>(), progress)?.tracks;
            tracks.into_iter().flat_map(|track| track.chunks).collect()
        }
    };
    Ok(Data {
        train: Examples::new(train, &labels)?,
        held_out: Examples::new(held_out, &labels)?,
        not_music,
        labels,
        skipped,
    })
}

/// The model of these weights, calibrated and measured.
fn finish(
    options: &NetworkOptions,
    recipe: &Recipe<'_>,
    data: &Data,
    weights: Weights,
    progress: Progress,
) -> Result<(ModelFolder, Measured)> {
    let manifest = manifest(options, recipe, data);
    if let Some(folder) = &options.refit {
        return refit(&ModelFolder::load(folder)?, manifest, data, weights);
    }
    let uncalibrated = ModelFolder::new(manifest, weights, String::new())?;
    let classifier = Classifier::load(&uncalibrated, options.device)?;
    let scored = hear::hear(&classifier, &data.held_out, progress)?;
    drop(classifier);
    let mut manifest = uncalibrated.manifest().clone();
    if options.split_by == SplitBy::Chunk {
        let seed = options.learn.batches.seed;
        let report = ChunkReport::new(&manifest, &ChunkSide::Test.to_string(), seed, &scored);
        let card = format!("# {}\n\n```text\n{report}```\n", manifest.name);
        return Ok((ModelFolder::new(manifest, uncalibrated.weights().clone(), card)?, Measured::Chunks(report)));
    }
    manifest.temperature = metrics::fit_temperature(&scored);
    let report = |manifest: &Manifest| Report::new(manifest, Some(VALID_SPLIT), &scored, data.skipped.clone());
    let mut calibrated = ModelFolder::new(manifest, uncalibrated.weights().clone(), String::new())?;
    if let Some(not_music) = &options.not_music {
        let classifier = Classifier::load(&calibrated, options.device)?;
        let music = report(calibrated.manifest()).predictions;
        let unknown = measure_unknown(&classifier, not_music, &music, progress)?;
        let unknown_below = (unknown.best_threshold * THRESHOLD_STEPS).round() / THRESHOLD_STEPS;
        let manifest = Manifest { unknown_below, ..calibrated.manifest().clone() };
        calibrated = ModelFolder::new(manifest, calibrated.weights().clone(), String::new())?;
    }
    let mut manifest = calibrated.manifest().clone();
    let report = report(&manifest);
    manifest.metrics.insert(VALID_SPLIT.to_owned(), report.summary());
    let multiply_accumulates = calibrated.multiply_accumulates()?;
    let card = Card { manifest: &manifest, multiply_accumulates, valid: &report }.to_string();
    Ok((ModelFolder::new(manifest, calibrated.weights().clone(), card)?, Measured::Tracks(Box::new(report))))
}

/// What is known of a model before it has been measured.
fn manifest(options: &NetworkOptions, recipe: &Recipe<'_>, data: &Data) -> Manifest {
    let mut provenance = recipe.provenance.clone();
    provenance.insert("network".to_owned(), origin(options, data));
    Manifest {
        name: options.name.clone(),
        version: String::new(),
        labels: data.labels.clone(),
        feature_id: feature_id().to_owned(),
        architecture: recipe.architecture.name().to_owned(),
        temperature: 1.0,
        unknown_below: 0.0,
        metrics: BTreeMap::new(),
        learnt_splits: match (options.split_by, &options.refit) {
            (SplitBy::Track, None) => vec![TRAIN_SPLIT.to_owned()],
            (SplitBy::Track, Some(_)) => vec![TRAIN_SPLIT.to_owned(), VALID_SPLIT.to_owned()],
            (SplitBy::Chunk, _) => Vec::new(),
        },
        provenance,
        licences: recipe.licences.clone(),
    }
}

/// A model that has learnt from the validation tracks as well. Nothing is left to measure it on, so that what was measured
/// of `model` is said of it.
fn refit(model: &ModelFolder, manifest: Manifest, data: &Data, weights: Weights) -> Result<(ModelFolder, Measured)> {
    let known = model.manifest();
    if (&known.labels, &known.architecture) != (&manifest.labels, &manifest.architecture) {
        return Err(TrainerError::Option {
            option: "refit",
            expected: "a model of the same architecture and labels",
            found: format!("{} for {}", known.architecture, known.labels.join(", ")),
        });
    }
    let mut manifest = Manifest {
        temperature: known.temperature,
        unknown_below: known.unknown_below,
        metrics: known.metrics.clone(),
        ..manifest
    };
    let measured = format!(
        "the temperature, the threshold and the numbers of `{VALID_SPLIT}` are those of version {}, which the same options \
         made without the {} validation tracks",
        known.version,
        data.held_out.tracks().len()
    );
    manifest.provenance.insert("measured".to_owned(), measured);
    let refitted = ModelFolder::new(manifest, weights, String::new())?;
    let manifest = refitted.manifest().clone();
    let card = card::inherit(model.card(), known, &manifest);
    Ok((ModelFolder::new(manifest, refitted.weights().clone(), card)?, Measured::Nothing))
}

fn origin(options: &NetworkOptions, data: &Data) -> String {
    let name = options.data.file_name().unwrap_or_default().to_string_lossy();
    let (chunks, learn) = (data.train.chunk_count(), &options.learn);
    let held_out = match options.split_by {
        SplitBy::Track if options.refit.is_some() => "stopped by nothing".to_owned(),
        SplitBy::Track => format!("stopped by {} other tracks", data.held_out.tracks().len()),
        SplitBy::Chunk => format!("{} other chunks were held out. {CHUNK_SPLIT_LEAKS}", data.held_out.chunk_count()),
    };
    format!(
        "trained on {chunks} chunks of {name}, seed {}, batch {}, Adam with learning rate {}, at most {} epochs; {held_out}",
        learn.batches.seed,
        learn.batches.batch,
        learn.schedule.learning_rate,
        learn.epochs,
    )
    .trim_end_matches('.')
    .to_owned()
}

/// `OUT.checkpoint`
fn beside(out: &std::path::Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".checkpoint");
    out.with_file_name(name)
}
