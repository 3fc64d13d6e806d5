//! Measuring a model on labelled tracks.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use chorale_model::{Classifier, DeviceSpec, ModelFolder};

use crate::{
    Catalogue, ChunkReport, ChunkSide, ChunkedTrack, Examples, NotMusic, Prediction, Progress, Report, Result, Track,
    TrainerError, UnknownReport, catalogue, examples,
    hear::{hear, hear_chunks},
    metrics::ScoredTrack,
};

/// What to measure, and on what.
#[derive(Clone, Debug, Default)]
pub struct EvaluateOptions {
    /// The model's name or folder, as for [`ModelFolder::open`]; none for the default model.
    pub model: Option<PathBuf>,
    /// Labelled tracks in any layout of [`Catalogue::open`].
    pub data: PathBuf,
    /// Only tracks of this split; none for all.
    pub split: Option<String>,
    /// Only the tracks named in the column `track` of this CSV file.
    pub tracks: Option<PathBuf>,
    /// Audio that is no music, to measure how often it is `unknown`: a folder with a subfolder for each kind, or a CSV file
    /// `file,kind`.
    pub not_music: Option<PathBuf>,
    /// Where data without splits is split: see [`Catalogue::open`].
    pub seed: u64,
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
    let loaded = examples::load(&catalogue, &tracks, progress)?;
    let classifier = Classifier::load(&model, options.device)?;
    let scored = hear(&classifier, &Examples::new(loaded.tracks, &model.manifest().labels)?, progress)?;
    let mut report = Report::new(model.manifest(), options.split.as_deref(), &scored, loaded.skipped);
    if let Some(not_music) = &options.not_music {
        report.unknown = Some(measure_unknown(&classifier, not_music, &report.predictions, progress)?);
    }
    Ok(report)
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
    Ok(ModelFolder::open(options.model.as_deref())?)
}

/// How often what is no music is `unknown`, and `music` is.
pub(crate) fn measure_unknown(
    classifier: &Classifier,
    not_music: &Path,
    music: &[Prediction],
    progress: Progress,
) -> Result<UnknownReport> {
    let catalogue = Catalogue::open_not_music(not_music)?;
    let tracks: Vec<&Track> = catalogue.tracks().iter().collect();
    let loaded = examples::load_any(&catalogue, &tracks, progress)?;
    let manifest = classifier.manifest();
    let heard = |track: &ChunkedTrack| -> Result<NotMusic> {
        let logits = hear_chunks(classifier, track)?;
        // No genre is right, so that it does not matter which one it has.
        let scored = ScoredTrack { name: track.name.clone(), genre: 0, logits };
        Ok(NotMusic::heard(&track.genre, &scored, manifest))
    };
    let mut files = loaded.tracks.iter().map(heard).collect::<Result<Vec<_>>>()?;
    files.extend(loaded.silent.iter().map(|track| NotMusic::silent(&track.genre, &track.name)));
    Ok(UnknownReport::new(manifest.unknown_below, music, files, loaded.skipped))
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
