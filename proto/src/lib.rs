//! The RPCs of Chorale, generated from `chorale/v1/*.proto`, and those of the Open Inference Protocol. The comments there are
//! the documentation.

pub mod bounded_codec;

/// Package `chorale.v1`.
pub mod v1 {
    #![allow(clippy::all, rustdoc::all, unreachable_pub, reason = "generated code")]
    tonic::include_proto!("chorale.v1");
}

/// Package `inference`: the Open Inference Protocol, version 2.
pub mod inference {
    #![allow(clippy::all, rustdoc::all, unreachable_pub, reason = "generated code")]
    tonic::include_proto!("inference");
}

/// The encoded `google.protobuf.FileDescriptorSet` of every file of this crate and what it imports, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The full names of the services, as health checks and reflection use them.
pub mod service_names {
    /// The public service, on a gateway.
    pub const CLASSIFIER: &str = "chorale.v1.ClassifierService";
    /// The internal service that turns audio into classified chunks.
    pub const FEATURE: &str = "chorale.v1.FeatureService";
    /// The internal service that classifies chunks.
    pub const INFERENCE: &str = "chorale.v1.InferenceService";
    /// The Open Inference Protocol, on a gateway and on inference.
    pub const OPEN_INFERENCE: &str = "inference.GRPCInferenceService";
}
