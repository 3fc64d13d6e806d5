//! The tracks that a filter takes.

use std::path::{Path, PathBuf};

use rusqlite::{Row, params_from_iter, types::Value};

use crate::{Filter, Index, IndexedTrack, KnownTrack, LibraryError, Order, path_bytes, verdict::TrackVerdict};

const COLUMNS: &str = "\
    SELECT files.path, files.digest, files.artist, files.album, files.title, models.version, verdicts.genre,
           verdicts.confidence, verdicts.duration_seconds, verdicts.probabilities, verdicts.segments, verdicts.warnings,
           verdicts.embedding, verdicts.early
    FROM files JOIN verdicts ON verdicts.id = files.verdict_id JOIN models ON models.id = verdicts.model_id
    WHERE files.gone_at IS NULL AND files.digest IS NOT NULL";
const FIRST_OF_VERDICT: usize = 6;

impl Index {
    /// The tracks that `filter` takes, in its order. Files that failed or are gone are not among them.
    ///
    /// # Errors
    /// If no model of this index knows a genre that `filter` names, or the index cannot be read.
    pub fn tracks(&self, filter: &Filter) -> Result<Vec<KnownTrack>, LibraryError> {
        let mut tracks = Vec::new();
        self.visit(filter, |track| {
            tracks.push(track.track);
            Ok::<_, LibraryError>(())
        })?;
        Ok(tracks)
    }

    /// Hands the tracks that `filter` takes to `each`, in its order, one at a time.
    ///
    /// # Errors
    /// As [`Index::tracks`], and the first error of `each`, which ends the visit.
    pub fn visit<E: From<LibraryError>>(
        &self,
        filter: &Filter,
        mut each: impl FnMut(IndexedTrack) -> Result<(), E>,
    ) -> Result<(), E> {
        let (query, parameters) = self.query(filter)?;
        let failed = |source| self.error(source);
        let mut statement = self.connection.prepare_cached(&query).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(parameters)).map_err(failed)?;
        let artist = filter.artist.as_ref().map(|artist| artist.to_lowercase());
        let mut left = filter.limit.unwrap_or(usize::MAX);
        while left > 0 {
            let Some(row) = rows.next().map_err(failed)? else { break };
            let track = read(row).map_err(failed)?;
            if artist.as_ref().is_none_or(|wanted| is_by(&track.track, wanted)) {
                each(track)?;
                left -= 1;
            }
        }
        Ok(())
    }

    fn query(&self, filter: &Filter) -> Result<(String, Vec<Value>), LibraryError> {
        let mut query = COLUMNS.to_owned();
        let mut parameters = Vec::new();
        if !filter.genres.is_empty() {
            let genres = self.known_genres(&filter.genres)?;
            query.push_str(&format!(" AND verdicts.genre IN ({})", vec!["?"; genres.len()].join(", ")));
            parameters.extend(genres.into_iter().map(Value::from));
        }
        let bounds = [
            ("confidence >=", filter.min_confidence),
            ("duration_seconds >=", filter.min_seconds),
            ("duration_seconds <=", filter.max_seconds),
        ];
        for (comparison, bound) in bounds {
            if let Some(bound) = bound {
                query.push_str(&format!(" AND verdicts.{comparison} ?"));
                parameters.push(Value::from(bound));
            }
        }
        if !filter.under.is_empty() {
            let place = "files.path = ? OR files.path >= ? AND files.path < ?";
            query.push_str(&format!(" AND ({})", vec![place; filter.under.len()].join(" OR ")));
            for path in filter.under.iter().map(|path| as_indexed(path)) {
                let (first, end) = path_bytes::range_under(&path);
                parameters.extend([path_bytes::to_bytes(&path).to_vec(), first, end].map(Value::from));
            }
        }
        query.push_str(" ORDER BY ");
        query.push_str(order_of(filter.order));
        Ok((query, parameters))
    }
}

/// Absolute and without links, as the index has it; what is not there any more can still be asked for.
fn as_indexed(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

fn order_of(order: Order) -> &'static str {
    match order {
        Order::Path => "files.path",
        Order::Confidence => "verdicts.confidence DESC, files.path",
        Order::Duration => "verdicts.duration_seconds DESC, files.path",
        Order::Genre => "verdicts.genre, verdicts.confidence DESC, files.path",
        Order::Artist => {
            "files.artist COLLATE NOCASE NULLS LAST, files.album COLLATE NOCASE NULLS LAST,
             files.title COLLATE NOCASE NULLS LAST, files.path"
        }
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<IndexedTrack> {
    let verdict = TrackVerdict::read(row, FIRST_OF_VERDICT)?;
    let track = KnownTrack {
        path: path_bytes::from_bytes(row.get(0)?),
        digest: row.get(1)?,
        genre: verdict.genre,
        confidence: verdict.confidence,
        probabilities: verdict.probabilities,
        embedding: verdict.embedding,
        duration_seconds: verdict.duration_seconds,
        model_version: row.get(5)?,
        artist: row.get(2)?,
        album: row.get(3)?,
        title: row.get(4)?,
    };
    Ok(IndexedTrack { track, segments: verdict.segments, warnings: verdict.warnings, early: verdict.early })
}

fn is_by(track: &KnownTrack, wanted: &str) -> bool {
    track.artist.as_ref().is_some_and(|artist| artist.to_lowercase().contains(wanted))
}
