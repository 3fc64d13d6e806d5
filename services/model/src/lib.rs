//! What the numbers mean: the feature contract, the genres, the network, and the folder that a model lives in.
//!
//! A [`Classifier`] is a [`ModelFolder`] loaded onto a device:
//!
//! ```
//! use chorale_model::{Classifier, DeviceSpec, ModelFolder, contract};
//!
//! let classifier = Classifier::load(&ModelFolder::embedded()?, DeviceSpec::Cpu)?;
//! let chunk = vec![0_u8; contract::CHUNK_CELLS];
//! let probabilities = classifier.classify(&[&chunk])?;
//! assert_eq!(probabilities[0].len(), classifier.labels().len());
//! # Ok::<(), chorale_model::ModelError>(())
//! ```

mod architecture;
mod bands;
mod batch_front;
mod batches;
mod classifier;
pub mod contract;
mod convolution;
mod cost;
mod device;
pub mod embedding;
mod ensemble;
mod ensemble_start;
mod error;
mod filter_bank;
mod folder;
mod front;
mod heard;
mod image;
mod import;
mod kernels;
pub mod labels;
mod learning_front;
mod listener;
mod logits;
mod manifest;
mod network;
mod seed_cnn;
mod time_taps;
mod unfold;
mod vote;
mod weights;
mod whole_file;
mod winograd;

pub use architecture::{Architecture, EMBEDDING_FEATURES, EnsembleShape};
pub use classifier::{Answer, Classifier};
pub use convolution::convolve;
pub use device::DeviceSpec;
pub use embedding::MeanEmbedding;
pub use ensemble::{
    Ensemble, EnsembleFront, FROZEN_TENSORS, MUSIC_BIAS, MUSIC_WEIGHT, Member, mean_logits, member_tensor,
};
pub use ensemble_start::{EnsembleStart, Norm};
pub use error::{ModelError, Result};
pub use folder::{CARD_FILE, MANIFEST_FILE, ModelFolder, WEIGHTS_FILE};
pub use import::Adapter;
pub use learning_front::LearningFront;
pub use logits::Logits;
pub use manifest::{Licence, Manifest, SplitMetrics};
pub use seed_cnn::SeedCnn;
pub use unfold::{Fold, Patch, Unfold};
pub use vote::Votes;
pub use weights::{Array, Weights};
pub use whole_file::{WholeFile, write_whole};
