use std::{fs, path::PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::{
    Filter, Order,
    testing::{classified, failed, file, model, small_library, verdict},
};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn paths(index: &Index, filter: &Filter) -> Vec<String> {
    index.tracks(filter).unwrap().into_iter().map(|track| track.path.display().to_string()).collect()
}

#[test]
fn what_is_written_is_read_back_by_another_connection() {
    let folder = folder();
    let mut writer = Index::create(&folder.path().join("deep/er/library.sqlite")).unwrap();
    let id = writer.adopt(&model("1")).unwrap();
    // To the last bit, which hasty parsers of JSON get wrong for this one.
    let confidence = 9.990_010_134_620_973e-5;
    let finding = classified("/m/a.mp3", 1, verdict("jazz", confidence));
    writer.record(std::slice::from_ref(&finding), id).unwrap();

    let reader = Index::open(writer.path()).unwrap();
    let track = reader.tracks(&Filter::default()).unwrap().remove(0);
    assert_eq!((track.path, track.digest, track.genre), (PathBuf::from("/m/a.mp3"), [1; 32], "jazz".to_owned()));
    assert_eq!((track.embedding, track.model_version), (vec![0.6, 0.8], "1".to_owned()));
    assert_eq!(track.probabilities, [("jazz".to_owned(), confidence), ("blues".to_owned(), 0.1)]);
    assert_eq!(Found::Classified(reader.verdict(&[1; 32], id).unwrap().unwrap()), finding.found);
    assert_eq!(reader.verdict(&[1; 32], id + 1).unwrap(), None);
}

#[cfg(unix)]
#[test]
fn a_path_need_not_be_utf_8() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let folder = folder();
    let mut index = small_library(folder.path());
    let path = PathBuf::from(OsStr::from_bytes(b"/odd/\xff.mp3"));
    let id = index.adopt(&model("1")).unwrap();
    index.record(&[classified(&path, 9, verdict("jazz", 0.9))], id).unwrap();
    let filter = Filter { under: vec!["/odd".into()], ..Filter::default() };
    assert_eq!(index.tracks(&filter).unwrap().remove(0).path, path);
}

