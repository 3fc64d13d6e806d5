//! The published weights that training starts from.

use std::{fs, path::Path};

use chorale_model::{Adapter, EnsembleShape, EnsembleStart, Licence};

use crate::{Result, TrainerError};

const ADAPTER_FILE: &str = "adapter.json";
const MUSICNN_NOTICE: &str = include_str!("musicnn_notice.txt");

/// Published weights of MusiCNN, and what has to be said about them.
#[derive(Clone, Debug)]
pub struct Backbone {
    /// What an ensemble starts from.
    pub start: EnsembleStart,
    /// The hash of the weights.
    pub digest: String,
    /// Where they come from.
    pub origin: String,
    /// Their licence.
    pub licence: Licence,
}

impl Backbone {
    /// Reads a safetensors file, and `adapter.json` beside it.
    ///
    /// # Errors
    /// Where one of them cannot be read, or is another kind of file.
    pub fn read(path: &Path, shape: EnsembleShape) -> Result<Self> {
        let bytes = read(path)?;
        let adapter = read_adapter(path)?;
        Ok(Self {
            start: EnsembleStart::import(&bytes, &adapter, shape)?,
            digest: blake3::hash(&bytes).to_hex()[..12].to_owned(),
            origin: origin().to_owned(),
            licence: licence(),
        })
    }
}

/// A file's contents.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| TrainerError::Read { path: path.to_owned(), source })
}

/// The adapter beside the weights at `path`.
pub(crate) fn read_adapter(path: &Path) -> Result<Adapter> {
    Ok(Adapter::from_json(&read(&path.with_file_name(ADAPTER_FILE))?)?)
}

/// Where MusiCNN comes from.
pub(crate) fn origin() -> &'static str {
    "MusiCNN (musicnn 0.1.0, model MSD_musicnn), trained on the Million Song Dataset by Jordi Pons, Music Technology Group, \
     Universitat Pompeu Fabra; kernels over time resampled to 24 frames a second"
}

/// The licence of MusiCNN.
pub(crate) fn licence() -> Licence {
    let notice = MUSICNN_NOTICE.trim_end().to_owned();
    Licence { part: "backbone".to_owned(), spdx: "ISC".to_owned(), notice }
}
