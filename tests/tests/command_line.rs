//! The command line keeps its promises: exit codes, help, what it reads and what it writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{fs, fs::File, net::TcpListener, path::Path};

use chorale_tests::{
    Server,
    command::{self, run, run_with},
    fixtures, sound,
    verdict::assert_same_answer,
};
use npyz::NpyFile;

const COMMANDS: [&str; 17] = [
    "classify",
    "up",
    "gateway",
    "feature",
    "inference",
    "doctor",
    "healthcheck",
    "token",
    "features",
    "plot",
    "train",
    "evaluate",
    "models",
    "library",
    "tag",
    "playlist",
    "completions",
];

#[test]
fn every_command_has_help() {
    let overview = run(["--help"]).expect_code(0).stdout;
    for command in COMMANDS {
        assert!(overview.contains(&format!("\n  {command} ")), "{command} is not in {overview}");
        let help = run([command, "--help"]).expect_code(0).stdout;
        assert!(help.contains(&format!("Usage: chorale {command}")), "{help}");
    }
    let version = run(["--version"]).expect_code(0).stdout;
    assert_eq!(version, format!("chorale {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_2() {
    let clip = fixtures::formats().remove(0);
    let clip = clip.to_str().unwrap();
    let wrong: [&[&str]; 10] = [
        &[],
        &["classify"],
        &["sing"],
        &["classify", "--loud", clip],
        &["classify", "--top", "0", clip],
        &["classify", "--early", "0.5", clip],
        &["classify", "--endpoint", "not a url", clip],
        &["classify", "-", "-"],
        &["features", clip],
        &["up", "--listen", "nowhere"],
    ];
    for arguments in wrong {
        let finished = run(arguments).expect_code(2);
        assert_eq!(finished.stdout, "", "{arguments:?}");
        assert!(!finished.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_card_for_one_file_and_a_line_for_each_of_several() {
    let paths = fixtures::formats();
    let name = paths[0].to_str().unwrap();
    let card = run(["classify", "--top", "2", name]).expect_code(0);
    assert!(card.stdout.starts_with(name), "{}", card.stdout);
    assert_eq!(card.stdout.lines().filter(|line| line.contains(" vote")).count(), 2, "{}", card.stdout);
    assert!(card.stdout.contains("% sure") && card.stdout.contains("0:00"), "{}", card.stdout);
    assert!(!card.stdout.contains('\u{1b}'), "colours are for terminals");
    assert_eq!(card.stderr, "");

    let other = paths[1].to_str().unwrap();
    let lines = run(["classify", name, other]).expect_code(0);
    let lines: Vec<&str> = lines.stdout.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].ends_with(name) && lines[1].ends_with(other), "{lines:?}");
}

#[test]
fn a_long_track_is_not_heard_to_its_end_where_that_is_allowed() {
    let clip = fs::read(fixtures::genres().remove(0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let song = folder.path().join("song.mp3");
    fs::write(&song, clip.repeat(40)).unwrap();
    let classify = |early: &[&str]| {
        let arguments = [&["classify", "--json", song.to_str().unwrap()], early].concat();
        run(arguments).expect_code(0).answers().remove(0)
    };
    let (whole, early) = (classify(&[]), classify(&["--early", "0.05"]));
    assert!(early.early && !whole.early);
    assert_eq!(early.genre, whole.genre);
    assert!(early.chunks * 2 < whole.chunks, "{} of {} chunks", early.chunks, whole.chunks);
}

#[test]
fn a_folder_is_searched_and_standard_input_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let album = folder.path().join("album");
    fs::create_dir(&album).unwrap();
    fs::write(folder.path().join("cover.jpg"), "a picture").unwrap();
    let song = sound::wav(&sound::chord(3.0, 7));
    fs::write(album.join("song.wav"), &song).unwrap();
    fs::write(album.join("other.wav"), sound::wav(&sound::chord(3.0, 8))).unwrap();

    let found = run(["classify".as_ref(), "--json".as_ref(), folder.path().as_os_str()]).expect_code(0).answers();
    let paths: Vec<&Path> = found.iter().map(|answer| Path::new(&answer.path)).collect();
    assert_eq!(paths, [album.join("other.wav"), album.join("song.wav")]);

    let piped = run_with(["classify", "--json", "-"], &[], &song).expect_code(0).answers();
    assert_eq!(piped[0].path, "-");
    assert_same_answer(&piped[0], &found[1]);

    let nothing = tempfile::tempdir().unwrap();
    let finished = run(["classify".as_ref(), nothing.path().as_os_str()]).expect_code(1);
    assert!(finished.stderr.contains("no audio files"), "{}", finished.stderr);
}

#[test]
fn json_lists_as_many_genres_as_were_asked_for_most_probable_first() {
    let clip = fixtures::formats().remove(0);
    let line = run(["classify".as_ref(), "--json".as_ref(), "--top".as_ref(), "2".as_ref(), clip.as_os_str()]);
    let line = line.expect_code(0);
    let answer = &line.answers()[0];
    assert_eq!(answer.probabilities.len(), 2);
    assert!(line.stdout.contains(&format!(r#""probabilities":{{"{}":"#, answer.genre)), "{}", line.stdout);
    assert_eq!(answer.confidence, answer.probabilities[&answer.genre]);
}

#[test]
fn a_server_that_is_not_there_is_said_in_one_line() {
    let clip = fixtures::formats().remove(0);
    // Nothing listens on port 1.
    let finished = run(["classify".as_ref(), "--endpoint".as_ref(), "http://127.0.0.1:1".as_ref(), clip.as_os_str()]);
    let finished = finished.expect_code(1);
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains("http://127.0.0.1:1"), "{}", finished.stderr);
}

#[test]
fn a_cluster_of_its_own_needs_no_port_that_others_use() {
    // Somebody else's if it cannot be bound: taken in any case.
    let _default_ports = ["127.0.0.1:50051", "127.0.0.1:9090"].map(TcpListener::bind);
    let clip = fixtures::formats().remove(0);
    run(["classify".as_ref(), clip.as_os_str()]).expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_uses_a_server_that_is_there() {
    let server = Server::start("up", &[]).await;
    let clip = fixtures::formats().remove(0);
    let arguments = ["classify", "--json", "--endpoint", server.endpoint(), clip.to_str().unwrap()];
    let first = run(arguments).expect_code(0).answers().remove(0);
    let second = run(arguments).expect_code(0).answers().remove(0);
    assert_eq!((first.cached, second.cached), (false, true), "the server remembers, the tool does not");
    assert_same_answer(&first, &second);
}

#[test]
fn features_are_written_as_a_numpy_array() {
    let folder = tempfile::tempdir().unwrap();
    let song = folder.path().join("song.wav");
    fs::write(&song, sound::wav(&sound::chord(9.0, 7))).unwrap();
    let out = folder.path().join("chunks.npy");
    run(["features".as_ref(), song.as_os_str(), "--out".as_ref(), out.as_os_str()]).expect_code(0);
    let array = NpyFile::new(File::open(&out).unwrap()).unwrap();
    assert_eq!(array.shape(), [4, 128, 96]);
    let cells: Vec<u8> = array.into_vec().unwrap();
    for chunk in cells.chunks(128 * 96) {
        assert_eq!(chunk.iter().max(), Some(&255), "the loudest cell of a chunk is 0 dB");
    }

    let float = folder.path().join("chunks-f32.npy");
    let arguments = ["features".as_ref(), song.as_os_str(), "--out".as_ref(), float.as_os_str()];
    run(arguments.into_iter().chain(["--dtype".as_ref(), "f32".as_ref()])).expect_code(0);
    let decibels: Vec<f32> = NpyFile::new(File::open(&float).unwrap()).unwrap().into_vec().unwrap();
    for (&cell, &level) in cells.iter().zip(&decibels) {
        let expected = ((level + 80.0) / 80.0 * 256.0).floor().clamp(0.0, 255.0);
        assert_eq!(f32::from(cell), expected, "{level} dB");
    }

    let bad = run(["features".as_ref(), fixtures::broken("text.mp3").as_os_str(), "-o".as_ref(), out.as_os_str()]);
    assert_eq!(bad.expect_code(1).stderr.lines().count(), 1);
}

#[test]
fn models_describes_the_embedded_one() {
    let described = run(["models"]).expect_code(0).stdout;
    let clip = fixtures::formats().remove(0);
    let answer = run(["classify".as_ref(), "--json".as_ref(), clip.as_os_str()]).expect_code(0).answers().remove(0);
    assert!(described.contains(&answer.model), "{} is not in {described}", answer.model);
    for genre in ["blues", "hiphop", "rock"] {
        assert!(described.contains(genre), "{described}");
    }
    let missing = command::run(["models", "/no/such/model"]).expect_code(1);
    assert!(missing.stderr.contains("/no/such/model"), "{}", missing.stderr);
}
