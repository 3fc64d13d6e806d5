//! Everything that can go wrong with a model.

use std::path::PathBuf;

use crate::DeviceSpec;

/// A result whose error is a [`ModelError`].
pub type Result<T> = std::result::Result<T, ModelError>;

/// Why a model could not be read, written, loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of a model folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A model folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file of a model folder is too large to be what its name says.
    #[error("{file} holds more than {limit} bytes, which no model of this architecture needs")]
    TooLarge {
        /// The file's name.
        file: String,
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// A JSON file is not what it should be.
    #[error("{file} is not valid: {source}")]
    Json {
        /// The file's name.
        file: String,
        /// What is wrong, and in which line.
        source: serde_json::Error,
    },
    /// A field of `model.json`, or of the adapter, has a value that cannot be.
    #[error("{field}: expected {expected}, found {found}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The weights are not a safetensors file.
    #[error("the weights are not a valid safetensors file: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A tensor of the architecture is not in the file.
    #[error("the weights have no tensor `{0}`")]
    MissingTensor(String),
    /// The file holds a tensor that the architecture does not have.
    #[error("the weights hold a tensor `{0}` that the architecture does not have")]
    UnknownTensor(String),
    /// A tensor has another shape than the architecture says.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The tensor's name.
        name: String,
        /// The shape by the architecture.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in another type than 32-bit floats.
    #[error("tensor `{name}`: expected type F32, found {found}")]
    TensorType {
        /// The tensor's name.
        name: String,
        /// The type in the file.
        found: String,
    },
    /// A tensor holds an infinity or NaN.
    #[error("tensor `{0}` holds a value that is not finite")]
    NotFinite(String),
    /// A BatchNorm has a negative running variance.
    #[error("tensor `{0}` holds a negative variance")]
    NegativeVariance(String),
    /// An array has another number of values than its shape says.
    #[error("an array of shape {shape:?} cannot hold {values} values")]
    ArraySize {
        /// The shape.
        shape: Vec<usize>,
        /// How many values there are.
        values: usize,
    },
    /// A chunk has the wrong number of cells.
    #[error("chunk {index} of the batch: expected {expected} bytes, found {found}")]
    ChunkSize {
        /// Position in the batch, from 0.
        index: usize,
        /// Cells of a chunk by the feature contract.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// Text is not the name of a device.
    #[error("unknown device `{0}`: expected `cpu`, `cuda` or `cuda:N`")]
    UnknownDevice(String),
    /// This build has no support for the device.
    #[error("this build has no CUDA support, so {0} cannot be used: rebuild with `--features cuda`, or use `cpu`")]
    DeviceNotBuilt(DeviceSpec),
    /// The device cannot be opened.
    #[error("cannot open {device}: {reason}")]
    DeviceUnavailable {
        /// The device asked for.
        device: DeviceSpec,
        /// What the driver says.
        reason: String,
    },
    /// The weights are finite, but so large that the network's answer is not.
    #[error("model {0} answers with probabilities that are not finite: its weights are broken")]
    NotFiniteAnswer(String),
    /// A computation failed on the device.
    #[error("the network failed: {0}")]
    Compute(#[from] candle_core::Error),
}
