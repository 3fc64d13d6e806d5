//! Small files that say what others must not know.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::error::GatewayError;

/// What is longer is another file, in bytes.
pub(super) const MOST_BYTES: usize = 64 << 10;

/// What a file of the cache's configuration holds, or its beginning if it is longer than any should be.
///
/// # Errors
/// If it cannot be read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, GatewayError> {
    let unreadable = |source: io::Error| GatewayError::CacheFile { path: path.to_owned(), source };
    let mut contents = Vec::new();
    // What has no end is no secret.
    let file = File::open(path).map_err(unreadable)?;
    file.take(MOST_BYTES as u64 + 1).read_to_end(&mut contents).map_err(unreadable)?;
    Ok(contents)
}
