//! The folder that a model lives in: `model.safetensors`, `model.json` and `CARD.md`.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use crate::{Manifest, ModelError, Result, Weights, cost, manifest::Contract, whole_file::write_whole};

/// The file of the weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The file of the [`Manifest`].
pub const MANIFEST_FILE: &str = "model.json";
/// The file for people.
pub const CARD_FILE: &str = "CARD.md";

const MAX_WEIGHTS_BYTES: u64 = 64 << 20;
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// The entry of the weights file's metadata that repeats the manifest's fields that change answers.
const CONTRACT_KEY: &str = "chorale";

/// A model, complete and checked, in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFolder {
    manifest: Manifest,
    weights: Weights,
    card: String,
}

impl ModelFolder {
    /// A new model. `manifest.version` is replaced by the hash of the weights.
    ///
    /// # Errors
    /// Where manifest and weights do not fit each other or this build.
    pub fn new(manifest: Manifest, weights: Weights, card: String) -> Result<Self> {
        let mut folder = Self { manifest, weights, card };
        folder.manifest.check()?;
        folder.weights.check(folder.manifest.network()?, folder.manifest.labels.len())?;
        folder.manifest.version = version(&folder.weights_file()?);
        Ok(folder)
    }

    /// The default model, which is part of this library.
    ///
    /// # Errors
    /// None, unless the library was built with a broken model.
    pub fn embedded() -> Result<Self> {
        Self::from_bytes(
            include_bytes!("../../../deploy/models/default/model.json"),
            include_bytes!("../../../deploy/models/default/model.safetensors"),
            include_str!("../../../deploy/models/default/CARD.md").to_owned(),
        )
    }

    /// The model for a fraction of the default model's cost, which is part of this library, too.
    ///
    /// # Errors
    /// None, unless the library was built with a broken model.
    pub fn embedded_small() -> Result<Self> {
        Self::from_bytes(
            include_bytes!("../../../deploy/models/small/model.json"),
            include_bytes!("../../../deploy/models/small/model.safetensors"),
            include_str!("../../../deploy/models/small/CARD.md").to_owned(),
        )
    }

    /// The model of this name: a folder, or `default` or `small` for those that are part of this library. No name is the
    /// default model.
    ///
    /// # Errors
    /// Those of [`ModelFolder::load`].
    pub fn open(name: Option<&Path>) -> Result<Self> {
        match name {
            None => Self::embedded(),
            Some(path) if path.exists() => Self::load(path),
            Some(path) if path == Path::new("default") => Self::embedded(),
            Some(path) if path == Path::new("small") => Self::embedded_small(),
            Some(path) => Self::load(path),
        }
    }

