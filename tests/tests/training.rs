//! A model can be trained on a user's own tracks, measured, and served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};

use chorale_tests::{
    command::{self, Finished},
    sound,
};
use serde_json::Value;

const TRACKS: u64 = 10;

/// Tracks of two genres that nobody could confuse: chords, and nothing but clicks.
fn write_tracks(folder: &Path) {
    for genre in ["chords", "clicks"] {
        fs::create_dir_all(folder.join(genre)).unwrap();
    }
    for seed in 0..TRACKS {
        let chord = sound::chord(5.0, seed);
        let spacing = 2_000 + 137 * seed as usize;
        let clicks: Vec<i16> = (0..chord.len()).map(|index| if index % spacing < 20 { 20_000 } else { 0 }).collect();
        for (genre, samples) in [("chords", &chord), ("clicks", &clicks)] {
            fs::write(folder.join(genre).join(format!("{seed}.wav")), sound::wav(samples)).unwrap();
        }
    }
}

fn numbers(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.stdout))
}

#[test]
fn a_folder_of_two_genres_becomes_a_model_that_tells_them_apart() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (tracks, model) = (path("tracks"), path("two-genres"));
    write_tracks(Path::new(&tracks));

    let data = ["--data", &tracks];
    let train = ["train", "--arch", "small", "--out", &model, "--epochs", "6", "--batch", "8", "--json"];
    let trained = numbers(&command::run(train.into_iter().chain(data)).expect_code(0));
    assert_eq!((&trained["split"], &trained["model"]), (&"valid".into(), &"two-genres".into()));
    for file in ["model.safetensors", "model.json", "CARD.md", "curves.svg"] {
        assert!(Path::new(&model).join(file).is_file(), "{file}");
    }

    let evaluate = ["evaluate", "--model", &model, "--json"];
    let measured = numbers(&command::run(evaluate.into_iter().chain(data)).expect_code(0));
    assert_eq!(measured["version"], trained["version"]);
    assert_eq!(measured["tracks"], 2 * TRACKS);
    assert!(measured["track_accuracy"].as_f64().unwrap() >= 0.9, "{measured}");
    let table =
        command::run(["evaluate", "--model", &model, "--split", "valid"].into_iter().chain(data)).expect_code(0);
    for part in ["track accuracy", "95 % interval", "precision", "chords", "clicks"] {
        assert!(table.stdout.contains(part), "{part} is not in {}", table.stdout);
    }

    let (report, front) = (path("report"), path("front.svg"));
    let arguments = ["evaluate", "--model", &model, "--report", &report].into_iter().chain(data);
    command::run(arguments).expect_code(0);
    for file in ["index.html", "confusion.svg", "genres.svg", "reliability.svg", "report.json"] {
        assert!(Path::new(&report).join(file).is_file(), "{file}");
    }
    command::run(["models", "--pareto", &front, &model]).expect_code(0);
    assert!(fs::read_to_string(&front).unwrap().contains("two-genres"));

    let song = Path::new(&tracks).join("clicks/3.wav");
    let served = command::run(["classify", "--json", "--model", &model, song.to_str().unwrap()]).expect_code(0);
    let answer = served.answers().remove(0);
    assert_eq!(answer.genre, "clicks");
    assert_eq!(answer.probabilities.len(), 2);
    assert_eq!(answer.model, trained["version"]);
    let described = command::run(["models", &model]).expect_code(0).stdout;
    assert!(described.contains("two-genres"), "{described}");
}

#[test]
fn data_that_cannot_be_used_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let scratch = scratch.path().to_str().unwrap();
    let out = format!("--out={scratch}/model");
    for tool in [["evaluate", "--data", scratch, "--json"], ["train", "--data", scratch, &out]] {
        let finished = command::run(tool).expect_code(1);
        assert!(finished.stderr.contains(scratch) && finished.stderr.contains("mel_u8.npy"), "{}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}
