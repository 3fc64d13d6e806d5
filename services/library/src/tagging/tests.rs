//! Tagging as it goes on after a process has died at its worst moments.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::{
    delta::Delta,
    journal::Change,
    replace::{replace, temporary_beside},
    state::TagState,
    tag_file::with_state,
    *,
};
use crate::{Credits, FileState, Filter, Finding, Found, testing};

struct Library {
    folder: tempfile::TempDir,
    index: Index,
    file: PathBuf,
}

impl Library {
    /// One track of jazz.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().canonicalize().unwrap().join("a.mp3");
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/formats/clip.mp3");
        fs::copy(fixture, &file).unwrap();
        let mut index = Index::create(&folder.path().join("library.sqlite")).unwrap();
        let model = index.adopt(&testing::model("1")).unwrap();
        let finding = Finding {
            file: FileState::new(file.clone(), &fs::metadata(&file).unwrap()),
            digest: Some(*blake3::hash(&fs::read(&file).unwrap()).as_bytes()),
            credits: Credits::default(),
            found: Found::Classified(testing::verdict("jazz", 0.75)),
        };
        index.record(&[finding], model).unwrap();
        Self { folder, index, file }
    }

    fn journal(&self) -> Journal {
        Journal::open(&journal_of(self.index.path())).unwrap()
    }

    fn track(&self) -> KnownTrack {
        self.index.tracks(&Filter::default()).unwrap().remove(0)
    }

    /// What a writer would do to the file, and the bytes that it would become.
    fn change(&self) -> (Change, Vec<u8>) {
        let original = fs::read(&self.file).unwrap();
        let state = TagState { genres: vec!["Jazz".to_owned()], heard: Some("jazz".to_owned()), ..TagState::default() };
        let tagged = with_state(&original, &state).unwrap();
        let change = Change {
            path: self.file.clone(),
            original: *blake3::hash(&original).as_bytes(),
            tagged: *blake3::hash(&tagged).as_bytes(),
            modified: fs::metadata(&self.file).unwrap().modified().unwrap(),
            fields: Vec::new(),
            delta: Delta::between(&original, &tagged),
        };
        (change, tagged)
    }

    fn digest(&self) -> [u8; 32] {
        *blake3::hash(&fs::read(&self.file).unwrap()).as_bytes()
    }

    fn undo(&mut self, run: Option<i64>) -> Result<i64, LibraryError> {
        let journal = journal_of(self.index.path());
        undo_tags(&mut self.index, &journal, run, |_, outcome| outcome.unwrap())
    }

    /// Tags the file, and returns the number of the run.
    fn tag(&mut self) -> Option<i64> {
        let (tracks, journal) = ([self.track()], journal_of(self.index.path()));
        let write = |_: &KnownTrack, outcome: Result<TagAction, LibraryError>| drop(outcome.unwrap());
        write_tags(&mut self.index, &journal, &tracks, ExistingGenre::Overwrite, write).unwrap()
    }

    /// The model thinks better of it, and the file is tagged again.
    fn tag_again(&mut self, genre: &str) -> Option<i64> {
        let model = self.index.adopt(&testing::model("1")).unwrap();
        let finding = Finding {
            file: FileState::new(self.file.clone(), &fs::metadata(&self.file).unwrap()),
            digest: Some(self.digest()),
            credits: Credits::default(),
            found: Found::Classified(testing::verdict(genre, 0.75)),
        };
        self.index.record(&[finding], model).unwrap();
        self.tag()
    }

    /// Why the file could not be restored.
    fn undo_in_vain(&mut self, run: Option<i64>) -> (i64, String) {
        let journal = journal_of(self.index.path());
        let mut why = String::new();
        let run = undo_tags(&mut self.index, &journal, run, |_, outcome| why = outcome.unwrap_err().to_string());
        (run.unwrap(), why)
    }

    fn runs(&self) -> Vec<(i64, bool)> {
        let runs = tag_runs(&journal_of(self.index.path())).unwrap();
        runs.iter().map(|run| (run.run, run.tried)).collect()
    }

    fn files(&self) -> usize {
        let hidden = |name: &str| name.starts_with(".chorale-");
        let entries = fs::read_dir(self.folder.path()).unwrap();
        entries.filter(|entry| hidden(&entry.as_ref().unwrap().file_name().to_string_lossy())).count()
    }
}

