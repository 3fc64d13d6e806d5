//! Everything that can go wrong in the inference role.

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
    /// The model cannot be read, or this build cannot run it.
    #[error("model: {0}")]
    Model(#[from] ModelError),
    /// Reading the model was cut off.
    #[error("model: reading it stopped unexpectedly: {0}")]
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
    /// The thread that owns the device ended before it was ready.
    #[error("device {device}: its thread panicked while it loaded the model")]
    ThreadEnded {
        /// The device.
        device: DeviceSpec,
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
