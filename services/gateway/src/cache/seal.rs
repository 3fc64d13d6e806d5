//! Values that none but this cluster can have written.
//!
//! A Redis server is shared, backed up, and reached by others. With a secret that all gateways have, a value carries a keyed
//! hash of itself and of its key: one that was made up, changed, or moved from another key is a miss.

use std::{fmt, path::Path};

use bytes::{BufMut, Bytes, BytesMut};

use super::{CacheKey, secret};
use crate::error::GatewayError;

/// The first byte of a stored value. Another one belongs to another version of Chorale, or to a cluster that has a secret
/// where this one has none.
const PLAIN: u8 = 1;
const SEALED: u8 = 2;
const TAG_BYTES: usize = 32;
/// A secret of fewer bytes can be guessed.
const LEAST_SECRET_BYTES: usize = 32;

/// How values are wrapped.
#[derive(Clone)]
pub(super) enum Seal {
    /// Whoever can write to the cache is trusted.
    None,
    /// With a key that was derived from the secret.
    Key([u8; 32]),
}

impl fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "no secret",
            Self::Key(_) => "a secret",
        })
    }
}

impl Seal {
    /// The seal of the secret in a file; whitespace around it does not count.
    ///
    /// # Errors
    /// If the file cannot be read, or holds too little to be a secret.
    pub(super) fn from_file(path: &Path) -> Result<Self, GatewayError> {
        let contents = secret::read(path)?;
        let trimmed = contents.trim_ascii();
        if !(LEAST_SECRET_BYTES..=secret::MOST_BYTES).contains(&trimmed.len()) {
            return Err(GatewayError::Config {
                key: "gateway.cache.secret_file",
                expected: "a file with 32 bytes to 64 KiB, as `openssl rand -hex 32` writes",
                found: format!("{} bytes in {}", trimmed.len(), path.display()),
            });
        }
        Ok(Self::Key(blake3::derive_key("chorale.v1 verdict cache seal", trimmed)))
    }

    /// The value to store under `key`.
    pub(super) fn wrap(&self, key: CacheKey, verdict: &[u8]) -> Bytes {
        let mut value = BytesMut::with_capacity(1 + TAG_BYTES + verdict.len());
        match self {
            Self::None => value.put_u8(PLAIN),
            Self::Key(secret) => {
                value.put_u8(SEALED);
                value.put_slice(tag(secret, key, verdict).as_bytes());
            }
        }
        value.put_slice(verdict);
        value.freeze()
    }

    /// What was wrapped for `key`, if `value` is that.
    pub(super) fn unwrap<'a>(&self, key: CacheKey, value: &'a [u8]) -> Option<&'a [u8]> {
        let (&version, rest) = value.split_first()?;
        match (self, version) {
            (Self::None, PLAIN) => Some(rest),
            (Self::Key(secret), SEALED) => {
                let (found, verdict) = rest.split_first_chunk::<TAG_BYTES>()?;
                // Compared in constant time.
                (tag(secret, key, verdict) == *found).then_some(verdict)
            }
            _ => None,
        }
    }
}

fn tag(secret: &[u8; 32], key: CacheKey, verdict: &[u8]) -> blake3::Hash {
    // The key has a fixed length, so that it and the verdict cannot run together.
    blake3::Hasher::new_keyed(secret).update(&key.0).update(verdict).finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CacheKey = CacheKey::of_bytes([7; 32]);

    fn seal(secret: &str) -> Result<Seal, GatewayError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, secret).unwrap();
        Seal::from_file(&path)
    }

    #[test]
    fn a_value_opens_for_its_key_and_the_same_secret_alone() {
        let one = seal(&"one secret, ".repeat(4)).unwrap();
        let value = one.wrap(KEY, b"verdict");
        let opened = |seal: &Seal, key, value: &[u8]| seal.unwrap(key, value).map(<[u8]>::to_vec);
        assert_eq!(opened(&one, KEY, &value), Some(b"verdict".to_vec()));
        assert_eq!(
            opened(&seal(&format!(" {}\n", "one secret, ".repeat(4).trim())).unwrap(), KEY, &value),
            Some(b"verdict".to_vec())
        );
        assert_eq!(opened(&seal(&"another secret".repeat(4)).unwrap(), KEY, &value), None);
        assert_eq!(opened(&one, CacheKey::of_bytes([8; 32]), &value), None, "moved from another key");
        for index in 0..value.len() {
            let mut changed = value.to_vec();
            changed[index] ^= 1;
            assert_eq!(opened(&one, KEY, &changed), None, "byte {index}");
            assert_eq!(opened(&one, KEY, &value[..index]), None, "cut off at {index}");
        }
        assert_eq!(opened(&Seal::None, KEY, &value), None);
        let plain = Seal::None.wrap(KEY, b"verdict");
        assert_eq!(opened(&Seal::None, KEY, &plain), Some(b"verdict".to_vec()));
        assert_eq!(opened(&one, KEY, &plain), None, "nothing without a seal passes");
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_never_shown() {
        for short in ["", "short", &format!("{}\n", "x".repeat(31))] {
            let error = seal(short).unwrap_err().to_string();
            assert!(error.contains("gateway.cache.secret_file") && error.contains("openssl"), "{error}");
        }
        let endless = Seal::from_file(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(endless.contains("65537 bytes"), "{endless}");
        let error = Seal::from_file(Path::new("/nowhere/secret")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/secret"), "{error}");
        assert_eq!(format!("{:?}", seal(&"s3cr3t".repeat(9)).unwrap()), "a secret");
    }
}