#[test]
fn a_process_that_died_before_it_put_the_file_in_place_has_done_nothing() {
    let mut library = Library::new();
    let (change, tagged) = library.change();
    let temporary = temporary_beside(&library.file);
    let mut journal = library.journal();
    let run = journal.begin().unwrap();
    journal.announce(run, &change, &temporary).unwrap();
    fs::write(&temporary, &tagged[..1_000]).unwrap();
    drop(journal);

    assert!(matches!(library.undo(None), Err(LibraryError::NoRun(runs)) if runs.is_empty()));
    assert_eq!(library.files(), 0, "what it left is gone");
    assert_eq!((library.digest(), library.track().digest), (change.original, change.original));
}

#[test]
fn a_process_that_died_after_it_put_the_file_in_place_has_done_all_of_it() {
    let mut library = Library::new();
    let (change, tagged) = library.change();
    let temporary = temporary_beside(&library.file);
    let mut journal = library.journal();
    let run = journal.begin().unwrap();
    journal.announce(run, &change, &temporary).unwrap();
    replace(&library.file, &temporary, &tagged, &fs::metadata(&library.file).unwrap(), None).unwrap();
    drop(journal);
    assert_eq!(library.track().digest, change.original, "the index does not know yet");

    let journal = library.journal();
    drop(Writer::new(&mut library.index, journal).unwrap());
    assert_eq!(library.track().digest, change.tagged);
    assert_eq!(library.track().confidence, 0.75, "the verdict is the same");
    assert_eq!(library.undo(Some(run)).unwrap(), run);
    assert_eq!((library.digest(), library.track().digest), (change.original, change.original));
}

#[test]
fn a_process_that_died_in_an_undo_lets_the_next_one_finish() {
    let mut library = Library::new();
    let original = fs::read(&library.file).unwrap();
    let tracks = [library.track()];
    let journal = journal_of(library.index.path());
    let run = write_tags(&mut library.index, &journal, &tracks, ExistingGenre::Keep, |_, outcome| {
        assert!(matches!(outcome.unwrap(), TagAction::Change(_)));
    });
    let run = run.unwrap().unwrap();
    assert_ne!(library.digest(), tracks[0].digest);
    // Put back, and nobody told.
    fs::write(&library.file, &original).unwrap();
    assert_eq!(library.undo(Some(run)).unwrap(), run);
    assert_eq!(library.track().digest, tracks[0].digest);
    assert!(tag_runs(&journal).unwrap().is_empty());
}

#[test]
fn one_process_writes_tags_at_a_time() {
    let mut library = Library::new();
    let held = library.journal();
    assert!(matches!(library.undo(None), Err(LibraryError::JournalBusy(_))));
    drop(held);
    assert!(matches!(library.undo(None), Err(LibraryError::NoRun(_))));
}

#[test]
fn a_link_stays_a_link() {
    let mut library = Library::new();
    let target = library.file.with_file_name("target.mp3");
    fs::rename(&library.file, &target).unwrap();
    std::os::unix::fs::symlink(&target, &library.file).unwrap();
    let tracks = [library.track()];
    let journal = journal_of(library.index.path());
    write_tags(&mut library.index, &journal, &tracks, ExistingGenre::Keep, |_, outcome| drop(outcome.unwrap()))
        .unwrap();
    assert!(fs::symlink_metadata(&library.file).unwrap().is_symlink());
    assert_ne!(library.digest(), tracks[0].digest);
    assert_eq!(library.track().digest, library.digest());
}

