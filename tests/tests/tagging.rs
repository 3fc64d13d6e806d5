//! `chorale tag`: genres in the files' own tags, the audio as it was, and everything as it was after an undo.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, SystemTime},
};

use chorale_tests::{
    Running,
    command::run,
    fixtures,
    music::{Music, lines, name_of},
};
use lofty::{
    config::WriteOptions,
    file::TaggedFileExt,
    tag::{Accessor, Tag, TagExt},
};
use nix::sys::signal::Signal;
use serde_json::Value;

const TAGGABLE: [&str; 9] = [
    "clip-alac.m4a",
    "clip-moov-last.m4a",
    "clip.aiff",
    "clip.flac",
    "clip.m4a",
    "clip.mp3",
    "clip.ogg",
    "clip.wav",
    "stereo-44100.mp3",
];
const OTHERS: [&str; 5] = ["clip.aac", "clip.au", "clip.caf", "clip.mkv", "clip.webm"];

/// The names of files by outcome.
fn outcomes(lines: &[Value]) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["path"].is_string()) {
        let (outcome, path) = (line["outcome"].as_str().unwrap(), line["path"].as_str().unwrap());
        names.entry(outcome.to_owned()).or_default().push(name_of(Path::new(path)));
    }
    names
}

/// The genre that any player sees.
fn genre_of(path: &Path) -> Option<String> {
    let file = lofty::read_from_path(path).unwrap();
    file.primary_tag().and_then(|tag| tag.genre().map(Cow::into_owned))
}

/// The mel chunks of a file: equal only if every decoded sample is.
fn heard(path: &Path, to: &Path) -> Vec<u8> {
    run([Path::new("features"), path, Path::new("--dtype"), Path::new("f32"), Path::new("--out"), to]).expect_code(0);
    fs::read(to).unwrap()
}

fn set_genre(path: &Path, genre: &str) {
    let mut tag = Tag::new(lofty::read_from_path(path).unwrap().primary_tag_type());
    tag.set_genre(genre.to_owned());
    tag.save_to_path(path, WriteOptions::new()).unwrap();
}

