//! `chorale library`: folders of music in an index that survives everything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use chorale_tests::{
    Running, Server,
    command::{Finished, run},
    fixtures, sound,
};
use nix::sys::signal::Signal;
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, RowAccessor},
};
use serde_json::Value;
use tempfile::TempDir;

/// A folder of music, and an index elsewhere.
struct Library {
    folder: TempDir,
    music: PathBuf,
}

impl Library {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let music = folder.path().canonicalize().unwrap().join("music");
        fs::create_dir(&music).unwrap();
        Self { folder, music }
    }

    /// One track in each of the ten genres.
    fn of_genres() -> Self {
        let library = Self::new();
        for track in fixtures::genres() {
            fs::copy(&track, library.music.join(track.file_name().unwrap())).unwrap();
        }
        library
    }

    /// So many short tracks, each another chord.
    fn of_chords(count: u64) -> Self {
        let library = Self::new();
        for seed in 0..count {
            library.chord(&format!("{seed:04}.wav"), seed);
        }
        library
    }

    fn chord(&self, name: &str, seed: u64) -> PathBuf {
        let path = self.music.join(name);
        fs::write(&path, sound::wav(&sound::chord(1.1, seed))).unwrap();
        path
    }

    fn arguments(&self, command: &str, more: &[&str]) -> Vec<String> {
        let index = self.folder.path().join("library.sqlite").display().to_string();
        let own = ["library", command, "--index", &index];
        own.iter().chain(more).map(|&argument| argument.to_owned()).collect()
    }

    fn run(&self, command: &str, more: &[&str]) -> Finished {
        run(self.arguments(command, more))
    }

    fn scan_arguments(&self, more: &[&str]) -> Vec<String> {
        self.arguments("scan", &[&["--json", self.music.to_str().unwrap()], more].concat())
    }

    fn scan(&self, more: &[&str]) -> Scan {
        Scan::of(run(self.scan_arguments(more)))
    }

    fn stats(&self) -> Value {
        serde_json::from_str(&self.run("stats", &["--json"]).expect_code(0).stdout).unwrap()
    }

    fn found(&self, more: &[&str]) -> Vec<Value> {
        let found = self.run("find", &[&["--json"], more].concat()).expect_code(0);
        found.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What `library scan --json` said.
struct Scan {
    code: Option<i32>,
    /// File names by outcome.
    files: BTreeMap<String, BTreeSet<String>>,
    summary: Value,
    stderr: String,
}

impl Scan {
    fn of(finished: Finished) -> Self {
        let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut summary = Value::Null;
        for line in finished.stdout.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if line["summary"].is_object() {
                summary = line["summary"].clone();
            } else {
                let (outcome, name) = outcome(&line);
                assert!(files.entry(outcome).or_default().insert(name), "once for each file: {line}");
            }
        }
        Self { code: finished.code, files, summary, stderr: finished.stderr }
    }

    fn names(&self, outcome: &str) -> Vec<&str> {
        self.files.get(outcome).map(|names| names.iter().map(String::as_str).collect()).unwrap_or_default()
    }

    /// How many files had which outcome.
    fn counts(&self) -> Vec<(&str, usize)> {
        self.files.iter().map(|(outcome, names)| (outcome.as_str(), names.len())).collect()
    }
}

/// The outcome and the file's name of a line.
fn outcome(line: &Value) -> (String, String) {
    let path = Path::new(line["path"].as_str().expect("a line has a path"));
    let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
    (line["outcome"].as_str().expect("a line has an outcome").to_owned(), name)
}

#[test]
fn a_folder_is_classified_once_and_what_fails_is_reported_at_the_end() {
    let library = Library::of_genres();
    fs::copy(fixtures::broken("text.mp3"), library.music.join("text.mp3")).unwrap();
    let first = library.scan(&[]);
    assert_eq!((first.code, first.counts()), (Some(1), vec![("classified", 10), ("failed", 1)]), "{}", first.stderr);
    assert_eq!(first.summary["classified"], 10);

    let second = library.scan(&[]);
    assert_eq!((second.code, second.counts()), (Some(0), vec![("failed_before", 1), ("unchanged", 10)]));
    let music = library.music.to_str().unwrap();
    let third = library.run("scan", &["--retry-failed", music]).expect_code(1);
    assert_eq!(third.stdout, "", "a person reads a summary");
    assert!(
        third.stderr.contains("1 file failed: no audio") && third.stderr.contains("text.mp3: "),
        "{}",
        third.stderr
    );
    let again = library.scan(&["--rescan", "--early", "0.1"]);
    assert_eq!(again.names("classified").len(), 10);

    let stats = library.stats();
    assert_eq!((&stats["tracks"], &stats["failed"][0]["files"]), (&10.into(), &1.into()));
    let shown = library.run("stats", &[]).expect_code(0).stdout;
    assert!(shown.starts_with("10 tracks, ") && shown.contains("failed 1 × no audio"), "{shown}");
    let failed = library.found(&["--failed"]);
    assert_eq!(failed[0]["error"]["code"], "AUDIO_UNSUPPORTED");
}

