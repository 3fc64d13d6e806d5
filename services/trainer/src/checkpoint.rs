//! The state of an unfinished run on disk.
//!
//! `progress.json` names the file of arrays that belongs to it, and is replaced last: a run that ends half-way through a
//! checkpoint, or a disk that is full, leaves the one before whole.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use chorale_model::Weights;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{EpochScores, Result, TrainerError};

const PROGRESS_FILE: &str = "progress.json";
const ARRAYS_PREFIX: &str = "arrays-";
const HASH_KEY: &str = "chorale";

/// What a run is: a checkpoint of another one cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The network.
    pub architecture: String,
    /// The hash of the labels, and of all chunks to train and validate on.
    pub data: String,
    /// Every option that changes the result.
    pub options: Value,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunProgress {
    pub(crate) identity: Identity,
    /// Epochs that are done.
    pub(crate) epochs: usize,
    /// Steps that are done.
    pub(crate) steps: u64,
    /// The best epoch so far, from 1.
    pub(crate) best_epoch: usize,
    pub(crate) history: Vec<EpochScores>,
    /// The name of the file of arrays.
    arrays: String,
}

impl RunProgress {
    pub(crate) fn new(
        identity: Identity,
        epochs: usize,
        steps: u64,
        best_epoch: usize,
        history: Vec<EpochScores>,
    ) -> Self {
        Self { identity, epochs, steps, best_epoch, history, arrays: String::new() }
    }
}

/// The folder that a run keeps its state in.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
}

impl Checkpoint {
    /// The checkpoint in `folder`, whether it is there or not.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether there is one.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.folder.join(PROGRESS_FILE).exists()
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Replaces the checkpoint.
    ///
    /// # Errors
    /// [`TrainerError::Write`]; the checkpoint before is whole then.
    pub(crate) fn save(&self, mut progress: RunProgress, arrays: &Weights) -> Result<()> {
        let write_error = |source| TrainerError::Write { path: self.folder.clone(), source };
        fs::create_dir_all(&self.folder).map_err(write_error)?;
        let bytes = arrays.to_safetensors((HASH_KEY, progress.identity.data.clone()))?;
        progress.arrays =
            format!("{ARRAYS_PREFIX}{}-{}.safetensors", progress.epochs, &blake3::hash(&bytes).to_hex()[..32]);
        self.write(&progress.arrays, &bytes)?;
        let text = serde_json::to_vec_pretty(&progress).map_err(|error| self.broken(error.to_string()))?;
        self.write(PROGRESS_FILE, &text)?;
        self.remove_arrays(Some(&progress.arrays));
        Ok(())
    }

    /// The checkpoint of this run.
    ///
    /// # Errors
    /// [`TrainerError::NoCheckpoint`], [`TrainerError::Checkpoint`] where it is damaged, or [`TrainerError::OtherRun`]
    /// where it is of another run.
    pub(crate) fn load(&self, identity: &Identity) -> Result<(RunProgress, Weights)> {
        if !self.exists() {
            return Err(TrainerError::NoCheckpoint { path: self.folder.clone() });
        }
        let read = |name: &str| {
            let path = self.folder.join(name);
            fs::read(&path).map_err(|source| TrainerError::Read { path, source })
        };
        let progress: RunProgress =
            serde_json::from_slice(&read(PROGRESS_FILE)?).map_err(|error| self.broken(error.to_string()))?;
        if let Some(what) = difference(identity, &progress.identity) {
            return Err(TrainerError::OtherRun { path: self.folder.clone(), what });
        }
        let named = Path::new(&progress.arrays).file_name().is_some_and(|name| name == progress.arrays.as_str());
        if !named {
            return Err(self.broken(format!("arrays: expected the name of a file, found {:?}", progress.arrays)));
        }
        let bytes = read(&progress.arrays)?;
        let hash = blake3::hash(&bytes).to_hex();
        if !hash.get(..32).is_some_and(|hash| progress.arrays.contains(hash)) {
            return Err(self.broken(format!("{} is damaged", progress.arrays)));
        }
        let (arrays, _) = Weights::from_safetensors(&bytes)?;
        Ok((progress, arrays))
    }

    /// Removes the checkpoint, and its folder if nothing else is in it.
    pub(crate) fn remove(&self) {
        // Progress first: arrays without it are nothing, but it is broken without them. What is left is only untidy.
        let _ = fs::remove_file(self.folder.join(PROGRESS_FILE));
        self.remove_arrays(None);
        let _ = fs::remove_dir(&self.folder);
    }

