//! Which tracks there are, of which genre, in which split.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use chorale_feature::{Event, FeatureError, Limits, analyze_file, has_audio_extension};
use walkdir::WalkDir;

use crate::{Result, TrainerError, mel_file::MelFile};

const MEL_FILE: &str = "mel_u8.npy";
const TABLE_FILE: &str = "tracks.csv";
const MAX_TABLE_BYTES: u64 = 256 << 20;
const FLOOR_DB_RANGE: std::ops::RangeInclusive<f32> = -200.0..=-1.0;
/// Out of a hundred tracks of a genre, how many are for training and for validation where the data has no split.
const TRAIN_PERCENT: usize = 70;
const VALID_PERCENT: usize = 15;

/// One labelled track.
#[derive(Clone, Debug)]
pub struct Track {
    /// Its name, which no other track of the catalogue has.
    pub name: String,
    /// What it is.
    pub genre: String,
    /// What it is for: `train`, `valid`, `test`, or any other word.
    pub split: String,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Mel { row: u64, floor_db: f32 },
    Audio(PathBuf),
}

/// Labelled tracks.
#[derive(Debug)]
pub struct Catalogue {
    tracks: Vec<Track>,
    mel: Option<MelFile>,
}

impl Catalogue {
    /// Opens labelled data in one of these layouts:
    ///
    /// - a folder with `mel_u8.npy` (uint8 `[track, 128, frames]`) and `tracks.csv` with the columns `row`, `track`,
    ///   `genre`, `floor_db` and, if wanted, `split`;
    /// - a CSV file, or a folder with `tracks.csv`, with the columns `file` (relative to the CSV file), `genre` and, if
    ///   wanted, `split` and `track`;
    /// - a folder with one subfolder of audio a genre.
    ///
    /// Other columns are ignored, and so are files that are not called as audio is. Data without splits is split by track and
    /// genre into 70 % `train`, 15 % `valid` and 15 % `test`, always in the same way for the same names and `seed`. Of few
    /// tracks, one is for `valid`, and none for `test`.
    ///
    /// # Errors
    /// Where the path is no such data, or a file is damaged: the message names the file and line.
    pub fn open(path: &Path, seed: u64) -> Result<Self> {
        let mel_path = path.join(MEL_FILE);
        let table_path = if path.is_dir() { path.join(TABLE_FILE) } else { path.to_owned() };
        let (rows, mel) = if mel_path.is_file() {
            let mel = MelFile::open(&mel_path)?;
            (mel_rows(&table_path, &mel)?, Some(mel))
        } else if table_path.is_file() {
            (file_rows(&table_path, "genre")?, None)
        } else {
            (folder_rows(path, None)?, None)
        };
        if rows.is_empty() {
            return Err(TrainerError::UnknownLayout { path: path.to_owned() });
        }
        Ok(Self { tracks: with_splits(rows, seed)?, mel })
    }

    /// Opens audio that is no music, whose genre is a kind: a CSV file, or a folder with `tracks.csv`, with the columns
    /// `file` and `kind`; or a folder that is searched for audio, where a kind is a subfolder, or the folder itself.
    ///
    /// # Errors
    /// Where the path is no such data.
    pub(crate) fn open_not_music(path: &Path) -> Result<Self> {
        let table_path = if path.is_dir() { path.join(TABLE_FILE) } else { path.to_owned() };
        let rows = if table_path.is_file() {
            file_rows(&table_path, "kind")?
        } else {
            let own_name = path.file_name().map_or("other".into(), |name| name.to_string_lossy());
            folder_rows(path, Some(&own_name))?
        };
        if rows.is_empty() {
            return Err(TrainerError::NoFiles { path: path.to_owned() });
        }
        Ok(Self { tracks: with_splits(rows, 0)?, mel: None })
    }

