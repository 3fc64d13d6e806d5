//! `model.json`: what a model is, what it was measured to do, and where it comes from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Architecture, ModelError, Result, contract::feature_id};

const MAX_LABELS: usize = 1_000;
const MAX_NAME_BYTES: usize = 100;

/// The contents of `model.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the model is called.
    pub name: String,
    /// The first 12 hexadecimal digits of the BLAKE3 hash of `model.safetensors`.
    pub version: String,
    /// The genres, in the order of the probabilities.
    pub labels: Vec<String>,
    /// The feature contract that the model was trained on: [`feature_id`].
    pub feature_id: String,
    /// The network that the weights are for: one of [`Architecture::TABLE`].
    pub architecture: String,
    /// What logits are divided by before the softmax.
    pub temperature: f64,
    /// A track whose greatest probability is below this is like none of the labels: its verdict is
    /// [`UNKNOWN`](crate::labels::UNKNOWN). 0 to below 1; 0 never says so.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown_below: f64,
    /// What was measured, by split.
    #[serde(default)]
    pub metrics: BTreeMap<String, SplitMetrics>,
    /// Splits of the data that the model has learnt from: what it does on them says nothing about other tracks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learnt_splits: Vec<String>,
    /// Where the parts and the data come from, by part.
    #[serde(default)]
    pub provenance: BTreeMap<String, String>,
    /// The licences of the parts.
    #[serde(default)]
    pub licences: Vec<Licence>,
}

/// What a model did on one split of a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitMetrics {
    /// Share of tracks whose probability is greatest for their genre.
    pub track_accuracy: f64,
    /// The 95 % Wilson interval of `track_accuracy`: low, high.
    pub track_accuracy_interval: [f64; 2],
    /// Share of chunks whose probability is greatest for their genre.
    pub chunk_accuracy: f64,
    /// Tracks.
    pub tracks: usize,
    /// Chunks that voted.
    pub chunks: usize,
}

/// The licence of a part of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// The part.
    pub part: String,
    /// Its licence, as an SPDX expression.
    pub spdx: String,
    /// The notice to be kept.
    pub notice: String,
}

/// The fields that change answers, as they are written into the weights file, so that the version covers them too.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contract {
    architecture: String,
    feature_id: String,
    labels: Vec<String>,
    temperature: f64,
    // Left out where it is 0, as in models from before there was one.
    #[serde(default, skip_serializing_if = "is_zero")]
    unknown_below: f64,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Manifest {
    /// Checks every field that the network depends on against this build.
    ///
    /// # Errors
    /// [`ModelError::Field`] naming the first field that does not fit.
    pub fn check(&self) -> Result<()> {
        let field = |fits: bool, field, expected: String, found: String| {
            if fits { Ok(()) } else { Err(ModelError::Field { field, expected, found }) }
        };
        let is_name = |name: &str| (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
        let name_rule = || format!("1 to {MAX_NAME_BYTES} printable bytes");
        field(is_name(&self.name), "name", name_rule(), format!("{:?}", self.name))?;
        self.network()?;
        field(
            self.feature_id == feature_id(),
            "feature_id",
            format!("`{}`, the feature contract of this build", feature_id()),
            format!("{:?}", self.feature_id),
        )?;
        field(
            (2..=MAX_LABELS).contains(&self.labels.len()),
            "labels",
            format!("2 to {MAX_LABELS} of them"),
            self.labels.len().to_string(),
        )?;
        for label in &self.labels {
            field(is_name(label), "label", name_rule(), format!("{label:?}"))?;
        }
        let distinct: BTreeSet<&String> = self.labels.iter().collect();
        field(
            distinct.len() == self.labels.len(),
            "labels",
            "each one once".to_owned(),
            format!("{} different ones among {}", distinct.len(), self.labels.len()),
        )?;
        field(
            (0.01..=100.0).contains(&self.temperature),
            "temperature",
            "0.01 to 100".to_owned(),
            self.temperature.to_string(),
        )?;
        field(
            (0.0..1.0).contains(&self.unknown_below),
            "unknown_below",
            "0 to below 1".to_owned(),
            self.unknown_below.to_string(),
        )
    }

    /// The network that the weights are for.
    ///
    /// # Errors
    /// [`ModelError::Field`] where this build has no network of that name.
    pub fn network(&self) -> Result<Architecture> {
        Architecture::named(&self.architecture).ok_or_else(|| ModelError::Field {
            field: "architecture",
            expected: Architecture::TABLE.map(|(_, name)| format!("`{name}`")).join(" or "),
            found: format!("{:?}", self.architecture),
        })
    }

    pub(crate) fn contract(&self) -> Contract {
        Contract {
            architecture: self.architecture.clone(),
            feature_id: self.feature_id.clone(),
            labels: self.labels.clone(),
            temperature: self.temperature,
            unknown_below: self.unknown_below,
        }
    }
}
