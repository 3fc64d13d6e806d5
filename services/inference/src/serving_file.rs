//! `serving.toml`, the file in a models folder that says which models are served, and with which weights.
//!
//! ```toml
//! [[serve]]
//! model = "v2"      # a subfolder, which is a model folder; or `default` or `small`, which are embedded
//! weight = 95       # its share of the tracks whose callers name no version: its weight over the sum of all
//!
//! [[serve]]
//! model = "v3"
//! weight = 5
//! ```

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::SystemTime,
};

use chorale_model::{MANIFEST_FILE, ModelFolder, WEIGHTS_FILE};
use chorale_runtime::config;
use serde::Deserialize;

use crate::InferenceError;

/// Its name.
pub(crate) const SERVING_FILE: &str = "serving.toml";
/// A file of more is another one.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// More are a mistake: each takes its memory on every device, and its share of every batch.
const MAX_MODELS: usize = 8;
/// Far from where sums of weights overflow.
const MAX_WEIGHT: u32 = 1_000_000;
/// What to write, in one line.
const EXAMPLE: &str = "serve = [{ model = \"default\", weight = 100 }]";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServingFile {
    #[serde(default)]
    serve: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    model: String,
    #[serde(default = "one")]
    weight: u32,
}

const fn one() -> u32 {
    1
}

/// A model that is to be served, read and checked.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// As the file names it.
    pub(crate) name: String,
    pub(crate) folder: ModelFolder,
    pub(crate) weight: u32,
}

/// Reads the file of the models folder `folder`, and the models that it names.
///
/// # Errors
/// [`InferenceError::ServingFile`] and [`InferenceError::ServedModel`].
pub(crate) fn read(folder: &Path) -> Result<Vec<Wanted>, InferenceError> {
    let path = folder.join(SERVING_FILE);
    let problem = |problem: String| InferenceError::ServingFile { path: path.clone(), problem };
    let text = read_text(&path).map_err(|error| {
        problem(format!("{error}; write into it which subfolders of models to serve, for example: {EXAMPLE}"))
    })?;
    let entries = parse(&text).map_err(problem)?;
    let mut wanted: Vec<Wanted> = Vec::new();
    for Entry { model, weight } in entries {
        let opened = open(folder, &model).map_err(|source| in_file(&path, &model, source.into()))?;
        let version = &opened.manifest().version;
        if let Some(same) = wanted.iter().find(|other| other.folder.manifest().version == *version) {
            let name = &same.name;
            return Err(problem(format!("`{name}` and `{model}` are the same version {version}: serve one of them")));
        }
        wanted.push(Wanted { name: model, folder: opened, weight });
    }
    Ok(wanted)
}

/// What is wrong with a model that the file at `path` names.
pub(crate) fn in_file(path: &Path, model: &str, source: InferenceError) -> InferenceError {
    InferenceError::ServedModel { path: path.to_owned(), model: model.to_owned(), source: Box::new(source) }
}

