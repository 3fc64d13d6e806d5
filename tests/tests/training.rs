//! A model can be trained on a user's own tracks, measured, and served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};

use chorale_tests::{
    command::{self, Finished},
    sound,
};
use serde_json::Value;

const TRACKS: u64 = 10;

fn numbers(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.stdout))
}

#[test]
fn a_folder_of_two_genres_becomes_a_model_that_tells_them_apart() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (tracks, model) = (path("tracks"), path("two-genres"));
    sound::write_two_genres(Path::new(&tracks), TRACKS);

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
    let compared = command::run(["models", "--pareto", &front, &model]).expect_code(0).stdout;
    assert!(compared.contains("| `two-genres` |"), "{compared}");
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
fn a_folder_as_people_have_it_is_enough_with_few_tracks_and_what_lies_beside_them() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (tracks, model) = (path("tracks"), path("few"));
    sound::write_two_genres(Path::new(&tracks), TRACKS);
    for genre in ["chords", "clicks"] {
        for seed in 3..TRACKS {
            fs::remove_file(format!("{tracks}/{genre}/{seed}.wav")).unwrap();
        }
        fs::write(format!("{tracks}/{genre}/cover.jpg"), "a picture").unwrap();
    }
    fs::write(format!("{tracks}/notes.txt"), "which I like").unwrap();

    let train = ["train", "--arch", "small", "--data", &tracks, "--out", &model, "--epochs", "4", "--batch", "4"];
    let trained = command::run(train).expect_code(0);
    assert!(trained.stdout.contains("on 2 tracks of the split `valid`"), "{}", trained.stdout);
    let advice = format!("Try it: chorale classify --model {model} SONG");
    assert!(trained.stderr.contains(&advice), "{}", trained.stderr);
    assert!(!trained.stderr.contains("cover.jpg"), "{}", trained.stderr);

    let described = command::run(["models", "--json", &model]).expect_code(0);
    let manifest = numbers(&described);
    if manifest["metrics"]["valid"]["track_accuracy"] == 1.0 {
        assert!(manifest["temperature"].as_f64().unwrap() >= 1.0, "two tracks make nobody surer: {manifest}");
    }
    let song = format!("{tracks}/clicks/0.wav");
    let answer = command::run(["classify", "--json", "--embedding", "--model", &model, &song])
        .expect_code(0)
        .answers()
        .remove(0);
    assert_eq!((answer.probabilities.len(), answer.embedding.map(|embedding| embedding.len())), (2, Some(200)));
}

#[test]
fn what_is_no_music_is_learnt_and_called_unknown() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (tracks, noise, model) = (path("tracks"), path("not-music"), path("model"));
    sound::write_two_genres(Path::new(&tracks), TRACKS);
    fs::create_dir_all(Path::new(&noise).join("noise")).unwrap();
    for seed in 0..2 * TRACKS {
        let samples = sound::noise(5.0, seed);
        fs::write(Path::new(&noise).join(format!("noise/{seed}.wav")), sound::wav(&samples)).unwrap();
    }
    let train = ["train", "--arch", "small", "--out", &model, "--epochs", "4", "--batch", "8", "--json"];
    command::run(train.into_iter().chain(["--data", &tracks, "--not-music", &noise])).expect_code(0);

    let other = path("other.wav");
    fs::write(&other, sound::wav(&sound::noise(9.0, 99))).unwrap();
    let classify =
        |file: &str| command::run(["classify", "--json", "--model", &model, file]).expect_code(0).answers().remove(0);
    let answer = classify(&other);
    assert_eq!(answer.genre, "unknown");
    assert!(answer.probabilities.values().sum::<f64>() < 0.5, "{answer:?}");
    let answer = classify(&format!("{tracks}/chords/3.wav"));
    assert_eq!(answer.genre, "chords");
    assert!(answer.probabilities.values().sum::<f64>() > 0.9, "{answer:?}");
}

#[test]
fn a_run_that_was_killed_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (tracks, model) = (path("tracks"), path("model"));
    sound::write_two_genres(Path::new(&tracks), TRACKS);
    let train = ["train", "--arch", "small", "--data", &tracks, "--out", &model, "--epochs", "9", "--batch", "8"];
    command::kill_once_there(train, &scratch.path().join("model.checkpoint/progress.json"));
    assert!(!Path::new(&model).exists());

    let refused = command::run(train).expect_code(1);
    assert!(refused.stderr.contains("--resume"), "{}", refused.stderr);
    let other = command::run(train.into_iter().chain(["--resume", "--mix", "0.5"])).expect_code(1);
    assert!(other.stderr.contains("checkpoint"), "{}", other.stderr);

    let finished = command::run(train.into_iter().chain(["--resume"])).expect_code(0);
    assert!(finished.stderr.contains(" of 9;"), "{}", finished.stderr);
    assert!(Path::new(&model).join("model.json").is_file());
    assert!(!scratch.path().join("model.checkpoint").exists(), "what is done needs no checkpoint");
}

#[test]
fn flags_of_ensembles_are_refused_for_the_other_network() {
    let train = ["train", "--arch", "seed-cnn", "--data", "nowhere", "--out", "nowhere"];
    for flag in [
        ["--members", "2"],
        ["--discriminant", "0.1"],
        ["--backbone-rates", "0.1,0.2"],
        ["--augment", "0"],
        ["--front-rate", "0"],
        ["--teacher", "nowhere"],
    ] {
        let refused = command::run(train.into_iter().chain(flag)).expect_code(2);
        assert!(refused.stderr.contains(flag[0]), "{}", refused.stderr);
    }
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