#[test]
fn two_indexes_beside_each_other_have_journals_of_their_own() {
    assert_eq!(journal_of(Path::new("/a/library.sqlite")), Path::new("/a/library.sqlite.undo"));
    assert_ne!(journal_of(Path::new("music.a")), journal_of(Path::new("music.b")));
}

#[test]
fn an_undo_does_not_wait_for_the_other_end_of_a_pipe() {
    let mut library = Library::new();
    let run = library.tag().unwrap();
    fs::remove_file(&library.file).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &library.file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (undone, why) = library.undo_in_vain(None);
    assert_eq!(undone, run);
    assert!(why.ends_with("cannot be read: it is no file"), "{why}");
}

#[test]
fn a_run_that_cannot_be_undone_does_not_stand_before_the_others() {
    let mut library = Library::new();
    let original = library.digest();
    let first = library.tag().unwrap();
    let tagged = fs::read(&library.file).unwrap();
    let second = library.tag_again("hip hop").unwrap();
    let tagged_again = fs::read(&library.file).unwrap();
    assert_eq!(library.undo_in_vain(Some(first)).1, format!("run {second} has changed it since; undo that first"));
    assert_eq!(library.runs(), [(second, false), (first, false)], "it is undone in its turn");

    fs::write(&library.file, "of somebody else").unwrap();
    let why = "it was changed since it was tagged, so it is left alone".to_owned();
    assert_eq!(library.undo_in_vain(None), (second, why.clone()));
    assert_eq!(library.undo_in_vain(None), (first, why));
    assert_eq!(library.runs(), [(second, true), (first, true)], "nothing is forgotten");
    assert!(matches!(library.undo(None), Err(LibraryError::AllTried(runs)) if runs == [second, first]));

    fs::write(&library.file, tagged_again).unwrap();
    assert_eq!(library.undo(Some(second)).unwrap(), second, "what is named is tried again");
    assert_eq!(fs::read(&library.file).unwrap(), tagged);
    assert_eq!(library.undo(Some(first)).unwrap(), first);
    assert_eq!(library.digest(), original);
    assert!(matches!(library.undo(None), Err(LibraryError::NoRun(runs)) if runs.is_empty()));
}

#[test]
fn a_file_that_was_made_read_only_is_not_restored() {
    let mut library = Library::new();
    let run = library.tag().unwrap();
    let set = |mode| fs::set_permissions(&library.file, fs::Permissions::from_mode(mode)).unwrap();
    set(0o444);
    let tagged = library.digest();
    assert_eq!(library.undo_in_vain(None), (run, LibraryError::ReadOnly.to_string()));
    assert_eq!(library.digest(), tagged);
}

#[test]
fn a_file_that_could_not_be_replaced_is_no_change() {
    let mut library = Library::new();
    let (change, tagged) = library.change();
    let other = fs::metadata(library.folder.path()).unwrap();
    let journal = library.journal();
    let mut writer = Writer::new(&mut library.index, journal).unwrap();
    let error = writer.put(&change, &library.file, &tagged, &other).unwrap_err();
    assert!(error.to_string().contains("by somebody else meanwhile"), "{error}");
    assert_eq!(writer.run(), None);
    drop(writer);
    assert_eq!((library.runs(), library.files(), library.digest()), (Vec::new(), 0, change.original));
}

