//! Compiles the protocol without a system protoc, and keeps the descriptors for server reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 5] = [
    "chorale/v1/classifier.proto",
    "chorale/v1/feature.proto",
    "chorale/v1/inference.proto",
    "chorale/v1/model.proto",
    "inference/grpc_predict_v2.proto",
];
/// The Open Inference Protocol, which has a codec of its own.
const OPEN_INFERENCE: &str = "inference";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=chorale");
    println!("cargo:rerun-if-changed=inference");
    let descriptors = protox::compile(FILES, ["."])?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let (mut open, mut ours) = (descriptors.clone(), descriptors);
    open.file.retain(|file| file.package() == OPEN_INFERENCE);
    ours.file.retain(|file| file.package() != OPEN_INFERENCE);
    tonic_prost_build::configure().bytes(".").compile_fds(ours)?;
    let codec = "crate::bounded_codec::BoundedCodec";
    tonic_prost_build::configure().bytes(".").codec_path(codec).compile_fds(open)?;
    Ok(())
}
