//! What a GPU wants beyond what candle does: `Gpu`. Empty without the feature `cuda`.
//!
//! This is the only crate of the workspace with unsafe code: four calls of the CUDA driver, and zeros written to what one gave.
//! `.ci/check-cuda` runs them, and the network over them, on a stand-in driver, and compares with the plain way; on a machine with
//! a GPU the same tests run there.

#[cfg(feature = "cuda")]
mod gpu;

#[cfg(feature = "cuda")]
pub use self::gpu::Gpu;