    /// Reads a model folder. A folder without `CARD.md` is a model without a card.
    ///
    /// # Errors
    /// [`ModelError::Read`] or [`ModelError::TooLarge`], and those of [`ModelFolder::from_bytes`].
    pub fn load(folder: &Path) -> Result<Self> {
        let manifest = read(folder, MANIFEST_FILE, MAX_TEXT_BYTES)?;
        let weights = read(folder, WEIGHTS_FILE, MAX_WEIGHTS_BYTES)?;
        let card = match read(folder, CARD_FILE, MAX_TEXT_BYTES) {
            Err(ModelError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            card => card?,
        };
        Self::from_bytes(&manifest, &weights, String::from_utf8_lossy(&card).into_owned())
    }

    /// A model from the contents of its files.
    ///
    /// # Errors
    /// Where a file is damaged, the weights are not those that the manifest names, or the model is not for this build.
    pub fn from_bytes(manifest: &[u8], weights: &[u8], card: String) -> Result<Self> {
        let manifest: Manifest = serde_json::from_slice(manifest)
            .map_err(|source| ModelError::Json { file: MANIFEST_FILE.to_owned(), source })?;
        manifest.check()?;
        let found = version(weights);
        if manifest.version != found {
            return Err(ModelError::Field {
                field: "version",
                expected: format!("{found:?}, the hash of {WEIGHTS_FILE}"),
                found: format!("{:?}", manifest.version),
            });
        }
        let (weights, metadata) = Weights::from_safetensors(weights)?;
        let contract = metadata.get(CONTRACT_KEY).map_or("null", String::as_str);
        let contract: Option<Contract> = serde_json::from_str(contract)
            .map_err(|source| ModelError::Json { file: format!("the metadata of {WEIGHTS_FILE}"), source })?;
        if contract.as_ref() != Some(&manifest.contract()) {
            return Err(ModelError::Field {
                field: "metadata of the weights",
                expected: format!("the values of {MANIFEST_FILE}: {:?}", manifest.contract()),
                found: format!("{contract:?}"),
            });
        }
        weights.check(manifest.network()?, manifest.labels.len())?;
        Ok(Self { manifest, weights, card })
    }

    /// Writes the folder, creating it where it is missing. Every file appears whole, `model.json` last: a reader that
    /// comes in between finds the old model, or an error about the version.
    ///
    /// # Errors
    /// [`ModelError::Write`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(|source| ModelError::Write { path: folder.to_owned(), source })?;
        let mut manifest = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|source| ModelError::Json { file: MANIFEST_FILE.to_owned(), source })?;
        manifest.push(b'\n');
        write(folder, WEIGHTS_FILE, &self.weights_file()?)?;
        write(folder, CARD_FILE, self.card.as_bytes())?;
        write(folder, MANIFEST_FILE, &manifest)
    }

    /// What the model is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its arrays.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Its page for people, in Markdown.
    #[must_use]
    pub fn card(&self) -> &str {
        &self.card
    }

    /// Multiplications with an addition that one chunk takes, from its cells to its logits. Filters that answer with a
    /// constant take none.
    ///
    /// # Errors
    /// [`ModelError::NegativeVariance`].
    pub fn multiply_accumulates(&self) -> Result<u64> {
        cost::multiply_accumulates(self.manifest.network()?, &self.weights, self.manifest.labels.len())
    }

    /// Numbers in the embedding of a chunk, and of a track: see [`embedding`](crate::embedding).
    ///
    /// # Errors
    /// None, as the model was checked when it was made.
    pub fn embedding_length(&self) -> Result<usize> {
        self.manifest.network()?.embedding_length(&self.weights)
    }

    fn weights_file(&self) -> Result<Vec<u8>> {
        let contract = serde_json::to_string(&self.manifest.contract())
            .map_err(|source| ModelError::Json { file: MANIFEST_FILE.to_owned(), source })?;
        self.weights.to_safetensors((CONTRACT_KEY, contract))
    }
}

fn version(weights: &[u8]) -> String {
    blake3::hash(weights).to_hex()[..12].to_owned()
}

