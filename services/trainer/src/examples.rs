//! Labelled chunks in memory.

use rayon::prelude::*;

use serde::Serialize;

use crate::{Catalogue, Progress, Result, Track, TrainerError};

/// Tracks that are read and decoded at the same time: bounds memory.
const TRACKS_AT_ONCE: usize = 16;

/// The chunks of one track: those of the feature contract, 12 KiB each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkedTrack {
    /// The track's name.
    pub name: String,
    /// What it is.
    pub genre: String,
    /// Its chunks that vote, at least one.
    pub chunks: Vec<Vec<u8>>,
}

/// Chunks of tracks with their genres as indices of the labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examples {
    tracks: Vec<ChunkedTrack>,
    genres: Vec<usize>,
    labels: Vec<String>,
}

impl Examples {
    /// Tracks whose genres are all among `labels`.
    ///
    /// # Errors
    /// [`TrainerError::UnknownGenre`].
    pub fn new(tracks: Vec<ChunkedTrack>, labels: &[String]) -> Result<Self> {
        let genre = |track: &ChunkedTrack| {
            labels.iter().position(|label| *label == track.genre).ok_or_else(|| TrainerError::UnknownGenre {
                track: track.name.clone(),
                genre: track.genre.clone(),
                known: labels.to_vec(),
            })
        };
        let genres = tracks.iter().map(genre).collect::<Result<_>>()?;
        Ok(Self { tracks, genres, labels: labels.to_vec() })
    }

    /// The tracks.
    #[must_use]
    pub fn tracks(&self) -> &[ChunkedTrack] {
        &self.tracks
    }

    /// The genre of every track, as an index of the labels.
    #[must_use]
    pub fn genres(&self) -> &[usize] {
        &self.genres
    }

    /// How many labels there are.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.labels.len()
    }

    /// The labels.
    #[must_use]
    pub fn label_names(&self) -> &[String] {
        &self.labels
    }

    /// How many chunks there are.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.tracks.iter().map(|track| track.chunks.len()).sum()
    }

    /// All chunks, track by track.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.tracks.iter().flat_map(|track| track.chunks.iter().map(Vec::as_slice))
    }

    /// The genre of every chunk, track by track.
    pub(crate) fn chunk_genres(&self) -> Vec<usize> {
        let tracks = self.tracks.iter().zip(&self.genres);
        tracks.flat_map(|(track, genre)| std::iter::repeat_n(*genre, track.chunks.len())).collect()
    }

    /// Adds everything that training depends on to `hasher`.
    pub(crate) fn digest(&self, hasher: &mut blake3::Hasher) {
        for (track, genre) in self.tracks.iter().zip(&self.genres) {
            hasher.update(&(track.name.len() as u64).to_le_bytes()).update(track.name.as_bytes());
            hasher.update(&(*genre as u64).to_le_bytes()).update(&(track.chunks.len() as u64).to_le_bytes());
            for chunk in &track.chunks {
                hasher.update(chunk);
            }
        }
    }
}

/// A track that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The track's name.
    pub track: String,
    /// Why.
    pub reason: String,
}

/// Tracks in memory, and those that could not be used.
pub(crate) struct LoadedTracks<'a> {
    /// Tracks with at least one chunk that votes.
    pub(crate) tracks: Vec<ChunkedTrack>,
    /// Tracks of nothing but silence.
    pub(crate) silent: Vec<&'a Track>,
    pub(crate) skipped: Vec<Skipped>,
}

/// Reads every track. Audio that cannot be decoded and silence are left out, and reported; at least one track is left.
pub(crate) fn load<'a>(catalogue: &Catalogue, tracks: &[&'a Track], progress: Progress) -> Result<LoadedTracks<'a>> {
    let mut loaded = load_any(catalogue, tracks, progress)?;
    let silent = loaded.silent.drain(..).map(|track| track.name.clone());
    loaded.skipped.extend(silent.map(|track| Skipped { track, reason: "nothing but silence".to_owned() }));
    match loaded.skipped.first() {
        Some(first) if loaded.tracks.is_empty() => {
            Err(TrainerError::NothingUsable { tracks: tracks.len(), reason: first.reason.clone() })
        }
        _ => Ok(loaded),
    }
}

/// The same where silence counts, and maybe all there is.
pub(crate) fn load_any<'a>(
    catalogue: &Catalogue,
    tracks: &[&'a Track],
    progress: Progress,
) -> Result<LoadedTracks<'a>> {
    let mut loaded = LoadedTracks { tracks: Vec::new(), silent: Vec::new(), skipped: Vec::new() };
    let bar = progress.bar("chunks", tracks.len());
    for group in tracks.chunks(TRACKS_AT_ONCE) {
        let read: Vec<_> = group.par_iter().map(|track| catalogue.chunks(track)).collect();
        for (track, chunks) in group.iter().zip(read) {
            match chunks {
                Ok(chunks) if chunks.is_empty() => loaded.silent.push(track),
                Ok(chunks) => {
                    let (name, genre) = (track.name.clone(), track.genre.clone());
                    loaded.tracks.push(ChunkedTrack { name, genre, chunks });
                }
                Err(error @ TrainerError::Feature(_)) => {
                    tracing::warn!(track = track.name, %error, "track left out");
                    loaded.skipped.push(Skipped { track: track.name.clone(), reason: error.to_string() });
                }
                Err(error) => return Err(error),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(loaded)
}
