//! The tensors that a model takes and gives.

use chorale_proto::inference::model_metadata_response::TensorMetadata;

/// The length of an element of `BYTES` stands before it in so many bytes.
pub(super) const LENGTH_BYTES: usize = size_of::<u32>();
/// The parameter of a tensor that lies in memory which client and server share.
pub(super) const SHARED_MEMORY: &str = "shared_memory_region";

/// The types of elements that our models have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datatype {
    /// A byte.
    Uint8,
    /// A number of 32 bits.
    Fp32,
    /// Any number of bytes.
    Bytes,
}

impl Datatype {
    /// As the protocol says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uint8 => "UINT8",
            Self::Fp32 => "FP32",
            Self::Bytes => "BYTES",
        }
    }

    /// The field of typed contents that holds its elements.
    pub(super) const fn field(self) -> &'static str {
        match self {
            Self::Uint8 => "uint_contents",
            Self::Fp32 => "fp32_contents",
            Self::Bytes => "bytes_contents",
        }
    }
}

/// A tensor that a model takes or gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: &'static str,
    /// The type of its elements.
    pub datatype: Datatype,
    /// Its dimensions; -1 is any number.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// As `ModelMetadata` says it.
    #[must_use]
    pub fn metadata(&self) -> TensorMetadata {
        let Self { name, datatype, shape } = self;
        TensorMetadata { name: (*name).to_owned(), datatype: datatype.name().to_owned(), shape: shape.clone() }
    }
}