    /// All tracks.
    #[must_use]
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The tracks of one split, at least one.
    ///
    /// # Errors
    /// [`TrainerError::NoSuchSplit`].
    pub fn split(&self, split: &str) -> Result<Vec<&Track>> {
        let tracks: Vec<&Track> = self.tracks.iter().filter(|track| track.split == split).collect();
        if tracks.is_empty() {
            let known: BTreeSet<&String> = self.tracks.iter().map(|track| &track.split).collect();
            let known = known.into_iter().cloned().collect();
            return Err(TrainerError::NoSuchSplit { split: split.to_owned(), known });
        }
        Ok(tracks)
    }

    /// The voting chunks of a track, as bytes of the feature contract.
    ///
    /// # Errors
    /// Where its features or its audio cannot be read.
    pub fn chunks(&self, track: &Track) -> Result<Vec<Vec<u8>>> {
        match (&track.source, &self.mel) {
            (Source::Mel { row, floor_db }, Some(mel)) => Ok(MelFile::chunks(&mel.row(*row)?, *floor_db)),
            (Source::Mel { .. }, None) => Ok(Vec::new()),
            (Source::Audio(path), _) => Ok(audio_chunks(path)?),
        }
    }
}

fn audio_chunks(path: &Path) -> std::result::Result<Vec<Vec<u8>>, FeatureError> {
    let mut chunks = Vec::new();
    analyze_file(path, &Limits::default(), &mut |event| {
        if let Event::Chunk(chunk) = event
            && !chunk.is_silent()
        {
            chunks.push(chunk.quantize().cells.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    Ok(chunks)
}

/// A track before every track has a split.
struct Row {
    name: String,
    genre: String,
    split: Option<String>,
    source: Source,
}

fn mel_rows(path: &Path, mel: &MelFile) -> Result<Vec<Row>> {
    let table = Table::read(path, &["row", "track", "genre", "floor_db"])?;
    let mut rows = Vec::new();
    for line in &table.lines {
        let [row, name, genre, floor_db] = &line.required[..] else { continue };
        let row = row.parse::<u64>().ok().filter(|row| *row < mel.tracks()).ok_or_else(|| {
            table.wrong(line, format!("row: expected a number under {}, found {row:?}", mel.tracks()))
        })?;
        let floor_db = floor_db.parse::<f32>().ok().filter(|floor_db| FLOOR_DB_RANGE.contains(floor_db));
        let floor_db = floor_db.ok_or_else(|| {
            table.wrong(line, format!("floor_db: expected {FLOOR_DB_RANGE:?} dB, found {:?}", line.required.last()))
        })?;
        let source = Source::Mel { row, floor_db };
        rows.push(Row { name: name.clone(), genre: genre.clone(), split: line.split.clone(), source });
    }
    table.check_names(&rows)?;
    Ok(rows)
}

fn file_rows(path: &Path, genre_column: &str) -> Result<Vec<Row>> {
    let table = Table::read(path, &["file", genre_column])?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut rows = Vec::new();
    for line in &table.lines {
        let [file, genre] = &line.required[..] else { continue };
        let name = line.track.as_ref().unwrap_or(file).clone();
        let source = Source::Audio(folder.join(file));
        rows.push(Row { name, genre: genre.clone(), split: line.split.clone(), source });
    }
    table.check_names(&rows)?;
    Ok(rows)
}

/// The audio below a folder, by its subfolders; what is in the folder itself is of the genre `own`, or left out.
fn folder_rows(folder: &Path, own: Option<&str>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let visible =
        |entry: &walkdir::DirEntry| entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.');
    let entries = WalkDir::new(folder).min_depth(1).follow_links(true).sort_by_file_name();
    for entry in entries.into_iter().filter_entry(visible) {
        let entry = entry.map_err(|error| TrainerError::Read {
            path: error.path().unwrap_or(folder).to_owned(),
            source: error.into(),
        })?;
        let relative = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let subfolder = relative.components().next().filter(|_| entry.depth() > 1);
        let genre = subfolder.map(|name| name.as_os_str().to_string_lossy()).or(own.map(Into::into));
        let is_audio = entry.file_type().is_file() && has_audio_extension(entry.path());
        let Some(genre) = genre.filter(|_| is_audio) else { continue };
        rows.push(Row {
            name: relative.to_string_lossy().into_owned(),
            genre: genre.into_owned(),
            split: None,
            source: Source::Audio(entry.path().to_owned()),
        });
    }
    Ok(rows)
}

fn with_splits(rows: Vec<Row>, seed: u64) -> Result<Vec<Track>> {
    let mut assigned = HashMap::new();
    if rows.iter().all(|row| row.split.is_none()) {
        assigned = assign_splits(&rows, seed);
    }
    rows.into_iter()
        .map(|row| {
            let split = row.split.or_else(|| assigned.get(&row.name).map(|split| (*split).to_owned()));
            let split = split.ok_or_else(|| TrainerError::PartlySplit(row.name.clone()))?;
            Ok(Track { name: row.name, genre: row.genre, split, source: row.source })
        })
        .collect()
}

/// A split for every track: within each genre, tracks are put in the order of a hash of their names.
fn assign_splits(rows: &[Row], seed: u64) -> HashMap<String, &'static str> {
    let mut genres: HashMap<&str, Vec<(blake3::Hash, &str)>> = HashMap::new();
    for row in rows {
        let hash = *blake3::Hasher::new().update(&seed.to_le_bytes()).update(row.name.as_bytes()).finalize().as_bytes();
        genres.entry(&row.genre).or_default().push((hash.into(), &row.name));
    }
    let mut splits = HashMap::new();
    for tracks in genres.values_mut() {
        tracks.sort_by_key(|(hash, _)| *hash.as_bytes());
        // Of few tracks, one is left to validate on.
        let most = tracks.len().saturating_sub(1).max(1);
        let train = (tracks.len() * TRAIN_PERCENT).div_ceil(100).min(most);
        let valid = train + (tracks.len() * VALID_PERCENT).div_ceil(100);
        for (rank, (_, name)) in tracks.iter().enumerate() {
            let split = match rank {
                rank if rank < train => "train",
                rank if rank < valid => "valid",
                _ => "test",
            };
            splits.insert((*name).to_owned(), split);
        }
    }
    splits
}

/// A CSV file with a header.
struct Table {
    path: PathBuf,
    lines: Vec<Line>,
}

struct Line {
    number: u64,
    /// The values of the columns asked for, in that order.
    required: Vec<String>,
    split: Option<String>,
    track: Option<String>,
}

impl Table {
    fn read(path: &Path, required: &[&str]) -> Result<Self> {
        let read_error = |source| TrainerError::Read { path: path.to_owned(), source };
        let wrong = |line, what| TrainerError::Table { path: path.to_owned(), line, what };
        let file = File::open(path).map_err(read_error)?;
        let bytes = file.metadata().map_err(read_error)?.len();
        if bytes > MAX_TABLE_BYTES {
            return Err(wrong(1, format!("expected a table of at most {MAX_TABLE_BYTES} bytes, found {bytes}")));
        }
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
        let header = reader.headers().map_err(|error| wrong(1, error.to_string()))?.clone();
        let column = |name: &str| header.iter().position(|column| column == name);
        let positions = (required.iter())
            .map(|name| {
                let missing = || {
                    format!(
                        "expected the columns {}, found {}",
                        required.join(","),
                        header.iter().collect::<Vec<_>>().join(",")
                    )
                };
                column(name).ok_or_else(|| wrong(1, missing()))
            })
            .collect::<Result<Vec<_>>>()?;
        let (split, track) = (column("split"), column("track"));
        let mut lines = Vec::new();
        for record in reader.records() {
            let record =
                record.map_err(|error| wrong(error.position().map_or(1, csv::Position::line), error.to_string()))?;
            let number = record.position().map_or(1, csv::Position::line);
            let value = |column: usize| record.get(column).filter(|value| !value.is_empty()).map(str::to_owned);
            let required = (positions.iter().zip(required))
                .map(|(column, name)| {
                    value(*column).ok_or_else(|| wrong(number, format!("{name}: expected a value, found none")))
                })
                .collect::<Result<Vec<_>>>()?;
            lines.push(Line { number, required, split: split.and_then(value), track: track.and_then(value) });
        }
        Ok(Self { path: path.to_owned(), lines })
    }

    fn wrong(&self, line: &Line, what: String) -> TrainerError {
        TrainerError::Table { path: self.path.clone(), line: line.number, what }
    }

    /// A track in two splits would be learnt and then examined.
    fn check_names(&self, rows: &[Row]) -> Result<()> {
        let mut names = HashSet::new();
        match rows.iter().zip(&self.lines).find(|(row, _)| !names.insert(&row.name)) {
            Some((row, line)) => Err(self.wrong(line, format!("the track `{}` is listed twice", row.name))),
            None => Ok(()),
        }
    }
}

/// The names in the column `track` of a CSV file.
pub(crate) fn track_list(path: &Path) -> Result<Vec<String>> {
    let table = Table::read(path, &["track"])?;
    Ok(table.lines.into_iter().filter_map(|line| line.track).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn error_of(files: &[(&str, &str)]) -> String {
        Catalogue::open(folder(files).path(), 0).unwrap_err().to_string()
    }

    #[test]
    fn a_table_of_files_is_read_by_its_own_path_or_its_folder() {
        let folder = folder(&[("tracks.csv", "genre,extra,file,split\nrock,1,a.mp3,train\n\"jazz\",2, b.mp3 ,test\n")]);
        for path in [folder.path().to_owned(), folder.path().join("tracks.csv")] {
            let catalogue = Catalogue::open(&path, 0).unwrap();
            let found: Vec<_> =
                catalogue.tracks().iter().map(|track| (&*track.name, &*track.genre, &*track.split)).collect();
            assert_eq!(found, [("a.mp3", "rock", "train"), ("b.mp3", "jazz", "test")]);
            assert_eq!(catalogue.split("test").unwrap().len(), 1);
            let error = catalogue.split("valid").unwrap_err().to_string();
            assert_eq!(error, "no track is in the split `valid`: the data has test, train");
        }
    }

    #[test]
    fn subfolders_are_genres_and_what_is_hidden_or_no_audio_is_left_out() {
        let files = ["rock/a.mp3", "rock/disc/b.MP3", "rock/disc/cover.jpg", "jazz/.c.mp3", "readme.txt", "song.mp3"];
        let folder = folder(&files.map(|file| (file, "")));
        let catalogue = Catalogue::open(folder.path(), 0).unwrap();
        let found: Vec<_> = catalogue.tracks().iter().map(|track| (&*track.name, &*track.genre)).collect();
        assert_eq!(found, [("rock/a.mp3", "rock"), ("rock/disc/b.MP3", "rock")]);
    }

    #[cfg(unix)]
    #[test]
    fn links_to_music_elsewhere_are_followed() {
        let elsewhere = folder(&[("album/1.mp3", ""), ("2.mp3", "")]);
        let folder = folder(&[("rock/3.mp3", "")]);
        for (target, link) in [("album", "rock/album"), ("2.mp3", "rock/2.mp3")] {
            std::os::unix::fs::symlink(elsewhere.path().join(target), folder.path().join(link)).unwrap();
        }
        let catalogue = Catalogue::open(folder.path(), 0).unwrap();
        let names: Vec<_> = catalogue.tracks().iter().map(|track| &*track.name).collect();
        assert_eq!(names, ["rock/2.mp3", "rock/3.mp3", "rock/album/1.mp3"]);
    }

    #[test]
    fn few_tracks_of_a_genre_are_enough_to_learn_from_and_to_validate_on() {
        for (tracks, expected) in [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [2, 1, 0]), (4, [3, 1, 0]), (7, [5, 2, 0])] {
            let files: Vec<String> = (0..tracks).map(|track| format!("rock/{track}.mp3")).collect();
            let files: Vec<(&str, &str)> = files.iter().map(|file| (file.as_str(), "")).collect();
            let catalogue = Catalogue::open(folder(&files).path(), 1).unwrap();
            let count = |split: &str| catalogue.tracks().iter().filter(|track| track.split == split).count();
            assert_eq!(["train", "valid", "test"].map(count), expected, "{tracks}");
        }
    }

    #[test]
    fn what_is_no_music_may_lie_in_subfolders_in_none_or_in_a_table() {
        let kinds = |path: &Path| -> Vec<(String, String)> {
            let catalogue = Catalogue::open_not_music(path).unwrap();
            catalogue.tracks().iter().map(|track| (track.name.clone(), track.genre.clone())).collect()
        };
        let pair = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        let files = folder(&[("sounds/speech/de/a.flac", ""), ("sounds/b.wav", ""), ("empty/.keep", "")]);
        let found = kinds(&files.path().join("sounds"));
        assert_eq!(found, [pair("b.wav", "sounds"), pair("speech/de/a.flac", "speech")]);
        let table = folder(&[("tracks.csv", "file,kind\na.flac,noise\n")]);
        assert_eq!(kinds(table.path()), [pair("a.flac", "noise")]);
        let error = Catalogue::open_not_music(&files.path().join("empty")).unwrap_err().to_string();
        assert!(error.contains("expected a folder of audio that is no music"), "{error}");
    }

    #[test]
    fn a_split_is_made_where_there_is_none_and_is_always_the_same() {
        let lines: String = (0..40).map(|index| format!("{index}.mp3,{}\n", index % 2)).collect();
        let folder = folder(&[("tracks.csv", &format!("file,genre\n{lines}"))]);
        let splits = |seed| -> Vec<String> {
            let catalogue = Catalogue::open(folder.path(), seed).unwrap();
            catalogue.tracks().iter().map(|track| track.split.clone()).collect()
        };
        let count = |split: &str| splits(1).iter().filter(|found| *found == split).count();
        assert_eq!((count("train"), count("valid"), count("test")), (28, 6, 6));
        assert_eq!(splits(1), splits(1));
        assert_ne!(splits(1), splits(2));
    }

    #[test]
    fn what_is_wrong_with_a_table_is_said_with_its_line() {
        for (text, expected) in [
            ("file,label\na,b\n", "line 1: expected the columns file,genre, found file,label"),
            ("file,genre\na.mp3,rock\nb.mp3\n", "line 3: "),
            ("file,genre\na.mp3,\n", "line 2: genre: expected a value, found none"),
            ("file,genre\na.mp3,rock\na.mp3,jazz\n", "line 3: the track `a.mp3` is listed twice"),
            ("file,genre,split\na.mp3,rock,train\nb.mp3,rock,\n", "track `b.mp3` has no split, but others have"),
            ("file,genre\n", "holds no labelled tracks"),
        ] {
            let error = error_of(&[("tracks.csv", text)]);
            assert!(error.contains(expected), "{error}");
        }
        assert!(error_of(&[("notes.txt", "")]).contains("holds no labelled tracks"));
        assert!(Catalogue::open(Path::new("/nowhere/at/all"), 0).is_err());
    }

    #[test]
    fn rows_of_a_mel_table_must_be_in_the_array() {
        let npy = {
            let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 128, 96), }\n";
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend((0..2 * 128 * 96).map(|cell| (cell % 251) as u8));
            bytes
        };
        let open = |table: &str| {
            let folder = folder(&[("tracks.csv", table)]);
            fs::write(folder.path().join("mel_u8.npy"), &npy).unwrap();
            let catalogue = Catalogue::open(folder.path(), 0)?;
            catalogue.chunks(&catalogue.tracks()[0])
        };
        let chunks = open("row,track,genre,split,floor_db\n1,a,rock,train,-80.000\n").unwrap();
        assert_eq!((chunks.len(), chunks[0].len()), (1, 128 * 96));
        for (row, expected) in [
            ("2,a,rock,train,-80", "line 2: row: expected a number under 2, found \"2\""),
            ("-1,a,rock,train,-80", "line 2: row: expected"),
            ("1,a,rock,train,NaN", "line 2: floor_db: expected"),
            ("1,a,rock,train,0", "line 2: floor_db: expected"),
        ] {
            let error = open(&format!("row,track,genre,split,floor_db\n{row}\n")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
