//! The published weights that training starts from.

use std::{fs, path::Path};

use chorale_model::{Adapter, Architecture, EnsembleShape, EnsembleStart, Licence, ModelFolder};

use crate::{Result, TrainerError};

const ADAPTER_FILE: &str = "adapter.json";
const MUSICNN_NOTICE: &str = include_str!("musicnn_notice.txt");
const ORIGIN: &str = "MusiCNN (musicnn 0.1.0, model MSD_musicnn), trained on the Million Song Dataset by Jordi Pons, Music \
                      Technology Group, Universitat Pompeu Fabra; its front end at 24 frames a second, without the filters \
                      that answer with a constant";

/// Published weights of MusiCNN, and what has to be said about them.
#[derive(Clone, Debug)]
pub struct Backbone {
    /// What an ensemble starts from.
    pub start: EnsembleStart,
    /// The hash of the weights.
    pub digest: String,
    /// Where they come from.
    pub origin: String,
    /// Their licences.
    pub licences: Vec<Licence>,
}

impl Backbone {
    /// Reads a safetensors file, and `adapter.json` beside it, or a model folder to go on from.
    ///
    /// # Errors
    /// Where one of them cannot be read, or is another kind of file.
    pub fn read(path: &Path, shape: EnsembleShape) -> Result<Self> {
        if path.is_dir() {
            return Self::of_model(&ModelFolder::load(path)?, shape);
        }
        let bytes = read(path)?;
        let adapter = Adapter::from_json(&read(&path.with_file_name(ADAPTER_FILE))?)?;
        let notice = MUSICNN_NOTICE.trim_end().to_owned();
        let licence = Licence { part: "backbone".to_owned(), spdx: "ISC".to_owned(), notice };
        Ok(Self {
            start: EnsembleStart::import(&bytes, &adapter, shape)?,
            digest: blake3::hash(&bytes).to_hex()[..12].to_owned(),
            origin: ORIGIN.to_owned(),
            licences: vec![licence],
        })
    }

    /// The embedded model of this architecture, from which training goes on.
    ///
    /// # Errors
    /// Where no embedded model is of this architecture.
    pub fn embedded(architecture: Architecture) -> Result<Self> {
        let model = match architecture {
            Architecture::Small => ModelFolder::embedded_small()?,
            _ => ModelFolder::embedded()?,
        };
        let found = model.manifest().network()?;
        let shape = architecture.ensemble().filter(|_| found == architecture);
        let shape = shape.ok_or_else(|| TrainerError::Option {
            option: "architecture",
            expected: "that of an embedded model",
            found: architecture.name().to_owned(),
        })?;
        Self::of_model(&model, shape)
    }

    /// What `model` starts an ensemble of this shape from.
    fn of_model(model: &ModelFolder, shape: EnsembleShape) -> Result<Self> {
        let manifest = model.manifest();
        Ok(Self {
            start: EnsembleStart::of_model(model, shape)?,
            digest: manifest.version.clone(),
            origin: manifest.provenance.get("backbone").cloned().unwrap_or_default(),
            licences: manifest.licences.clone(),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| TrainerError::Read { path: path.to_owned(), source })
}