#[test]
fn moved_and_copied_files_are_known_by_their_content_and_those_that_are_gone_are_marked() {
    let library = Library::of_chords(3);
    let path = |name: &str| library.music.join(name);
    assert_eq!(library.scan(&[]).counts(), [("classified", 3)]);
    fs::create_dir(path("album")).unwrap();
    fs::rename(path("0000.wav"), path("album/moved.wav")).unwrap();
    fs::copy(path("0001.wav"), path("copied.wav")).unwrap();
    fs::remove_file(path("0002.wav")).unwrap();
    let scan = library.scan(&[]);
    assert_eq!(scan.names("recognised"), ["copied.wav", "moved.wav"]);
    assert_eq!((scan.names("gone"), scan.names("unchanged")), (vec!["0000.wav", "0002.wav"], vec!["0001.wav"]));
    assert_eq!(library.stats()["tracks"], 3);

    library.chord("0002.wav", 2);
    assert_eq!(library.scan(&[]).names("recognised"), ["0002.wav"], "what comes back is known");
    library.chord("0001.wav", 77);
    assert_eq!(library.scan(&["--prune"]).names("classified"), ["0001.wav"], "what changes is not");
    assert_eq!(library.stats()["gone"], 0);
}

#[test]
fn a_scan_that_is_killed_loses_nothing_and_does_nothing_twice() {
    const TRACKS: u64 = 300;
    let library = Library::of_chords(TRACKS);
    let scan = Running::start(library.scan_arguments(&[]));
    let mut first = BTreeSet::new();
    while first.len() < 100 {
        let line = scan.line().expect("there is more to classify");
        first.insert(outcome(&serde_json::from_str(&line).unwrap()));
    }
    scan.signal(Signal::SIGKILL);
    // A line may be cut off in its middle.
    let rest = scan.rest();
    first.extend(rest.iter().filter_map(|line| serde_json::from_str(line).ok()).map(|line| outcome(&line)));
    let known = library.stats()["tracks"].as_u64().unwrap();
    assert!(known < TRACKS, "it was killed too late");

    let second = library.scan(&[]);
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    let (again, passed_over) = (&second.files["classified"], &second.files["unchanged"]);
    assert_eq!(again.len() as u64 + known, TRACKS);
    assert_eq!(passed_over.len() as u64, known, "what was written down is not done again");
    for (outcome, name) in &first {
        assert_eq!(outcome, "classified");
        assert!(passed_over.contains(name) && !again.contains(name), "{name} was reported, and is lost");
    }
    assert_eq!(library.stats()["tracks"], TRACKS);
    let paths: BTreeSet<_> =
        library.found(&[]).iter().map(|track| track["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(paths.len() as u64, TRACKS);
}

#[test]
fn the_first_ctrl_c_finishes_what_is_in_flight() {
    let library = Library::of_chords(200);
    let scan = Running::start(library.scan_arguments(&[]));
    scan.line().unwrap();
    scan.signal(Signal::SIGINT);
    let rest = scan.rest();
    let (code, errors) = scan.finish();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("Ctrl-C again stops at once"), "{errors}");
    let summary: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
    let (classified, left) = (&summary["summary"]["classified"], &summary["summary"]["left"]);
    assert_eq!(classified.as_u64().unwrap() + left.as_u64().unwrap(), 200);
    assert!(left.as_u64().unwrap() > 0, "it was interrupted too late");
    assert_eq!(&library.stats()["tracks"], classified);
    assert_eq!(library.scan(&[]).names("classified").len() as u64, left.as_u64().unwrap());
}

#[test]
fn one_scan_of_an_index_runs_at_a_time() {
    let library = Library::of_chords(1);
    let watch = Running::start(library.arguments("watch", &["--json", library.music.to_str().unwrap()]));
    watch.line().unwrap();
    let other = run(library.scan_arguments(&[])).expect_code(1);
    assert!(other.stderr.contains("another `chorale library scan`"), "{}", other.stderr);
    assert_eq!(library.found(&[]).len(), 1, "whoever asks is answered meanwhile");
}

#[test]
fn the_verdicts_of_another_model_are_made_when_it_is_served_and_kept() {
    let library = Library::of_chords(3);
    library.scan(&[]);
    let small = library.scan(&["--model", "small"]);
    assert_eq!(small.counts(), [("classified", 3)]);
    let stats = library.stats();
    let tracks: Vec<_> = stats["models"].as_array().unwrap().iter().map(|model| &model["tracks"]).collect();
    assert_eq!(tracks, [3, 0]);
    let back = library.run("scan", &[library.music.to_str().unwrap()]).expect_code(0);
    assert!(back.stderr.contains("The last scan was with the model"), "{}", back.stderr);
    assert_eq!(library.stats()["models"][0]["tracks"], 3);
    assert_eq!(library.scan(&[]).counts(), [("unchanged", 3)], "the first model's verdicts were there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_is_not_the_fault_of_the_files() {
    let library = Library::of_chords(2);
    let server = Server::start("up", &[]).await;
    let endpoint = server.endpoint().to_owned();
    assert_eq!(library.scan(&["--endpoint", &endpoint]).counts(), [("classified", 2)]);
    drop(server);
    library.chord("later.wav", 9);
    let scan = library.scan(&["--endpoint", &endpoint]);
    assert_eq!((scan.code, scan.counts()), (Some(1), vec![]), "{}", scan.stderr);
    assert!(scan.stderr.contains("no server answers"), "{}", scan.stderr);
    assert_eq!(library.scan(&[]).names("classified"), ["later.wav"]);
}

#[test]
fn tracks_are_found_by_what_is_known_of_them() {
    let library = Library::of_genres();
    library.scan(&[]);
    let all = library.found(&[]);
    assert_eq!(all.len(), 10);
    let genre = all[0]["genre"].as_str().unwrap();
    let confidence = |track: &Value| track["confidence"].as_f64().unwrap();
    for track in library.found(&["--genre", &genre.to_uppercase()]) {
        assert_eq!(track["genre"], genre);
    }
    let sorted = library.found(&["--sort", "confidence", "--limit", "3"]);
    let surest = all.iter().map(confidence).fold(0.0, f64::max);
    assert_eq!((sorted.len(), confidence(&sorted[0])), (3, surest));
    assert!(library.found(&["--min-confidence", "0.99"]).iter().all(|track| confidence(track) >= 0.99));
    assert_eq!(library.found(&["--min-length", "10h"]), [] as [Value; 0]);
    let jazz = library.music.join("jazz.mp3");
    assert_eq!(library.found(&["--under", jazz.to_str().unwrap()]).len(), 1);
    assert_eq!(library.found(&["--artist", "nobody"]).len(), 0);

    let names = library.run("find", &["--paths0", "--limit", "2"]).expect_code(0).stdout;
    let expected = ["blues.mp3", "classical.mp3"].map(|name| library.music.join(name).display().to_string() + "\0");
    assert_eq!(names, expected.concat());
    let listed = library.run("find", &[]).expect_code(0);
    assert_eq!(listed.stdout.lines().count(), 10);
    assert!(listed.stderr.starts_with("10 tracks, "), "{}", listed.stderr);

    let polka = library.run("find", &["--genre", "polka"]).expect_code(2);
    assert!(polka.stderr.contains("known are blues, classical") && polka.stdout.is_empty(), "{}", polka.stderr);
    library.run("find", &["--min-confidence", "70"]).expect_code(2);
}

#[test]
fn the_library_is_exported_for_other_programs() {
    let library = Library::of_chords(3);
    library.scan(&[]);
    let out = |name: &str| library.folder.path().join(name).display().to_string();
    for name in ["tracks.csv", "tracks.jsonl", "tracks.parquet"] {
        let written = library.run("export", &["-o", &out(name)]).expect_code(0);
        assert!(written.stderr.contains("3 tracks written to"), "{}", written.stderr);
    }
    let found = library.found(&[]);
    let table = fs::read_to_string(out("tracks.csv")).unwrap();
    assert_eq!(table.lines().count(), 4);
    assert!(table.starts_with("path,artist,album,title,genre,confidence,"), "{table}");
    let lines = fs::read_to_string(out("tracks.jsonl")).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&first["path"], &first["probabilities"]), (&found[0]["path"], &found[0]["probabilities"]));

    let reader = SerializedFileReader::new(fs::File::open(out("tracks.parquet")).unwrap()).unwrap();
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    for (row, track) in rows.iter().zip(&found) {
        assert_eq!(row.get_string(0).unwrap(), track["path"].as_str().unwrap());
        let (_, confidence) = row.get_column_iter().find(|(name, _)| *name == "confidence").unwrap();
        assert_eq!(*confidence, Field::Double(track["confidence"].as_f64().unwrap()));
    }

    let piped = library.run("export", &["--format", "csv", "-o", "-"]).expect_code(0);
    assert_eq!(piped.stdout, table);
    symlink("/proc/self/fd/1", out("stdout.csv")).unwrap();
    let streamed = library.run("export", &["-o", &out("stdout.csv")]).expect_code(0);
    assert_eq!(streamed.stdout, table, "what is no file is written to, and never replaced");
    let nameless = library.run("export", &["-o", &out("tracks")]).expect_code(2);
    assert!(nameless.stderr.contains("--format"), "{}", nameless.stderr);
}

