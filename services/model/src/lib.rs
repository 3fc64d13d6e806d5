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
mod backbone;
mod classifier;
pub mod contract;
mod cost;
mod device;
mod error;
mod filter_bank;
mod folder;
mod head;
mod import;
pub mod labels;
mod manifest;
mod weights;

pub use architecture::{ARCHITECTURE, EMBEDDING_FEATURES, POOLED_FEATURES};
pub use backbone::Backbone;
pub use classifier::Classifier;
pub use device::DeviceSpec;
pub use error::{ModelError, Result};
pub use folder::{CARD_FILE, MANIFEST_FILE, ModelFolder, WEIGHTS_FILE};
pub use head::{Head, probabilities};
pub use import::{Adapter, import_musicnn};
pub use manifest::{Licence, Manifest, SplitMetrics};
pub use weights::{Array, Weights};
