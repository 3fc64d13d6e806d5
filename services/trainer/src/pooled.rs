//! From tracks to the pooled features of their chunks.

use candle_core::Tensor;
use chorale_model::{Backbone, POOLED_FEATURES};
use rayon::prelude::*;
use serde::Serialize;

use crate::{Catalogue, Progress, Result, Track, TrainerError, cache::PooledCache};

/// Tracks that are read and decoded at the same time: bounds memory.
const TRACKS_AT_ONCE: usize = 16;
/// Chunks that go through the network in one call: bounds memory for long tracks.
const CHUNKS_AT_ONCE: usize = 64;

/// A track that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The track's name.
    pub track: String,
    /// Why.
    pub reason: String,
}

/// The pooled features of tracks.
pub(crate) struct PooledTracks<'a> {
    /// Tracks with at least one chunk that votes.
    pub(crate) tracks: Vec<PooledTrack<'a>>,
    /// Tracks of nothing but silence.
    pub(crate) silent: Vec<&'a Track>,
    pub(crate) skipped: Vec<Skipped>,
}

/// The pooled features of one track.
pub(crate) struct PooledTrack<'a> {
    pub(crate) track: &'a Track,
    /// `[chunk][POOLED_FEATURES]`, at least one chunk.
    pub(crate) features: Vec<f32>,
}

impl PooledTrack<'_> {
    pub(crate) fn chunks(&self) -> usize {
        self.features.len() / POOLED_FEATURES
    }
}

/// What is known of a track before the network has seen it.
enum Prepared {
    Cached(Vec<f32>),
    Chunks(Vec<Vec<u8>>),
}

/// Runs the backbone over every track that is not in the cache. Audio that cannot be decoded and silence are left out,
/// and reported; at least one track is left.
pub(crate) fn pooled_tracks<'a>(
    catalogue: &Catalogue,
    tracks: &[&'a Track],
    backbone: &Backbone,
    cache: &PooledCache,
    progress: Progress,
) -> Result<PooledTracks<'a>> {
    let mut pooled = pool(catalogue, tracks, backbone, cache, progress)?;
    let silent = pooled.silent.drain(..).map(|track| track.name.clone());
    pooled.skipped.extend(silent.map(|track| Skipped { track, reason: "nothing but silence".to_owned() }));
    match pooled.skipped.first() {
        Some(first) if pooled.tracks.is_empty() => {
            Err(TrainerError::NothingUsable { tracks: tracks.len(), reason: first.reason.clone() })
        }
        _ => Ok(pooled),
    }
}

/// The same where silence counts, and maybe all there is.
pub(crate) fn pool<'a>(
    catalogue: &Catalogue,
    tracks: &[&'a Track],
    backbone: &Backbone,
    cache: &PooledCache,
    progress: Progress,
) -> Result<PooledTracks<'a>> {
    let mut pooled = PooledTracks { tracks: Vec::new(), silent: Vec::new(), skipped: Vec::new() };
    let bar = progress.bar("features", tracks.len());
    for group in tracks.chunks(TRACKS_AT_ONCE) {
        let prepare = |track: &&'a Track| -> Result<_> {
            let digest = catalogue.digest(track)?;
            let prepared = match cache.get(&digest) {
                Some(features) => Prepared::Cached(features),
                None => Prepared::Chunks(catalogue.chunks(track)?),
            };
            Ok((digest, prepared))
        };
        let prepared: Vec<_> = group.par_iter().map(prepare).collect();
        for (track, prepared) in group.iter().zip(prepared) {
            let features = match prepared {
                Ok((_, Prepared::Cached(features))) => features,
                Ok((digest, Prepared::Chunks(chunks))) => {
                    let features = run(backbone, &chunks)?;
                    cache.put(&digest, &features);
                    features
                }
                Err(error @ TrainerError::Feature(_)) => {
                    tracing::warn!(track = track.name, %error, "track left out");
                    pooled.skipped.push(Skipped { track: track.name.clone(), reason: error.to_string() });
                    continue;
                }
                Err(error) => return Err(error),
            };
            if features.is_empty() {
                pooled.silent.push(track);
            } else {
                pooled.tracks.push(PooledTrack { track, features });
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(pooled)
}

fn run(backbone: &Backbone, chunks: &[Vec<u8>]) -> Result<Vec<f32>> {
    let mut features = Vec::with_capacity(chunks.len() * POOLED_FEATURES);
    for batch in chunks.chunks(CHUNKS_AT_ONCE) {
        let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        let pooled: Tensor = backbone.pooled(&batch)?;
        features.extend(pooled.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(features)
}