#[test]
fn without_write_no_byte_changes() {
    let music = Music::scanned(fixtures::formats());
    let before = music.contents();
    let preview = music.run(&["tag", "--json"], &[]).expect_code(1);
    let lines = lines(&preview);
    let outcomes = outcomes(&lines);
    assert_eq!(outcomes["would_tag"], TAGGABLE);
    assert_eq!(outcomes["failed"], OTHERS);
    let changes = lines.iter().find(|line| line["outcome"] == "would_tag").unwrap()["changes"].as_array().unwrap();
    let fields: Vec<_> = changes.iter().map(|change| change["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["GENRE", "CHORALE_GENRE", "CHORALE_CONFIDENCE", "CHORALE_MODEL"]);
    assert_eq!(changes[0]["old"], Value::Array(Vec::new()));

    let shown = music.run(&["tag"], &[&music.music.join("clip.mp3")]).expect_code(0);
    assert!(shown.stdout.contains("clip.mp3\n  GENRE              nothing → "), "{}", shown.stdout);
    assert!(shown.stderr.contains("nothing was changed yet: --write does it"), "{}", shown.stderr);
    assert_eq!(music.contents(), before);
}

#[test]
fn tags_are_written_the_audio_stays_and_undo_brings_every_byte_back() {
    let music = Music::scanned(fixtures::formats());
    let scratch = music.beside("heard.npy");
    let clip = |name: &str| music.music.join(name);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(clip("clip.mp3")).unwrap().set_modified(long_ago).unwrap();
    music.scan();
    let before = music.contents();
    let heard_before = TAGGABLE.map(|name| heard(&clip(name), &scratch));

    let written = music.run(&["tag", "--write", "--json"], &[]).expect_code(1);
    assert_eq!(outcomes(&lines(&written))["tagged"], TAGGABLE);
    let summary = lines(&written).pop().unwrap();
    assert_eq!((&summary["summary"]["changed"], &summary["summary"]["run"]), (&9.into(), &1.into()));
    for line in lines(&written).iter().filter(|line| line["outcome"] == "tagged") {
        let path = Path::new(line["path"].as_str().unwrap());
        assert_eq!(genre_of(path).as_deref(), line["changes"][0]["new"][0].as_str(), "{}", path.display());
    }
    let tagged = music.contents();
    assert_eq!(tagged.len(), before.len(), "nothing is left behind");
    for (name, heard_before) in TAGGABLE.into_iter().zip(&heard_before) {
        assert_ne!(tagged[name], before[name], "{name}");
        assert!(heard(&clip(name), &scratch) == *heard_before, "{name} sounds as before");
    }
    for name in OTHERS {
        assert_eq!(tagged[name], before[name], "{name}");
    }
    assert_eq!(music.scan(), [("unchanged".to_owned(), 14)].into(), "the index knows the files again");
    let again = music.run(&["tag", "--write", "--json"], &[&clip("clip.flac")]).expect_code(0);
    assert_eq!(outcomes(&lines(&again))["unchanged"], ["clip.flac"]);

    let runs = music.run(&["tag", "--runs", "--json"], &[]).expect_code(0);
    assert_eq!(lines(&runs)[0]["files"], 9);
    let undone = music.run(&["tag", "--undo"], &[]).expect_code(0);
    assert!(undone.stderr.contains("run 1: 9 restored, 0 left alone"), "{}", undone.stderr);
    assert!(music.contents() == before, "byte for byte");
    assert_eq!(fs::metadata(clip("clip.mp3")).unwrap().modified().unwrap(), long_ago);
    assert_eq!(music.scan(), [("unchanged".to_owned(), 14)].into());
    let nothing = music.run(&["tag", "--undo"], &[]).expect_code(1);
    assert!(nothing.stderr.contains("no run of `chorale tag --write`"), "{}", nothing.stderr);
}

#[test]
fn a_folder_is_tagged_by_whichever_link_leads_there() {
    let music = Music::scanned([]);
    let (elsewhere, link) = (music.beside("elsewhere"), music.music.join("linked"));
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &link).unwrap();
    symlink(&music.music, music.beside("by-link")).unwrap();
    fs::copy(&fixtures::genres()[0], elsewhere.join("a.mp3")).unwrap();
    assert_eq!(music.scan(), [("classified".to_owned(), 1)].into());
    for place in [&link, &elsewhere.join("../music/linked/a.mp3"), &music.beside("by-link/linked")] {
        let shown = lines(&music.run(&["tag", "--json"], &[place]).expect_code(0));
        assert_eq!(outcomes(&shown)["would_tag"], ["a.mp3"], "{}", place.display());
    }
}

#[test]
fn genres_from_elsewhere_stay_unless_the_user_says_otherwise() {
    let music = Music::scanned([]);
    for name in TAGGABLE {
        let path = music.music.join(name);
        fs::copy(fixtures::formats().into_iter().find(|fixture| fixture.ends_with(name)).unwrap(), &path).unwrap();
        set_genre(&path, "Polka");
    }
    music.scan();
    let before = music.contents();
    let kept = music.run(&["tag", "--write", "--json"], &[]).expect_code(0);
    assert_eq!(outcomes(&lines(&kept))["kept"], TAGGABLE);
    assert!(music.contents() == before);

    let added = music.run(&["tag", "--write", "--add", "--json"], &[]).expect_code(0);
    for line in lines(&added).iter().filter(|line| line["path"].is_string()) {
        assert_eq!(line["changes"][0]["old"], serde_json::json!(["Polka"]), "{line}");
        assert_eq!(line["changes"][0]["new"][0], "Polka", "{line}");
        assert_eq!(line["changes"][0]["new"].as_array().unwrap().len(), 2, "{line}");
    }
    let overwritten = music.run(&["tag", "--write", "--overwrite", "--json"], &[]).expect_code(0);
    for line in lines(&overwritten).iter().filter(|line| line["path"].is_string()) {
        let path = Path::new(line["path"].as_str().unwrap());
        assert_eq!(line["changes"][0]["new"].as_array().unwrap().len(), 1, "{line}");
        assert_eq!(genre_of(path).as_deref(), line["changes"][0]["new"][0].as_str());
    }

    let first = music.run(&["tag", "--undo", "1"], &[]).expect_code(1);
    assert!(first.stderr.contains("run 2 has changed it since"), "{}", first.stderr);
    music.run(&["tag", "--undo"], &[]).expect_code(0);
    music.run(&["tag", "--undo", "1"], &[]).expect_code(0);
    assert!(music.contents() == before);
}

#[test]
fn what_others_changed_is_left_alone() {
    let music = Music::scanned(fixtures::genres());
    let (changed, unknown) = (music.music.join("jazz.mp3"), music.music.join("rock.mp3"));
    set_genre(&unknown, "Rock");
    let written = music.run(&["tag", "--write", "--overwrite", "--json"], &[]).expect_code(1);
    let failed: Vec<_> = lines(&written).into_iter().filter(|line| line["outcome"] == "failed").collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["error"].as_str().unwrap().contains("changed since it was scanned"), "{}", failed[0]);

    set_genre(&changed, "Polka");
    let theirs = fs::read(&changed).unwrap();
    let undone = music.run(&["tag", "--undo"], &[]).expect_code(1);
    assert!(undone.stderr.contains("changed since it was tagged"), "{}", undone.stderr);
    assert!(undone.stderr.contains("1 left alone\n`chorale tag --undo 1` tries these again"), "{}", undone.stderr);
    let next = music.run(&["tag", "--undo"], &[]).expect_code(1);
    assert!(next.stderr.contains("tries again what was left alone of 1"), "{}", next.stderr);
    assert_eq!(fs::read(&changed).unwrap(), theirs);
}

