//! Pooled features on disk, so that the backbone runs once over every track.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use chorale_model::POOLED_FEATURES;

const HASH_BYTES: usize = 32;

/// Where pooled features are kept if nothing else is said: `chorale` under `$XDG_CACHE_HOME`, else under `~/.cache`, else
/// under the folder for temporary files.
#[must_use]
pub fn default_cache_folder() -> PathBuf {
    let set = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("chorale")
}

/// The features of one backbone, one file a track. A file that is missing, damaged or cannot be written costs time and
/// nothing else.
pub(crate) struct PooledCache {
    folder: PathBuf,
}

impl PooledCache {
    pub(crate) fn new(root: &Path, backbone: &str, feature_id: &str) -> Self {
        Self { folder: root.join(format!("pooled-{feature_id}-{backbone}")) }
    }

    /// The features of all chunks of a track, `[chunk][POOLED_FEATURES]`.
    pub(crate) fn get(&self, track: &blake3::Hash) -> Option<Vec<f32>> {
        let bytes = fs::read(self.path(track)).ok()?;
        let (data, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
        let intact = blake3::hash(data) == blake3::Hash::from_slice(hash).ok()?;
        let (cells, rest) = data.as_chunks::<4>();
        let whole = rest.is_empty() && cells.len() % POOLED_FEATURES == 0;
        (intact && whole).then(|| cells.iter().map(|cell| f32::from_le_bytes(*cell)).collect())
    }

    pub(crate) fn put(&self, track: &blake3::Hash, features: &[f32]) {
        let mut bytes: Vec<u8> = features.iter().flat_map(|value| value.to_le_bytes()).collect();
        bytes.extend(blake3::hash(&bytes).as_bytes());
        let path = self.path(track);
        let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = fs::create_dir_all(&self.folder)
            .and_then(|()| fs::write(&unfinished, bytes))
            .and_then(|()| fs::rename(&unfinished, &path));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "pooled features are not kept");
            let _ = fs::remove_file(&unfinished);
        }
    }

    fn path(&self, track: &blake3::Hash) -> PathBuf {
        self.folder.join(format!("{}.f32", track.to_hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_come_back_unless_the_file_is_damaged() {
        let root = tempfile::tempdir().unwrap();
        let cache = PooledCache::new(root.path(), "backbone", "feature");
        let track = blake3::hash(b"track");
        let features: Vec<f32> = (0..2 * POOLED_FEATURES).map(|value| value as f32 / 3.0).collect();
        assert_eq!(cache.get(&track), None);
        cache.put(&track, &features);
        assert_eq!(cache.get(&track), Some(features.clone()));
        assert_eq!(PooledCache::new(root.path(), "other", "feature").get(&track), None);

        let path = cache.path(&track);
        let bytes = fs::read(&path).unwrap();
        for length in [0, 31, 32, 33, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(cache.get(&track), None, "{length} bytes");
        }
        let mut flipped = bytes;
        flipped[100] ^= 1;
        fs::write(&path, flipped).unwrap();
        assert_eq!(cache.get(&track), None);
        cache.put(&track, &features);
        assert_eq!(cache.get(&track), Some(features));
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let cache = PooledCache::new(&file, "backbone", "feature");
        cache.put(&blake3::hash(b"track"), &[0.0; POOLED_FEATURES]);
        assert_eq!(cache.get(&blake3::hash(b"track")), None);
    }
}
