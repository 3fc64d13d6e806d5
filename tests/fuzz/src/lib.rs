//! What hostile input is tried on: one function a target, which takes any bytes and must return.
//!
//! A target fails by a panic, by taking too long, or by taking too much memory. libFuzzer calls them in `libfuzzer/`, and
//! `tests/corpus.rs` with every input that was ever worth keeping.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a panic is how a target says that it found something"
)]

mod audio;
mod cached_verdict;
mod cluster;
mod config;
mod model_folder;
mod panics;
mod protocol;
mod raw_codec;
mod scratch;
mod seeds;
mod tensors;
mod training_data;

pub use audio::{au, decode, pcm};
pub use cached_verdict::cached_verdict;
pub use config::config;
pub use model_folder::model_folder;
pub use panics::watch_panics;
pub use protocol::protocol;
pub use seeds::seeds;
pub use tensors::tensors;
pub use training_data::{mel_npy, tracks_csv};

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Their inputs lie in `corpus/NAME`.
pub const TARGETS: [Target; 10] = [
    ("decode", decode),
    ("au", au),
    ("pcm", pcm),
    ("protocol", protocol),
    ("model_folder", model_folder),
    ("tracks_csv", tracks_csv),
    ("mel_npy", mel_npy),
    ("config", config),
    ("cached_verdict", cached_verdict),
    ("tensors", tensors),
];
