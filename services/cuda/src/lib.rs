//! What a GPU wants beyond what candle does: `open` and `Gpu`. Empty without the feature `cuda`.
//!
//! This is the only crate of the workspace with unsafe code: three calls of the CUDA driver, zeros written to what one gave, and
//! the word that all of a device goes through one stream.
//! `.ci/check-cuda` runs them, and the network over them, on a stand-in driver, and compares with the plain way; on a machine with
//! a GPU the same tests run there.

#[cfg(feature = "cuda")]
mod gpu;

#[cfg(feature = "cuda")]
pub use self::gpu::{Gpu, memory_in_use, open};