#[test]
fn what_a_file_has_beside_its_bytes_stays() {
    let mut library = Library::new();
    let name = "user.chorale.test";
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(&library.file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set(name, b"rated 5");
    // Version 2: the owner writes, user 12345 reads, the group and others do not.
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let list = [(1, 6, none), (2, 4, 12_345), (4, 0, none), (0x10, 4, none), (0x20, 0, none)];
    let list: Vec<u8> = list
        .into_iter()
        .fold(vec![2, 0, 0, 0], |list, (tag, permissions, id)| [list, entry(tag, permissions, id)].concat());
    set("system.posix_acl_access", &list);
    let get = |library: &Library, name: &str| {
        let mut value = vec![0; 100];
        let length = rustix::fs::getxattr(&library.file, name, &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    let before = library.digest();
    library.tag();
    for undone in [false, true] {
        assert_eq!(get(&library, name), b"rated 5");
        assert_eq!(get(&library, "system.posix_acl_access"), list);
        assert_eq!(fs::metadata(&library.file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(library.digest() == before, undone);
        if !undone {
            library.undo(None).unwrap();
        }
    }
}

#[test]
fn a_list_that_the_folder_gives_to_new_files_does_not_open_old_ones() {
    let mut library = Library::new();
    fs::set_permissions(&library.file, fs::Permissions::from_mode(0o600)).unwrap();
    let everybody = [
        &[2, 0, 0, 0][..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 6, 0, 57, 48, 0, 0],
        &[4, 0, 6, 0, 255, 255, 255, 255],
        &[16, 0, 6, 0, 255, 255, 255, 255],
        &[32, 0, 6, 0, 255, 255, 255, 255],
    ];
    let name = "system.posix_acl_default";
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(library.folder.path(), name, &everybody.concat(), flags).unwrap();
    library.tag();
    let mut room = [0; 100];
    let names = rustix::fs::listxattr(&library.file, &mut room[..]).unwrap();
    assert_eq!(names, 0, "{}", String::from_utf8_lossy(&room[..names]));
    assert_eq!(fs::metadata(&library.file).unwrap().permissions().mode() & 0o777, 0o600);
}

fn jazz() -> TagState {
    TagState { genres: vec!["Jazz".to_owned()], ..TagState::default() }
}

#[test]
fn a_tag_that_could_not_be_kept_is_left_alone() {
    let fixture =
        |name: &str| fs::read(format!("{}/../../tests/fixtures/formats/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    // An artist in Latin-1, as old programs write it: lofty passes over what is no UTF-8.
    let mut wav = fixture("clip.wav");
    let list = b"LIST\x12\0\0\0INFOIART\x06\0\0\0Bj\xf6rk\0";
    wav.extend_from_slice(list);
    let size = u32::try_from(wav.len() - 8).unwrap().to_le_bytes();
    wav[4..8].copy_from_slice(&size);
    assert!(matches!(with_state(&wav, &jazz()), Err(LibraryError::Tags(_))));
    assert!(with_state(&fixture("clip.wav"), &jazz()).is_ok());

    // Two artists in frames of their own: one of them is all that lofty has.
    let mp3 = fixture("clip.mp3");
    let sound =
        if mp3.starts_with(b"ID3") { &mp3[10 + usize::from(mp3[8]) * 128 + usize::from(mp3[9])..] } else { &mp3[..] };
    let frame = |name: &[u8]| [b"TPE1\0\0\0\x04\0\0\0", name].concat();
    let tag =
        |frames: &[u8]| [b"ID3\x03\0\0\0\0\0", &[u8::try_from(frames.len()).unwrap()][..], frames, sound].concat();
    assert!(with_state(&tag(&frame(b"Ann")), &jazz()).is_ok());
    let twice = with_state(&tag(&[frame(b"Ann"), frame(b"Bob")].concat()), &jazz()).unwrap_err();
    assert!(twice.to_string().contains("TPE1"), "{twice}");
}

#[test]
fn a_database_of_somebody_else_is_no_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("somebody.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(Journal::open(&path).err(), Some(LibraryError::ForeignJournal(_))));
    assert_eq!(fs::read(&path).unwrap(), before);
    // An index is another one's, too.
    let path = folder.path().join("library.sqlite");
    drop(Index::create(&path).unwrap());
    assert!(matches!(Journal::open(&path).err(), Some(LibraryError::ForeignJournal(_))));
}