fn read(folder: &Path, name: &str, limit: u64) -> Result<Vec<u8>> {
    let path = folder.join(name);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    let length = read.map_err(|source| ModelError::Read { path, source })?;
    if length as u64 > limit {
        return Err(ModelError::TooLarge { file: name.to_owned(), limit });
    }
    Ok(bytes)
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    write_whole(&path, bytes).map_err(|source| ModelError::Write { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Array;

    fn embedded_files() -> (serde_json::Value, Vec<u8>) {
        let folder = ModelFolder::embedded().unwrap();
        (serde_json::to_value(folder.manifest()).unwrap(), folder.weights_file().unwrap())
    }

    fn error_of(manifest: &serde_json::Value, weights: &[u8]) -> String {
        let manifest = serde_json::to_vec(manifest).unwrap();
        ModelFolder::from_bytes(&manifest, weights, String::new()).unwrap_err().to_string()
    }

    #[test]
    fn the_embedded_model_knows_the_ten_genres() {
        let folder = ModelFolder::embedded().unwrap();
        assert_eq!(folder.manifest().labels, crate::labels::GENRES);
        assert!(folder.card().contains(&folder.manifest().version));
    }

    #[test]
    fn a_folder_comes_back_as_it_was_saved() {
        let folder = ModelFolder::embedded().unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new/model");
        folder.save(&path).unwrap();
        folder.save(&path).unwrap();
        assert_eq!(ModelFolder::load(&path).unwrap(), folder);
        let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [CARD_FILE, MANIFEST_FILE, WEIGHTS_FILE]);
    }

    #[test]
    fn every_field_that_changes_answers_is_checked() {
        let (manifest, weights) = embedded_files();
        for (field, value, expected) in [
            ("feature_id", serde_json::json!("0123456789ab"), "feature_id: expected"),
            ("architecture", serde_json::json!("vgg"), "architecture: expected `musicnn-ensemble` or"),
            ("temperature", serde_json::json!(0.0), "temperature: expected 0.01 to 100, found 0"),
            ("temperature", serde_json::json!(7.25), "metadata of the weights: expected"),
            ("unknown_below", serde_json::json!(1.0), "unknown_below: expected 0 to below 1, found 1"),
            ("unknown_below", serde_json::json!(-0.5), "unknown_below: expected"),
            ("unknown_below", serde_json::json!(0.25), "metadata of the weights: expected"),
            ("labels", serde_json::json!(["a"]), "labels: expected 2 to 1000 of them, found 1"),
            ("labels", serde_json::json!(["a", "a"]), "labels: expected each one once"),
            ("labels", serde_json::json!(["b", "a"]), "metadata of the weights: expected"),
            ("version", serde_json::json!("0123456789ab"), "version: expected"),
            ("surprise", serde_json::json!(1), "unknown field `surprise`"),
        ] {
            let mut changed = manifest.clone();
            changed[field] = value;
            let error = error_of(&changed, &weights);
            assert!(error.contains(expected), "{field}: {error}");
        }
    }

    #[test]
    fn a_threshold_changes_the_version_and_comes_back_and_none_leaves_no_trace() {
        let folder = ModelFolder::embedded().unwrap();
        let with = |unknown_below| {
            let manifest = Manifest { unknown_below, ..folder.manifest().clone() };
            ModelFolder::new(manifest, folder.weights().clone(), String::new()).unwrap()
        };
        let without = with(0.0);
        assert!(!serde_json::to_string(without.manifest()).unwrap().contains("unknown_below"));
        assert!(!String::from_utf8_lossy(&without.weights_file().unwrap()).contains("unknown_below"));
        let place = tempfile::tempdir().unwrap();
        let strict = with(0.3);
        strict.save(place.path()).unwrap();
        assert_eq!(ModelFolder::load(place.path()).unwrap(), strict);
        assert_ne!(strict.manifest().version, without.manifest().version);
    }

    #[test]
    fn damaged_weights_are_an_error() {
        let (manifest, weights) = embedded_files();
        for length in [0, 7, 8, 1_000, weights.len() - 1] {
            assert!(error_of(&manifest, &weights[..length]).contains("version: expected"), "{length} bytes");
            let mut renamed = manifest.clone();
            renamed["version"] = version(&weights[..length]).into();
            assert!(error_of(&renamed, &weights[..length]).contains("not a valid safetensors file"), "{length} bytes");
        }
    }

    #[test]
    fn missing_unknown_and_misshapen_tensors_are_named() {
        let folder = ModelFolder::embedded().unwrap();
        let with = |change: &dyn Fn(&mut Weights)| {
            let mut weights = folder.weights().clone();
            change(&mut weights);
            ModelFolder::new(folder.manifest().clone(), weights, String::new()).unwrap_err().to_string()
        };
        let small = || Array::new(&[1], vec![0.0]).unwrap();
        assert_eq!(
            with(&|weights| drop(weights.remove("member.0.mid.1.bias"))),
            "the weights have no tensor `member.0.mid.1.bias`"
        );
        assert!(with(&|weights| weights.insert("mid.9", small())).contains("a tensor `mid.9`"));
        assert_eq!(
            with(&|weights| weights.insert("member.0.genres.bias", small())),
            "tensor `member.0.genres.bias`: expected shape [10], found [1]"
        );
    }

    #[test]
    fn missing_and_oversized_files_are_named() {
        let place = tempfile::tempdir().unwrap();
        let error = ModelFolder::load(place.path()).unwrap_err().to_string();
        assert!(error.contains(MANIFEST_FILE), "{error}");
        fs::write(place.path().join(MANIFEST_FILE), vec![b' '; MAX_TEXT_BYTES as usize + 1]).unwrap();
        let error = ModelFolder::load(place.path()).unwrap_err().to_string();
        assert_eq!(error, "model.json holds more than 1048576 bytes, which no model of this architecture needs");
    }
}
