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
    Progress, Report, Result, Run, Skipped, SplitBy, Trainable, card::Card, chunk_split::genres, curves, examples,
    hear, labels::labels, learn, metrics,
};

const TRAIN_SPLIT: &str = "train";
const VALID_SPLIT: &str = "valid";
/// The picture of how training went, in the model's folder.
const CURVES_FILE: &str = "curves.svg";

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
    /// Audio that is no music, in any layout of [`Catalogue::open`], for which no genre is to be likely.
    pub not_music: Option<PathBuf>,
    /// How to train. Its seed also decides the splits.
    pub learn: LearnOptions,
}

/// What makes the network, as a function of what it will learn from, the seed and the device.
pub type Build<'a> = dyn Fn(&Examples, u64, &Device) -> Result<Box<dyn Trainable>> + 'a;

/// A network and what belongs to it.
pub struct Recipe<'a> {
    /// The network.
    pub architecture: Architecture,
    /// What makes it.
    pub build: &'a Build<'a>,
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
    Tracks(Report),
    /// On the chunks held out.
    Chunks(ChunkReport),
}

/// What is learnt from, and what it is measured on.
struct Data {
    labels: Vec<String>,
    train: Examples,
    held_out: Examples,
    skipped: Vec<Skipped>,
}

/// Trains a network, and removes its checkpoint when the model has been written.
///
/// # Errors
/// Where data cannot be read, a genre has nothing to learn from, training diverges, or the folder or the checkpoint cannot
/// be written. A checkpoint that was written stays.
pub fn train_network(options: &NetworkOptions, recipe: &Recipe<'_>, progress: Progress) -> Result<NetworkOutcome> {
    options.learn.check()?;
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
    let valid = (options.split_by == SplitBy::Track).then_some(&data.held_out);
    let learnt = learn(&*learner, recipe.augment, &data.train, valid, &options.learn, &run)?;
    let learn_time = started.elapsed();
    let weights = learner.weights(&learnt.values)?;
    drop(learner);
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
            let (train, mut valid) =
                (examples::load(&catalogue, &train, progress)?, examples::load(&catalogue, &valid, progress)?);
            valid.skipped.extend(train.skipped);
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
            let catalogue = Catalogue::open(path, seed)?;
            let tracks = examples::load(&catalogue, &catalogue.tracks().iter().collect::<Vec<_>>(), progress)?.tracks;
            tracks.into_iter().flat_map(|track| track.chunks).collect()
        }
    };
    Ok(Data {
        train: Examples::new(train, &labels)?.with_not_music(not_music),
        held_out: Examples::new(held_out, &labels)?,
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
    let mut provenance = recipe.provenance.clone();
    provenance.insert("network".to_owned(), origin(options, data));
    let manifest = Manifest {
        name: options.name.clone(),
        version: String::new(),
        labels: data.labels.clone(),
        feature_id: feature_id().to_owned(),
        architecture: recipe.architecture.name().to_owned(),
        temperature: 1.0,
        metrics: BTreeMap::new(),
        provenance,
        licences: recipe.licences.clone(),
    };
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
    let calibrated = ModelFolder::new(manifest, uncalibrated.weights().clone(), String::new())?;
    let mut manifest = calibrated.manifest().clone();
    let report = Report::new(&manifest, Some(VALID_SPLIT), &scored, data.skipped.clone());
    manifest.metrics.insert(VALID_SPLIT.to_owned(), report.summary());
    let card = Card { manifest: &manifest, valid: &report }.to_string();
    Ok((ModelFolder::new(manifest, calibrated.weights().clone(), card)?, Measured::Tracks(report)))
}

fn origin(options: &NetworkOptions, data: &Data) -> String {
    let name = options.data.file_name().unwrap_or_default().to_string_lossy();
    let (chunks, learn) = (data.train.chunk_count(), &options.learn);
    let held_out = match options.split_by {
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