fn open(folder: &Path, model: &str) -> chorale_model::Result<ModelFolder> {
    let path = folder.join(model);
    match model {
        "default" if !path.is_dir() => ModelFolder::embedded(),
        "small" if !path.is_dir() => ModelFolder::embedded_small(),
        _ => ModelFolder::load(&path),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(bytes) if bytes as u64 > MAX_FILE_BYTES => Err(format!("expected at most {MAX_FILE_BYTES} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let ServingFile { serve } = config::parse(text).map_err(|error| error.to_string())?;
    if !(1..=MAX_MODELS).contains(&serve.len()) {
        return Err(format!("expected 1 to {MAX_MODELS} models, found {}; for example: {EXAMPLE}", serve.len()));
    }
    let mut names = BTreeSet::new();
    for Entry { model, weight } in &serve {
        // A hidden folder is one that somebody else uses: Kubernetes has one for each version of a volume.
        let is_subfolder = !model.is_empty() && !model.starts_with('.') && !model.contains(['/', '\\', '\0']);
        if !is_subfolder {
            return Err(format!("expected the name of a subfolder, `default` or `small`, found {model:?}"));
        }
        if !names.insert(model) {
            return Err(format!("expected each model once, found `{model}` twice"));
        }
        if *weight > MAX_WEIGHT {
            return Err(format!("model `{model}`: expected a weight from 0 to {MAX_WEIGHT}, found {weight}"));
        }
    }
    if serve.iter().all(|entry| entry.weight == 0) {
        return Err("expected a weight above 0, found none: no model would answer who names none".to_owned());
    }
    Ok(serve)
}

/// What a models folder looks like from outside: it changes when the file, or a model that it names, does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    text: Result<String, String>,
    files: Vec<Option<FileStamp>>,
}

/// The file that a path leads to, through any links, and when and how long it was written.
type FileStamp = (PathBuf, Option<SystemTime>, u64);

impl Stamp {
    /// Looks at `folder`.
    pub(crate) fn of(folder: &Path) -> Self {
        let text = read_text(&folder.join(SERVING_FILE));
        let entries = text.as_deref().ok().and_then(|text| parse(text).ok()).unwrap_or_default();
        let paths = entries.iter().flat_map(|entry| {
            let model = folder.join(&entry.model);
            [model.join(MANIFEST_FILE), model.join(WEIGHTS_FILE)]
        });
        Self { files: paths.map(|path| file_stamp(&path)).collect(), text }
    }
}

fn file_stamp(path: &Path) -> Option<FileStamp> {
    let file = fs::canonicalize(path).ok()?;
    let metadata = fs::metadata(&file).ok()?;
    Some((file, metadata.modified().ok(), metadata.len()))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn folder(text: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SERVING_FILE), text).unwrap();
        folder
    }

    fn error_of(text: &str) -> String {
        let error = read(folder(text).path()).unwrap_err().to_string();
        assert!(error.contains(SERVING_FILE), "{error}");
        error
    }

    #[test]
    fn subfolders_and_embedded_models_are_served_with_their_weights() {
        let folder = folder("serve = [{ model = \"small\", weight = 5 }, { model = \"mine\" }]");
        ModelFolder::embedded().unwrap().save(&folder.path().join("mine")).unwrap();
        let wanted = read(folder.path()).unwrap();
        let facts: Vec<_> = wanted.iter().map(|wanted| (wanted.name.as_str(), wanted.weight)).collect();
        assert_eq!(facts, [("small", 5), ("mine", 1)]);
        assert_eq!(wanted[1].folder, ModelFolder::embedded().unwrap());
    }

    #[test]
    fn a_file_that_is_not_there_is_asked_for_with_an_example_that_works() {
        let empty = tempfile::tempdir().unwrap();
        let error = read(empty.path()).unwrap_err().to_string();
        assert!(error.contains(SERVING_FILE), "{error}");
        let example = error.split("for example: ").nth(1).unwrap();
        assert_eq!(read(folder(example).path()).unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_makes_no_sense_says_what_would() {
        for (text, expected) in [
            ("", "expected 1 to 8 models, found 0"),
            ("[[serve]]\nfolder = \"v1\"\n", "folder"),
            ("[[serve]]\nweight = 5\n", "model"),
            ("[[serve]]\nmodel = \"small\"\nweight = -1\n", "weight"),
            ("serve = \"small\"\n", "serve"),
            ("[[serve]\n", "line 1"),
            ("[[serve]]\nmodel = \"small\"\nweight = 1000001\n", "from 0 to 1000000, found 1000001"),
            ("[[serve]]\nmodel = \"small\"\nweight = 0\n", "expected a weight above 0"),
            ("serve = [{ model = \"small\" }, { model = \"small\" }]", "found `small` twice"),
            ("serve = [{ model = \"../small\" }]", "expected the name of a subfolder"),
            ("serve = [{ model = \"..\" }]", "expected the name of a subfolder"),
            ("serve = [{ model = \"\" }]", "expected the name of a subfolder"),
            ("serve = [{ model = \"v9\" }]", "model `v9`: model: cannot read"),
        ] {
            let error = error_of(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let many: String = (0..9).map(|index| format!("[[serve]]\nmodel = \"v{index}\"\n")).collect();
        assert!(error_of(&many).contains("found 9"));
        assert!(error_of(&"#".repeat(MAX_FILE_BYTES as usize + 1)).contains("expected at most 65536 bytes"));
    }

    #[test]
    fn two_names_for_one_version_are_refused() {
        let folder = folder("serve = [{ model = \"default\" }, { model = \"copy\" }]");
        ModelFolder::embedded().unwrap().save(&folder.path().join("copy")).unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("`default` and `copy` are the same version"), "{error}");
    }

    #[test]
    fn a_stamp_changes_with_the_file_and_the_models_that_it_names() {
        let folder = folder("serve = [{ model = \"mine\" }]");
        let stamp = || Stamp::of(folder.path());
        let (mine, other) = (folder.path().join("mine"), folder.path().join("other"));
        let none = stamp();
        ModelFolder::embedded_small().unwrap().save(&mine).unwrap();
        let small = stamp();
        assert_ne!(small, none);
        ModelFolder::embedded().unwrap().save(&other).unwrap();
        assert_eq!(stamp(), small, "a model that is not named does not matter");
        fs::write(folder.path().join(SERVING_FILE), "serve = [{ model = \"mine\", weight = 2 }]").unwrap();
        assert_ne!(stamp(), small);
    }

    #[cfg(unix)]
    #[test]
    fn a_stamp_follows_links_as_kubernetes_swaps_them() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join(SERVING_FILE), "serve = [{ model = \"mine\" }]").unwrap();
            ModelFolder::embedded_small().unwrap().save(&at(version).join("mine")).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        for name in [SERVING_FILE, "mine"] {
            symlink(Path::new("..data").join(name), at(name)).unwrap();
        }
        let before = Stamp::of(folder.path());
        assert_eq!(read(folder.path()).unwrap().len(), 1);
        symlink("..2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert_ne!(Stamp::of(folder.path()), before);
    }
}
