//! The arguments of `chorale features`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct FeaturesArguments {
    /// Audio file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// NumPy file to write: [chunks, 128, 96]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// u8: the bytes that the network gets; f32: dB below the chunk's loudest cell, before they are rounded to bytes
    #[arg(long, value_enum, default_value_t = CellType::U8)]
    pub(crate) dtype: CellType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CellType {
    U8,
    F32,
}
