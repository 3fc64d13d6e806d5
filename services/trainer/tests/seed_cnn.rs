//! The network `seed-cnn` from made-up tracks to a model folder and a report.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path};

use chorale_model::{DeviceSpec, ModelFolder};
use chorale_trainer::{
    CHUNK_SPLIT_LEAKS, ChunkReport, EvaluateOptions, LearnOptions, Measured, NetworkOptions, NetworkOutcome, Progress,
    Report, Result, SplitBy, TrainerError, evaluate, evaluate_chunks, train_seed_cnn,
};

use common::write_data;

const TRACKS: usize = 6;
/// Tracks to learn from.
const TRAIN: usize = 4;

fn options(place: &Path) -> NetworkOptions {
    let mut learn = LearnOptions::seed_cnn(1);
    learn.epochs = 1;
    learn.batches.batch = 4;
    NetworkOptions {
        data: place.join("data"),
        out: place.join("model"),
        name: "two genres".to_owned(),
        device: DeviceSpec::Cpu,
        threads: 2,
        checkpoint: None,
        resume: false,
        split_by: SplitBy::Track,
        not_music: None,
        refit: None,
        learn,
    }
}

fn train(options: &NetworkOptions) -> Result<NetworkOutcome> {
    train_seed_cnn(options, Progress::Hidden)
}

fn by_track(outcome: &NetworkOutcome) -> &Report {
    match &outcome.measured {
        Measured::Tracks(report) => report,
        other => unreachable!("{other:?}"),
    }
}

fn by_chunk(outcome: &NetworkOutcome) -> &ChunkReport {
    match &outcome.measured {
        Measured::Chunks(report) => report,
        other => unreachable!("{other:?}"),
    }
}

fn measure(place: &Path, split: &str) -> EvaluateOptions {
    EvaluateOptions {
        model: Some(place.join("model")),
        data: place.join("data"),
        split: Some(split.to_owned()),
        seed: 1,
        ..EvaluateOptions::default()
    }
}

#[test]
fn a_model_is_trained_by_track_written_and_measured() {
    let place = tempfile::tempdir().unwrap();
    write_data(&place.path().join("data"), TRACKS, TRAIN);
    let outcome = train(&options(place.path())).unwrap();
    assert_eq!(ModelFolder::load(&place.path().join("model")).unwrap(), outcome.model);
    assert_eq!(outcome.model.manifest().architecture, "seed-cnn");
    assert!(outcome.model.card().contains(&outcome.model.manifest().version));
    assert_eq!((outcome.best_epoch, outcome.history.len(), by_track(&outcome).tracks), (1, 1, 2));
    assert!(!place.path().join("model.checkpoint").exists(), "a finished run leaves no checkpoint");
    let report = evaluate(&measure(place.path(), "valid"), Progress::Hidden).unwrap();
    assert_eq!(&report.predictions, &by_track(&outcome).predictions);
}

#[test]
fn a_split_by_chunk_is_met_again_in_evaluation_and_its_leak_is_named() {
    let place = tempfile::tempdir().unwrap();
    write_data(&place.path().join("data"), TRACKS, TRAIN);
    let outcome = train(&NetworkOptions { split_by: SplitBy::Chunk, ..options(place.path()) }).unwrap();
    let test = evaluate_chunks(&measure(place.path(), "test"), Progress::Hidden).unwrap();
    assert_eq!(&test, by_chunk(&outcome));
    let train = evaluate_chunks(&measure(place.path(), "train"), Progress::Hidden).unwrap();
    assert_eq!(test.chunks + train.chunks, 2 * TRACKS);
    assert!(test.chunks > 0 && outcome.model.card().contains(CHUNK_SPLIT_LEAKS));
    assert!(matches!(
        evaluate_chunks(&measure(place.path(), "valid"), Progress::Hidden),
        Err(TrainerError::Option { .. })
    ));
}

#[test]
fn data_that_cannot_be_learnt_from_is_refused_and_a_checkpoint_stays() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let kept = place.path().join("model.checkpoint/progress.json");
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::write(&kept, "precious").unwrap();
    let refused = |change: &dyn Fn(&str) -> String| {
        write_data(&data, TRACKS, TRAIN);
        let table = fs::read_to_string(data.join("tracks.csv")).unwrap();
        fs::write(data.join("tracks.csv"), change(&table)).unwrap();
        train(&options(place.path())).unwrap_err().to_string()
    };
    let no_valid = refused(&|table| table.replace("valid", "test"));
    assert_eq!(no_valid, "no track is in the split `valid`: the data has test, train");
    let no_genre = refused(&|table| table.replace("high,train", "high,rest"));
    assert_eq!(no_genre, "no track of the genre `high` is in the split `train`");
    assert!(refused(&|table| table.replace("-80", "NaN")).contains("floor_db: expected"));
    let in_the_way = refused(&str::to_owned);
    assert!(in_the_way.contains("the checkpoint of an unfinished run"), "{in_the_way}");
    write_data(&data, TRACKS, TRAIN);
    let npy = fs::read(data.join("mel_u8.npy")).unwrap();
    fs::write(data.join("mel_u8.npy"), &npy[..npy.len() - 1]).unwrap();
    assert!(matches!(train(&options(place.path())), Err(TrainerError::MelFile { .. })));
    assert_eq!(fs::read_to_string(&kept).unwrap(), "precious");
}
