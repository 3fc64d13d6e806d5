//! The models that gave verdicts.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, TransactionBehavior, named_params};

use super::now;
use crate::{Index, LibraryError};

/// The verdict on silence, and on what is like no genre; no model has it among its labels.
const UNKNOWN: &str = "unknown";

/// A model as a scan finds it served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModel {
    /// Its name.
    pub name: String,
    /// Its version: a hash of its weights.
    pub version: String,
    /// The genres that it knows.
    pub labels: Vec<String>,
}

impl Index {
    /// Makes `model` the current one, and gives every file the verdict that this model gave it before, if it did. Returns the
    /// model's id.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn adopt(&mut self, model: &ServedModel) -> Result<i64, LibraryError> {
        let before = self.current_model()?.map(|model| model.version);
        let labels = serde_json::to_string(&model.labels).map_err(|error| self.damaged(error.to_string()))?;
        let mut adopt = || {
            // Whoever finds the model adopted finds its verdicts on the files as well.
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let id: i64 = transaction.query_row(
                "INSERT INTO models (version, name, labels, served_at) VALUES (:version, :name, :labels, :now)
                 ON CONFLICT (version) DO UPDATE SET name = :name, labels = :labels, served_at = :now RETURNING id",
                named_params! {":version": model.version, ":name": model.name, ":labels": labels, ":now": now()},
                |row| row.get(0),
            )?;
            if before.as_ref() != Some(&model.version) {
                transaction.execute(
                    "UPDATE files SET verdict_id = verdicts.id FROM verdicts
                     WHERE verdicts.digest = files.digest AND verdicts.model_id = ?1 AND files.error_code IS NULL",
                    [id],
                )?;
            }
            transaction.commit()?;
            Ok(id)
        };
        let adopted: rusqlite::Result<i64> = adopt();
        adopted.map_err(|source| self.error(source))
    }

    /// The model that was served last, if there was a scan.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn current_model(&self) -> Result<Option<ServedModel>, LibraryError> {
        let query = "SELECT name, version, labels FROM models ORDER BY served_at DESC, id DESC LIMIT 1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?));
        let found = self.connection.query_row(query, [], read).optional().map_err(|source| self.error(source))?;
        let Some((name, version, labels)) = found else { return Ok(None) };
        Ok(Some(ServedModel { name, version, labels: self.parse_labels(&labels)? }))
    }

    /// Every genre that verdicts of this index may have, in alphabetical order, and `unknown`.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn genres(&self) -> Result<Vec<String>, LibraryError> {
        let mut genres: Vec<String> = self.labels()?.into_iter().filter(|genre| genre != UNKNOWN).collect();
        genres.push(UNKNOWN.to_owned());
        Ok(genres)
    }

    /// The labels of all models, in alphabetical order.
    pub(crate) fn labels(&self) -> Result<BTreeSet<String>, LibraryError> {
        let read = || {
            let mut statement = self.connection.prepare_cached("SELECT labels FROM models")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let mut all = BTreeSet::new();
        for labels in read().map_err(|source| self.error(source))? {
            all.extend(self.parse_labels(&labels)?);
        }
        Ok(all)
    }

    /// What of `names` is meant, in the case that the models write it in.
    pub(super) fn known_genres(&self, names: &[String]) -> Result<Vec<String>, LibraryError> {
        let known = self.genres()?;
        let find = |name: &String| {
            let wanted = name.trim().to_lowercase();
            let found = known.iter().find(|genre| genre.to_lowercase() == wanted).cloned();
            found.ok_or_else(|| LibraryError::UnknownGenre { genre: name.clone(), known: known.clone() })
        };
        names.iter().map(find).collect()
    }

    fn parse_labels(&self, labels: &str) -> Result<Vec<String>, LibraryError> {
        serde_json::from_str(labels).map_err(|error| self.damaged(format!("a model's labels: {error}")))
    }
}