#[test]
fn a_filter_takes_what_is_as_every_field_says() {
    let folder = folder();
    let index = small_library(folder.path());
    let everything = ["/m/a.mp3", "/m/b/c.mp3", "/n/d.mp3"];
    assert_eq!(paths(&index, &Filter::default()), everything);
    let of = |genre: &str| Filter { genres: vec![genre.to_owned()], ..Filter::default() };
    assert_eq!(paths(&index, &of("Jazz")), everything[..2]);
    assert_eq!(paths(&index, &of("unknown")), everything[2..]);
    assert_eq!(paths(&index, &Filter { min_confidence: Some(0.7), ..of("jazz") }), everything[..1]);
    assert_eq!(paths(&index, &Filter { artist: Some("étienne".to_owned()), ..Filter::default() }), everything[..1]);
    assert_eq!(paths(&index, &Filter { min_seconds: Some(60.0), ..Filter::default() }), everything[2..]);
    assert_eq!(paths(&index, &Filter { max_seconds: Some(60.0), ..Filter::default() }), everything[..2]);
    let under = |places: &[&str]| Filter { under: places.iter().map(PathBuf::from).collect(), ..Filter::default() };
    assert_eq!(paths(&index, &under(&["/m/b", "/n/d.mp3"])), everything[1..]);
    assert_eq!(paths(&index, &Filter { min_confidence: Some(0.7), ..under(&["/n", "/m/b"]) }), [""; 0]);
    let first = Filter { order: Order::Duration, limit: Some(1), ..Filter::default() };
    assert_eq!(paths(&index, &first), everything[2..]);
    assert_eq!(paths(&index, &Filter { order: Order::Genre, ..Filter::default() }), everything);
    assert_eq!(paths(&index, &Filter { order: Order::Artist, ..Filter::default() }), everything);

    let error = index.tracks(&of("polka")).unwrap_err().to_string();
    assert_eq!(error, r#"no model in this library knows the genre "polka"; known are blues, hip hop, jazz, unknown"#);
}

#[test]
fn a_place_is_found_by_whichever_links_lead_there() {
    use std::os::unix::fs::symlink;
    let folder = folder();
    let root = folder.path().canonicalize().unwrap();
    let mut index = small_library(&root);
    let id = index.adopt(&model("1")).unwrap();
    fs::create_dir_all(root.join("disk/music")).unwrap();
    fs::create_dir(root.join("album")).unwrap();
    symlink("disk/music", root.join("music")).unwrap();
    symlink(root.join("album"), root.join("music/linked")).unwrap();
    // As a scan of `music` names it, and one of `album`.
    let by_link = root.join("disk/music/linked/a.mp3");
    let bare = root.join("album/b.mp3");
    for path in [&by_link, &bare] {
        fs::write(path, "").unwrap();
        index.record(&[classified(path, 7, verdict("jazz", 0.9))], id).unwrap();
    }
    let under = |name: &str| index.tracks(&Filter { under: vec![root.join(name)], ..Filter::default() }).unwrap().len();
    assert_eq!(["music", "music/linked", "disk/music/linked", "album"].map(under), [1, 2, 2, 1]);
    assert_eq!(["music/linked/a.mp3", "disk/music/linked/b.mp3", "none"].map(under), [1, 1, 0]);
    assert_eq!(index.track_at(&root.join("music/linked/a.mp3")).unwrap().unwrap().path, by_link);
    assert_eq!(index.track_at(&root.join("music/linked/b.mp3")).unwrap().unwrap().path, bare);
    assert_eq!(index.track_at(&root.join("album")).unwrap(), None);
}

#[test]
fn any_number_of_places_can_be_named() {
    let folder = folder();
    let index = small_library(folder.path());
    let mut under: Vec<PathBuf> = (0..5_000).map(|number| format!("/many/{number}.mp3").into()).collect();
    under.extend(["/m/a.mp3", "/m", "/m/a.mp3"].map(PathBuf::from));
    assert_eq!(paths(&index, &Filter { under, ..Filter::default() }), ["/m/a.mp3", "/m/b/c.mp3"], "none twice");
}

#[test]
fn a_file_is_known_as_long_as_it_is_the_same() {
    let folder = folder();
    let mut index = small_library(folder.path());
    let id = index.adopt(&model("1")).unwrap();
    index.record(&[failed("/m/locked.mp3", "PERMISSION_DENIED")], id).unwrap();
    let knowledge = |index: &Index, file: &FileState| index.knowledge(file, id, 0).unwrap();
    assert_eq!(knowledge(&index, &file("/m/a.mp3")), Knowledge::Verdict);
    assert_eq!(knowledge(&index, &file("/m/z.mp3")), Knowledge::Failure);
    assert_eq!(knowledge(&index, &file("/m/locked.mp3")), Knowledge::PassingFailure);
    assert_eq!(knowledge(&index, &file("/m/new.mp3")), Knowledge::Nothing);
    assert_eq!(knowledge(&index, &FileState { size: 1, ..file("/m/a.mp3") }), Knowledge::Nothing);
    assert_eq!(knowledge(&index, &FileState { modified_ns: 8, ..file("/m/z.mp3") }), Knowledge::Nothing);

    index.record(&[failed("/m/a.mp3", "AUDIO_EMPTY")], id).unwrap();
    assert_eq!(
        paths(&index, &Filter::default()),
        ["/m/b/c.mp3", "/n/d.mp3"],
        "what was known of another content is not"
    );
    index.record(&[classified("/m/a.mp3", 1, verdict("blues", 0.4))], id).unwrap();
    assert_eq!(index.failed_files().unwrap().len(), 2);
}

#[test]
fn the_verdicts_of_the_model_that_is_served_count_and_those_of_others_wait_for_it_to_come_back() {
    let folder = folder();
    let mut index = small_library(folder.path());
    let first = index.adopt(&model("1")).unwrap();
    let second = index.adopt(&model("2")).unwrap();
    assert_eq!(index.knowledge(&file("/m/a.mp3"), second, 0).unwrap(), Knowledge::Nothing);
    assert_eq!(paths(&index, &Filter::default()).len(), 3, "until then, the old verdicts count");
    index.record(&[classified("/m/a.mp3", 1, verdict("blues", 0.6))], second).unwrap();
    let versions = |index: &Index| {
        let tracks = index.tracks(&Filter::default()).unwrap();
        tracks.into_iter().map(|track| track.genre + &track.model_version).collect::<Vec<_>>()
    };
    assert_eq!(versions(&index), ["blues2", "jazz1", "unknown1"]);
    assert_eq!(index.current_model().unwrap(), Some(model("2")));

    assert_eq!(index.adopt(&model("1")).unwrap(), first);
    assert_eq!(versions(&index), ["jazz1", "jazz1", "unknown1"]);
    assert_eq!(index.knowledge(&file("/m/a.mp3"), first, 0).unwrap(), Knowledge::Verdict);
}

#[test]
fn files_that_are_gone_are_marked_known_again_when_they_are_back_and_forgotten_on_demand() {
    let folder = folder();
    let mut index = small_library(folder.path());
    let id = index.adopt(&model("1")).unwrap();
    let here = folder.path().join("here.mp3");
    fs::write(&here, "").unwrap();
    index.record(&[classified(&here, 5, verdict("jazz", 0.9))], id).unwrap();
    let mut gone = Vec::new();
    index.mark_gone(Path::new("/m"), |path| gone.push(path.display().to_string())).unwrap();
    index.mark_gone(folder.path(), |path| panic!("{} is there", path.display())).unwrap();
    gone.sort();
    assert_eq!(gone, ["/m/a.mp3", "/m/b/c.mp3", "/m/z.mp3"]);
    assert_eq!(paths(&index, &Filter::default()), ["/n/d.mp3", here.to_str().unwrap()]);
    index.mark_gone(Path::new("/m"), |path| panic!("{} is marked already", path.display())).unwrap();

    assert_eq!(index.knowledge(&file("/m/a.mp3"), id, 0).unwrap(), Knowledge::Verdict);
    assert_eq!(paths(&index, &Filter::default()).len(), 3);
    assert_eq!(index.prune(Path::new("/m")).unwrap(), 2);
    assert_eq!(index.verdict(&[2; 32], id).unwrap(), None, "no file has that digest any more");
    assert!(index.verdict(&[1; 32], id).unwrap().is_some());
    index.mark_gone(Path::new("/n/d.mp3"), |_| ()).unwrap();
    assert_eq!(index.statistics().unwrap().gone, 1);
}

#[test]
fn a_scan_that_makes_everything_anew_goes_on_where_it_was_ended() {
    let folder = folder();
    let mut index = small_library(folder.path());
    let id = index.adopt(&model("1")).unwrap();
    let roots = [PathBuf::from("/m")];
    let since = index.begin_rescan(&roots, id).unwrap() + 1;
    assert_eq!(index.knowledge(&file("/m/a.mp3"), id, since).unwrap(), Knowledge::Nothing);
    index.connection.execute("UPDATE rescan SET since = since - 1000", []).unwrap();
    assert_eq!(index.begin_rescan(&roots, id).unwrap(), since - 1001);
    assert_eq!(index.knowledge(&file("/m/a.mp3"), id, since - 1001).unwrap(), Knowledge::Verdict);
    assert!(index.begin_rescan(&[PathBuf::from("/n")], id).unwrap() >= since - 1, "of other folders, it is a new one");
    assert!(index.begin_rescan(&roots, id).unwrap() >= since - 1);
    index.connection.execute("UPDATE rescan SET since = since - 1000", []).unwrap();
    index.end_rescan().unwrap();
    assert!(index.begin_rescan(&roots, id).unwrap() >= since - 1);
}

#[test]
fn what_is_known_of_a_file_is_known_after_its_tags_are_written() {
    let folder = folder();
    let mut index = small_library(folder.path());
    let id = index.adopt(&model("1")).unwrap();
    let song = folder.path().join("song.mp3");
    fs::write(&song, "new bytes").unwrap();
    index.record(&[classified(&song, 1, verdict("jazz", 0.9))], id).unwrap();
    let digest = *blake3::hash(b"new bytes").as_bytes();
    index.audio_is_unchanged(&song, &[1; 32], &digest).unwrap();
    assert_eq!(index.verdict(&digest, id).unwrap(), index.verdict(&[1; 32], id).unwrap());
    let state = FileState::new(song.clone(), &song.metadata().unwrap());
    assert_eq!(index.knowledge(&state, id, 0).unwrap(), Knowledge::Verdict);
    let filter = Filter { under: vec![song], ..Filter::default() };
    assert_eq!(index.tracks(&filter).unwrap().remove(0).digest, digest);
}

#[test]
fn bytes_that_somebody_else_put_there_have_no_verdict() {
    let folder = folder();
    let mut index = small_library(folder.path());
    let id = index.adopt(&model("1")).unwrap();
    let song = folder.path().join("song.mp3");
    fs::write(&song, "of somebody else").unwrap();
    index.record(&[classified(&song, 1, verdict("jazz", 0.9))], id).unwrap();
    let ours = *blake3::hash(b"new bytes").as_bytes();
    index.audio_is_unchanged(&song, &[1; 32], &ours).unwrap();
    let theirs = *blake3::hash(b"of somebody else").as_bytes();
    for digest in [ours, theirs] {
        assert_eq!(index.verdict(&digest, id).unwrap(), None);
    }
    let state = FileState::new(song.clone(), &song.metadata().unwrap());
    assert_eq!(index.knowledge(&state, id, 0).unwrap(), Knowledge::Nothing, "a scan looks at it");
    fs::remove_file(&song).unwrap();
    index.audio_is_unchanged(&song, &[1; 32], &ours).unwrap();
}

#[test]
fn the_library_in_numbers() {
    let folder = folder();
    let statistics = small_library(folder.path()).statistics().unwrap();
    assert_eq!((statistics.tracks, statistics.seconds, statistics.gone), (3, 150.0, 0));
    let genres: Vec<_> = statistics.genres.iter().map(|genre| (genre.genre.as_str(), genre.tracks)).collect();
    assert_eq!(genres, [("jazz", 2), ("unknown", 1)]);
    assert!((statistics.genres[0].mean_confidence - 0.7).abs() < 1e-9);
    assert_eq!(statistics.failures, [FailureStatistics { code: "AUDIO_UNSUPPORTED".to_owned(), files: 1 }]);
    assert_eq!(statistics.models[0].tracks, 3);
}

#[test]
fn what_is_no_index_is_refused_in_words_and_left_as_it_is() {
    let folder = folder();
    let path = folder.path().join("library.sqlite");
    let refusal = |path: &Path| {
        let error = Index::open(path).unwrap_err().to_string();
        match Index::create(path) {
            Err(other) => assert_eq!(other.to_string(), error),
            Ok(_) => assert!(error.contains("`chorale library scan DIR`"), "{error}"),
        }
        error
    };
    assert!(matches!(Index::open(&path), Err(LibraryError::NoIndex(_))));
    fs::write(&path, "").unwrap();
    assert!(refusal(&path).contains("no index"));
    fs::write(&path, "these are not the bytes of a database at all, and it is long enough to be one".repeat(99))
        .unwrap();
    assert!(refusal(&path).contains("is damaged (file is not a database"), "{}", refusal(&path));

    let foreign = folder.path().join("foreign.sqlite");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE songs (id INTEGER)").unwrap();
    let before = fs::read(&foreign).unwrap();
    assert!(refusal(&foreign).contains("no index of a music library"));
    assert_eq!(fs::read(&foreign).unwrap(), before);

    let newer = folder.path().join("newer.sqlite");
    drop(Index::create(&newer).unwrap());
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(refusal(&newer).contains("schema version 99, and this chorale knows those up to 1"));
    assert!(refusal(folder.path()).contains("cannot be used"), "{}", refusal(folder.path()));
}

/// Whatever is in the file, there is an answer or an error.
#[test]
fn a_damaged_index_is_an_error() {
    let folder = folder();
    let whole = {
        let mut index = small_library(folder.path());
        let id = index.adopt(&model("1")).unwrap();
        let many: Vec<_> =
            (0..200_u8).map(|number| classified(format!("/many/{number}"), number, verdict("jazz", 0.5))).collect();
        index.record(&many, id).unwrap();
        let path = index.path().to_owned();
        drop(index);
        fs::read(path).unwrap()
    };
    let path = folder.path().join("damaged.sqlite");
    let use_it = || -> Result<(), LibraryError> {
        let mut index = Index::open(&path)?;
        index.tracks(&Filter::default())?;
        index.statistics()?;
        index.failed_files()?;
        let id = index.adopt(&model("2"))?;
        index.record(&[classified("/m/a.mp3", 1, verdict("blues", 0.6))], id)
    };
    let mut errors = 0;
    for position in (0..whole.len()).step_by(211) {
        let mut bytes = whole.clone();
        for byte in bytes.iter_mut().skip(position).take(150) {
            *byte ^= 0x5a;
        }
        fs::write(&path, bytes).unwrap();
        errors += usize::from(use_it().is_err());
    }
    assert!(errors > 20, "{errors}");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = use_it().unwrap_err().to_string();
    assert!(error.contains("is damaged (") && error.contains("scan again"), "{error}");
}

#[test]
fn values_that_none_of_ours_can_have_are_damage() {
    let folder = folder();
    let index = small_library(folder.path());
    for (column, value) in
        [("probabilities", "'{'"), ("segments", "'[7]'"), ("embedding", "x'00'"), ("warnings", "'7'")]
    {
        let query = format!("UPDATE verdicts SET {column} = {value} WHERE genre = 'unknown'");
        index.connection.execute_batch(&format!("BEGIN; {query}")).unwrap();
        let error = index.tracks(&Filter::default()).unwrap_err();
        assert!(matches!(error, LibraryError::Damaged { .. }), "{column}: {error}");
        index.connection.execute_batch("ROLLBACK").unwrap();
    }
    index.connection.execute_batch("UPDATE files SET digest = x'00' WHERE path = CAST('/n/d.mp3' AS BLOB)").unwrap();
    assert!(matches!(index.tracks(&Filter::default()), Err(LibraryError::Damaged { .. })));
}
