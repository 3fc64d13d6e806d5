//! Everything that can go wrong in the inference role.

use std::path::PathBuf;

use chorale_model::{DeviceSpec, ModelError};
use chorale_runtime::server::ServerError;

/// Why the role cannot start, or a forward pass gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// A value of the configuration cannot be used.
    #[error("inference.{key}: expected {expected}, found {found}")]
    Config {
        /// The key below `inference`.
        key: &'static str,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The port cannot be bound or served.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The file that says which models are served cannot be used.
    #[error("{}: {problem}", path.display())]
    ServingFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A model that the file names cannot be used.
    #[error("{}: model `{model}`: {source}", path.display())]
    ServedModel {
        /// The file.
        path: PathBuf,
        /// The model, as the file names it.
        model: String,
        /// What is wrong with it.
        source: Box<InferenceError>,
    },
    /// The model cannot be read, or this build cannot run it.
    #[error("model: {0}")]
    Model(#[from] ModelError),
    /// Reading or loading the model was cut off.
    #[error("model: loading it stopped unexpectedly: {0}")]
    LoadStopped(tokio::task::JoinError),
    /// The operating system gave no thread.
    #[error("device {device}: cannot start its thread: {source}")]
    Thread {
        /// The device that the thread is for.
        device: DeviceSpec,
        /// Why not.
        source: std::io::Error,
    },
    /// The model could not be put onto the device.
    #[error("device {device}: cannot load the model: {source}")]
    Load {
        /// The device.
        device: DeviceSpec,
        /// Why not.
        source: ModelError,
    },
    /// A model is not on a device.
    #[error("device {device}: the model {version} was not loaded")]
    NotLoaded {
        /// The device.
        device: DeviceSpec,
        /// The hash of the model's weights.
        version: String,
    },
    /// The device failed in a forward pass.
    #[error("device {device}: forward pass over {chunks} chunks: {source}")]
    Forward {
        /// The device.
        device: DeviceSpec,
        /// Chunks in the batch.
        chunks: usize,
        /// How.
        source: ModelError,
    },
    /// A forward pass panicked.
    #[error("device {device}: forward pass over {chunks} chunks panicked: {message}")]
    Panicked {
        /// The device.
        device: DeviceSpec,
        /// Chunks in the batch.
        chunks: usize,
        /// What the panic said.
        message: String,
    },
    /// A forward pass returned something else than one finite probability for each chunk and label.
    #[error(
        "device {device}: forward pass over {chunks} chunks: expected {labels} finite probabilities for each, found {found}"
    )]
    Output {
        /// The device.
        device: DeviceSpec,
        /// Chunks in the batch.
        chunks: usize,
        /// Labels of the model.
        labels: usize,
        /// What came.
        found: String,
    },
}
