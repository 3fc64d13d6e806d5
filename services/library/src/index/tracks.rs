//! The tracks that a filter takes.

use std::{fmt::Write, path::Path};

use rusqlite::{Row, params_from_iter, types::Value};

use crate::{
    Filter, Index, IndexedTrack, KnownTrack, LibraryError, Order, path_bytes,
    place::{KeyRanges, keys_of, names_of},
    verdict::TrackVerdict,
};

const COLUMNS: &str = "\
    SELECT files.path, files.digest, files.artist, files.album, files.title, models.version, verdicts.genre,
           verdicts.confidence, verdicts.duration_seconds, verdicts.probabilities, verdicts.segments, verdicts.warnings,
           verdicts.embedding, verdicts.early";
const TABLES: &str = "\
    files JOIN verdicts ON verdicts.id = files.verdict_id JOIN models ON models.id = verdicts.model_id
    WHERE files.gone_at IS NULL AND files.digest IS NOT NULL";
/// Any number of places: an expression with one term for each would be too deep for SQLite. `CROSS JOIN` has it take one place
/// after the other, and look each up by path.
const PLACES: &str = "\
    (SELECT unhex(value ->> 0) AS first, unhex(value ->> 1) AS past FROM json_each(?)) AS places CROSS JOIN";
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

    /// The track whose file is at `path`, by whichever links that leads there.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn track_at(&self, path: &Path) -> Result<Option<KnownTrack>, LibraryError> {
        let tracks = self.tracks(&Filter { under: vec![path.to_owned()], ..Filter::default() })?;
        let names = names_of(path);
        Ok(tracks.into_iter().find(|track| names.contains(&track.path)))
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
        let mut parameters = Vec::new();
        let mut query = if filter.under.is_empty() {
            format!("{COLUMNS} FROM {TABLES}")
        } else {
            parameters.push(Value::from(as_json(&keys_of(&filter.under))));
            format!("{COLUMNS} FROM {PLACES} {TABLES} AND files.path >= places.first AND files.path < places.past")
        };
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
        query.push_str(" ORDER BY ");
        query.push_str(order_of(filter.order));
        Ok((query, parameters))
    }
}

/// A JSON array of `[first, past]`, in hexadecimal digits.
fn as_json(ranges: &KeyRanges) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let ranges: Vec<_> = ranges.iter().map(|(first, past)| format!("[\"{}\",\"{}\"]", hex(first), hex(past))).collect();
    format!("[{}]", ranges.join(","))
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