#[test]
fn a_run_that_is_killed_loses_nothing_and_can_be_undone() {
    const COPIES: usize = 8;
    let music = Music::scanned([]);
    for genre in fixtures::genres() {
        for copy in 0..COPIES {
            fs::copy(&genre, music.music.join(format!("{copy:02}-{}", name_of(&genre)))).unwrap();
        }
    }
    music.scan();
    let before = music.contents();
    let would_tag = outcomes(&lines(&music.run(&["tag", "--json"], &[]).expect_code(0)))["would_tag"].len();
    assert!(would_tag > 50, "{would_tag}");

    let run = Running::start(music.arguments(&["tag", "--write", "--json"], &[]));
    for _ in 0..20 {
        run.line().expect("there is more to tag");
    }
    run.signal(Signal::SIGKILL);
    drop(run);
    let after = music.contents();
    let tagged = before.iter().filter(|(name, bytes)| after[*name] != **bytes).count();
    assert!(tagged > 0 && tagged < would_tag, "{tagged} tagged: it was killed at another time");

    let second = outcomes(&lines(&music.run(&["tag", "--write", "--json"], &[]).expect_code(0)));
    assert_eq!(second["tagged"].len() + tagged, would_tag, "what was done is not done again");
    assert_eq!(music.contents().len(), before.len(), "what the dead process left is gone");
    assert_eq!(music.scan(), [("unchanged".to_owned(), before.len())].into());
    music.run(&["tag", "--undo"], &[]).expect_code(0);
    music.run(&["tag", "--undo"], &[]).expect_code(0);
    assert!(music.contents() == before, "byte for byte");
}

#[test]
fn filters_choose_and_wrong_usage_says_what_is_right() {
    let music = Music::scanned(fixtures::genres());
    let jazz = music.music.join("jazz.mp3");
    let one = music.run(&["tag", "--json"], &[&jazz]).expect_code(0);
    // And the summary.
    assert_eq!(lines(&one).len(), 2);
    assert_eq!(lines(&music.run(&["tag", "--json", "--artist", "nobody"], &[]).expect_code(0)).len(), 1);
    assert_eq!(lines(&music.run(&["tag", "--json", "--min-confidence", "1"], &[]).expect_code(0)).len(), 1);
    let wrong: [&[&str]; 5] = [
        &["tag", "--min-confidence", "70"],
        &["tag", "--add", "--overwrite"],
        &["tag", "--undo", "--write"],
        &["tag", "--genre", "polka"],
        &["tag", "/no/such/folder"],
    ];
    for words in wrong {
        music.run(words, &[]).expect_code(2);
    }
    let no_index = run(["tag", "--index", music.beside("none").to_str().unwrap()]).expect_code(1);
    assert!(no_index.stderr.contains("`chorale library scan DIR` makes one"), "{}", no_index.stderr);
}