    /// Removes all arrays but those of this name.
    fn remove_arrays(&self, kept: Option<&str>) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let ours = name.trim_start_matches('.').starts_with(ARRAYS_PREFIX);
            if ours && Some(&*name) != kept {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        let unfinished = self.folder.join(format!(".{name}"));
        let written = File::create(&unfinished)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&unfinished, &path))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        written.map_err(|source| {
            // The write has failed already; what is left over is only untidy.
            let _ = fs::remove_file(&unfinished);
            TrainerError::Write { path, source }
        })
    }

    fn broken(&self, what: String) -> TrainerError {
        TrainerError::Checkpoint { path: self.folder.clone(), what }
    }
}

/// The first thing in which two runs differ, in words.
fn difference(wanted: &Identity, found: &Identity) -> Option<String> {
    if wanted.architecture != found.architecture {
        return Some(format!("its network is {}, not {}", found.architecture, wanted.architecture));
    }
    if wanted.options != found.options {
        return Some(option_difference("", &wanted.options, &found.options));
    }
    (wanted.data != found.data).then(|| "its tracks are not those of this run".to_owned())
}

fn option_difference(name: &str, wanted: &Value, found: &Value) -> String {
    if let (Value::Object(wanted), Value::Object(found)) = (wanted, found) {
        let keys = wanted.keys().chain(found.keys().filter(|key| !wanted.contains_key(*key)));
        let value = |object: &serde_json::Map<String, Value>, key| object.get(key).cloned().unwrap_or_default();
        let mut pairs = keys.map(|key| (key, value(wanted, key), value(found, key)));
        if let Some((key, wanted, found)) = pairs.find(|(_, wanted, found)| wanted != found) {
            return option_difference(&key.replace('_', " "), &wanted, &found);
        }
    }
    format!("its {name} is {found}, not {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chorale_model::Array;
    use serde_json::json;

    fn identity() -> Identity {
        let options = json!({ "epochs": 5, "optimizer": { "weight_decay": 0.1 } });
        Identity { architecture: "tiny".to_owned(), data: "d1".to_owned(), options }
    }

    fn arrays(value: f32) -> Weights {
        let mut weights = Weights::default();
        weights.insert("a", Array::new(&[2], vec![value; 2]).unwrap());
        weights
    }

    fn progress(epochs: usize) -> RunProgress {
        RunProgress::new(identity(), epochs, 3 * epochs as u64, 1, Vec::new())
    }

    #[test]
    fn a_checkpoint_replaces_the_one_before_and_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::new(place.path().join("a/b"));
        assert!(matches!(checkpoint.load(&identity()), Err(TrainerError::NoCheckpoint { .. })));
        for epoch in 1..=3 {
            checkpoint.save(progress(epoch), &arrays(epoch as f32)).unwrap();
            let (loaded, values) = checkpoint.load(&identity()).unwrap();
            assert_eq!((loaded.epochs, loaded.steps, values), (epoch, 3 * epoch as u64, arrays(epoch as f32)));
            assert_eq!(fs::read_dir(checkpoint.folder()).unwrap().count(), 2);
        }
        checkpoint.remove();
        assert!(!checkpoint.exists() && !checkpoint.folder().exists());
    }

    #[test]
    fn a_checkpoint_of_another_run_says_what_differs() {
        let place = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::new(place.path().to_owned());
        checkpoint.save(progress(1), &arrays(1.0)).unwrap();
        let options = json!({ "epochs": 5, "optimizer": { "weight_decay": 0.2 } });
        for (other, expected) in [
            (Identity { architecture: "huge".to_owned(), ..identity() }, "its network is tiny, not huge"),
            (Identity { options, ..identity() }, "its weight decay is 0.1, not 0.2"),
            (Identity { data: "d2".to_owned(), ..identity() }, "its tracks are not those of this run"),
        ] {
            let error = checkpoint.load(&other).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_write_that_fails_half_way_loses_nothing_and_damage_is_found() {
        let place = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::new(place.path().to_owned());
        checkpoint.save(progress(1), &arrays(1.0)).unwrap();
        // A folder where the new progress should be written: the arrays are there already, and then it fails.
        fs::create_dir(place.path().join(format!(".{PROGRESS_FILE}"))).unwrap();
        assert!(matches!(checkpoint.save(progress(2), &arrays(2.0)), Err(TrainerError::Write { .. })));
        let (loaded, values) = checkpoint.load(&identity()).unwrap();
        assert_eq!((loaded.epochs, values), (1, arrays(1.0)));

        let path = place.path().join(&loaded.arrays);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(checkpoint.load(&identity()).unwrap_err().to_string().contains("is damaged"));
        fs::write(place.path().join(PROGRESS_FILE), "{").unwrap();
        assert!(matches!(checkpoint.load(&identity()), Err(TrainerError::Checkpoint { .. })));
    }
}