#[test]
fn what_comes_while_a_folder_is_watched_is_classified_when_it_is_whole() {
    let library = Library::of_chords(1);
    let arguments = library.arguments("watch", &["--json", "--settle", "400ms", library.music.to_str().unwrap()]);
    let watch = Running::start(arguments);
    let next = || {
        let line: Value = serde_json::from_str(&watch.line().expect("there is news")).unwrap();
        outcome(&line)
    };
    let news = |outcome: &str, name: &str| (outcome.to_owned(), name.to_owned());
    assert_eq!(next(), news("classified", "0000.wav"));

    let whole = sound::wav(&sound::chord(1.5, 5));
    let growing = library.music.join("growing.wav");
    fs::write(&growing, &whole[..40]).unwrap();
    fs::write(library.music.join("notes.txt"), "no audio").unwrap();
    fs::write(&growing, &whole).unwrap();
    assert_eq!(next(), news("classified", "growing.wav"), "not before it was whole, when it was no audio");

    // A folder that is moved in says nothing of the files in it.
    let elsewhere = Library::of_chords(0);
    elsewhere.chord("in-folder.wav", 6);
    fs::rename(&elsewhere.music, library.music.join("album")).unwrap();
    assert_eq!(next(), news("classified", "in-folder.wav"));
    fs::rename(&growing, library.music.join("renamed.wav")).unwrap();
    let both: BTreeSet<_> = [next(), next()].into();
    assert_eq!(both, [news("gone", "growing.wav"), news("recognised", "renamed.wav")].into());
    library.chord("0000.wav", 7);
    assert_eq!(next(), news("classified", "0000.wav"));

    watch.signal(Signal::SIGINT);
    assert_eq!(watch.rest(), [""; 0]);
    assert_eq!(watch.finish().0, Some(0));
    assert_eq!(library.stats()["tracks"], 3);
}

#[test]
fn an_index_that_cannot_be_used_is_said_in_one_line() {
    let library = Library::of_chords(1);
    let index = library.folder.path().join("library.sqlite");
    for command in ["stats", "find"] {
        let missing = library.run(command, &[]).expect_code(1);
        assert!(missing.stderr.contains("`chorale library scan DIR` makes one"), "{}", missing.stderr);
    }
    fs::write(&index, "no database, but a text that somebody put in its place".repeat(100)).unwrap();
    for arguments in [library.arguments("stats", &[]), library.scan_arguments(&[])] {
        let damaged = run(arguments).expect_code(1);
        assert!(damaged.stderr.contains("is damaged") && damaged.stderr.lines().count() == 1, "{}", damaged.stderr);
    }
    let nowhere = library.run("scan", &["/no/such/folder"]);
    assert!(nowhere.stderr.lines().count() == 1, "{}", nowhere.stderr);
}
