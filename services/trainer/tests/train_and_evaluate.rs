//! From made-up tracks to a model folder and a report.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{fs, path::Path};

use chorale_model::{Architecture, DeviceSpec, Manifest, ModelFolder};
use chorale_trainer::{
    Backbone, EnsembleOptions, EvaluateOptions, LearnOptions, Measured, NetworkOptions, NetworkOutcome, Progress,
    Report, Result, SplitBy, Teaching, TrainerError, evaluate, train_ensemble,
};

use common::write_data;

const TRACKS: usize = 20;
/// Tracks to learn from.
const TRAIN: usize = 12;

fn options(place: &Path, out: &str) -> NetworkOptions {
    let mut learn = LearnOptions::ensemble(1);
    learn.epochs = 4;
    learn.batches.batch = 8;
    NetworkOptions {
        data: place.join("data"),
        out: place.join(out),
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

/// Goes on from the small embedded model, with two members.
fn train(options: &NetworkOptions) -> Result<NetworkOutcome> {
    train_with(options, None, 0.0)
}

fn train_with(options: &NetworkOptions, teaching: Option<&Teaching>, front_rate: f64) -> Result<NetworkOutcome> {
    train_from(&Backbone::embedded(Architecture::Small)?, options, teaching, front_rate)
}

fn train_from(
    start: &Backbone,
    options: &NetworkOptions,
    teaching: Option<&Teaching>,
    front_rate: f64,
) -> Result<NetworkOutcome> {
    let ensemble = EnsembleOptions { members: 2, front_rate, ..EnsembleOptions::default() };
    train_ensemble(options, Architecture::Small, start, teaching, &ensemble, Progress::Hidden)
}

fn teaching(model: &ModelFolder, share: f64, features: f64) -> Teaching {
    Teaching { model: model.clone(), share, features }
}

fn report(outcome: &NetworkOutcome) -> &Report {
    match &outcome.measured {
        Measured::Tracks(report) => report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_is_trained_written_and_measured_the_same_every_time() {
    let place = tempfile::tempdir().unwrap();
    write_data(&place.path().join("data"), TRACKS, TRAIN);
    let first = train(&options(place.path(), "first")).unwrap();
    assert_eq!(first.model.manifest().labels, ["high", "low"]);
    assert_eq!((report(&first).tracks, report(&first).track_accuracy), (8, 1.0));
    assert_eq!(ModelFolder::load(&place.path().join("first")).unwrap(), first.model);
    assert!(first.model.card().contains(&first.model.manifest().version));
    assert!(fs::read_to_string(place.path().join("first/curves.svg")).unwrap().contains("</svg>"));
    assert!(!place.path().join("first.checkpoint").exists(), "the run is over");

    let again = train(&NetworkOptions { threads: 1, ..options(place.path(), "again") }).unwrap();
    assert_eq!(again.model, first.model);
    let mut other = options(place.path(), "other");
    other.learn.batches.seed = 2;
    assert_ne!(train(&other).unwrap().model.manifest().version, first.model.manifest().version);

    let measure = EvaluateOptions {
        model: Some(place.path().join("first")),
        data: place.path().join("data"),
        split: Some("valid".to_owned()),
        ..EvaluateOptions::default()
    };
    let measured = evaluate(&measure, Progress::Hidden).unwrap();
    assert_eq!(measured.summary(), report(&first).summary());
    for (measured, trained) in measured.predictions.iter().zip(&report(&first).predictions) {
        assert_eq!((&measured.track, &measured.predicted), (&trained.track, &trained.predicted));
    }

    let list = place.path().join("list.csv");
    fs::write(&list, "file,track\nx,track 3\ny,track 14\n").unwrap();
    let listed = EvaluateOptions { split: None, tracks: Some(list.clone()), ..measure.clone() };
    let report = evaluate(&listed, Progress::Hidden).unwrap();
    let names: Vec<&str> = report.predictions.iter().map(|prediction| prediction.track.as_str()).collect();
    assert_eq!(names, ["track 3", "track 14"]);
    fs::write(&list, "track\nnobody\n").unwrap();
    assert!(matches!(evaluate(&listed, Progress::Hidden), Err(TrainerError::NoSuchTrack(name)) if name == "nobody"));

    let default_model = EvaluateOptions { model: None, ..measure };
    let error = evaluate(&default_model, Progress::Hidden).unwrap_err();
    assert!(matches!(error, TrainerError::UnknownGenre { .. }), "{error}");
}

#[test]
fn a_refit_learns_from_the_validation_tracks_and_says_what_was_measured_before() {
    let place = tempfile::tempdir().unwrap();
    write_data(&place.path().join("data"), TRACKS, TRAIN);
    let mut first = options(place.path(), "first");
    first.learn.epochs = 1;
    let measured = train(&first).unwrap().model;
    let second = NetworkOptions { refit: Some(first.out.clone()), out: place.path().join("second"), ..first.clone() };
    let outcome = train(&second).unwrap();
    assert!(matches!(outcome.measured, Measured::Nothing));
    let (known, manifest) = (measured.manifest(), outcome.model.manifest());
    assert_eq!((&known.metrics, known.temperature), (&manifest.metrics, manifest.temperature));
    assert_ne!(known.version, manifest.version);
    assert_eq!(
        (&known.learnt_splits, &manifest.learnt_splits),
        (&vec!["train".into()], &vec!["train".into(), "valid".into()])
    );
    assert!(outcome.model.card().contains("had not learnt from `valid`"), "{}", outcome.model.card());
    assert!(manifest.provenance["measured"].contains(&known.version), "{:?}", manifest.provenance);
}

#[test]
fn a_teacher_and_a_front_end_that_learns_change_what_is_learnt() {
    let place = tempfile::tempdir().unwrap();
    write_data(&place.path().join("data"), TRACKS, TRAIN);
    let run = |out: &str, teaching: Option<&Teaching>, front_rate| {
        let mut options = options(place.path(), out);
        options.learn.epochs = 1;
        train_with(&options, teaching, front_rate)
    };
    let still = run("still", None, 0.0).unwrap().model;
    let front = |model: &ModelFolder| -> Vec<f32> {
        let parts = model.weights().iter().filter(|(name, _)| name.starts_with("front."));
        parts.flat_map(|(_, array)| array.values().to_vec()).collect()
    };
    let embedded = ModelFolder::embedded_small().unwrap();
    assert_eq!(front(&still), front(&embedded));
    assert_ne!(front(&run("moving", None, 0.1).unwrap().model), front(&embedded));

    let taught = run("taught", Some(&teaching(&still, 0.8, 0.0)), 0.0).unwrap().model;
    assert_ne!(taught.manifest().version, still.manifest().version);
    let origin = format!("two genres {}, for 80 % of every target", still.manifest().version);
    assert_eq!(taught.manifest().provenance["teacher"], origin);
    let ignored = run("ignored", Some(&teaching(&still, 0.0, 0.0)), 0.0).unwrap().model;
    assert_eq!(ignored.weights(), still.weights(), "a share of nothing changes nothing");

    // From its teacher, and with its features.
    let shape = Architecture::Small.ensemble().unwrap();
    let start = Backbone::read(&place.path().join("still"), shape).unwrap();
    let from_it = |out: &str, features| {
        let mut options = options(place.path(), out);
        options.learn.epochs = 1;
        train_from(&start, &options, Some(&teaching(&still, 0.8, features)), 0.0).unwrap().model
    };
    let (alone, hinted) = (from_it("alone", 0.0), from_it("hinted", 1.0));
    assert_ne!(alone.weights(), hinted.weights());
    assert_eq!(hinted.manifest().provenance["teacher"], format!("{origin}, and for its features"));

    let refused = [
        (&embedded, 0.5, 0.0, "with the labels of the data"),
        (&still, 1.5, 0.0, "0 to 1"),
        (&still, 0.5, 2e3, "0 to 1000"),
        (&still, 0.5, 1.0, "a backbone that is the teacher"),
    ];
    for (model, share, features, what) in refused {
        let error = run("refused", Some(&teaching(model, share, features)), 0.0).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        assert!(!place.path().join("refused").exists());
    }
}

#[test]
fn data_that_cannot_be_learnt_from_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let refused = |change: &dyn Fn(&str) -> String| {
        write_data(&data, TRACKS, TRAIN);
        let table = fs::read_to_string(data.join("tracks.csv")).unwrap();
        fs::write(data.join("tracks.csv"), change(&table)).unwrap();
        train(&options(place.path(), "out")).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&|table| table.replace("valid", "test")),
        "no track is in the split `valid`: the data has test, train"
    );
    assert_eq!(
        refused(&|table| table.replace("high,train", "high,rest")),
        "no track of the genre `high` is in the split `train`"
    );
    assert_eq!(refused(&|table| table.replace("high", "low")), "the split `train` has 1 genre, at least 2 are needed");
    write_data(&data, TRACKS, TRAIN);
    let mut nonsense = options(place.path(), "out");
    nonsense.learn.epochs = 0;
    let error = train(&nonsense).unwrap_err().to_string();
    assert_eq!(error, "epochs: expected 1 to 100000, found 0");
}

#[test]
fn audio_that_cannot_be_decoded_is_left_out_and_reported() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    for genre in ["rock", "jazz"] {
        fs::create_dir_all(data.join(genre)).unwrap();
        fs::write(data.join(genre).join("tone.wav"), tone(if genre == "rock" { 110.0 } else { 2_000.0 })).unwrap();
        fs::write(data.join(genre).join("notes.mp3"), "not music").unwrap();
    }
    let measure = EvaluateOptions { data, ..EvaluateOptions::default() };
    let report = evaluate(&measure, Progress::Hidden).unwrap();
    assert_eq!(report.tracks, 2);
    let skipped: Vec<&str> = report.skipped.iter().map(|skipped| skipped.track.as_str()).collect();
    assert_eq!(skipped, ["jazz/notes.mp3", "rock/notes.mp3"]);
}

#[test]
fn what_is_no_music_is_measured_by_kind() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let not_music = place.path().join("not music");
    for (path, bytes) in [
        (data.join("jazz/a.wav"), tone(440.0)),
        (not_music.join("tones/a.wav"), tone(2_000.0)),
        (not_music.join("tones/b.ogg"), b"a line of text".to_vec()),
        (not_music.join("silence/a.wav"), sine(440.0, 0.0)),
    ] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let embedded = ModelFolder::embedded().unwrap();
    let measure = |unknown_below: f64| {
        let manifest = Manifest { unknown_below, ..embedded.manifest().clone() };
        let folder = place.path().join(format!("model {unknown_below}"));
        ModelFolder::new(manifest, embedded.weights().clone(), String::new()).unwrap().save(&folder).unwrap();
        let options = EvaluateOptions {
            model: Some(folder),
            data: data.clone(),
            not_music: Some(not_music.clone()),
            ..EvaluateOptions::default()
        };
        evaluate(&options, Progress::Hidden).unwrap().unknown.unwrap()
    };
    let never = measure(0.0);
    assert_eq!((never.music.share, never.kinds["tones"].share), (Some(0.0), Some(0.0)));
    assert_eq!(never.kinds["silence"].share, Some(1.0));
    assert_eq!(never.files.len(), 2);
    assert_eq!(never.skipped[0].track, "tones/b.ogg");
    let nearly_always = measure(0.999_999);
    assert_eq!((nearly_always.music.share, nearly_always.not_music.share), (Some(1.0), Some(1.0)));

    fs::remove_dir_all(not_music.join("tones")).unwrap();
    assert_eq!(measure(0.0).not_music.share, Some(1.0), "nothing but silence is no error");
}

/// Three seconds of a sine as a WAV file.
fn tone(hertz: f32) -> Vec<u8> {
    sine(hertz, 8_000.0)
}

fn sine(hertz: f32, level: f32) -> Vec<u8> {
    let samples: Vec<u8> = (0..3 * 22_050)
        .map(|index| (index as f32 / 22_050.0 * hertz * std::f32::consts::TAU).sin() * level)
        .flat_map(|sample| (sample as i16).to_le_bytes())
        .collect();
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + samples.len() as u32).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x22\x56\0\0\x44\xac\0\0\x02\0\x10\0data");
    wav.extend((samples.len() as u32).to_le_bytes());
    wav.extend(samples);
    wav
}
