//! The names of devices, as on the command line.

use std::{fmt, str::FromStr};

use candle_core::Device;

use crate::{ModelError, Result};

/// A device that a network can run on: `cpu`, or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceSpec {
    /// The processor. The number of threads is the environment variable `RAYON_NUM_THREADS`, by default one a core; it
    /// changes speed, not results. A service should set it: without it, candle counts the cores anew for every matrix
    /// product, which on Linux reads `/proc/cpuinfo` and takes longer the more cores there are.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this index, as CUDA counts them.
    Cuda(usize),
}

impl DeviceSpec {
    /// Opens the device.
    ///
    /// # Errors
    /// [`ModelError::DeviceNotBuilt`] for CUDA in a build without the `cuda` feature, and
    /// [`ModelError::DeviceUnavailable`] where there is no such GPU.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Err(ModelError::DeviceNotBuilt(self)),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => chorale_cuda::open(index)
                .map_err(|error| ModelError::DeviceUnavailable { device: self, reason: error.to_string() }),
        }
    }

    /// Bytes of its own memory that are in use, by whomever. `None` for the processor, and for a GPU that does not answer.
    #[must_use]
    pub fn memory_in_use(self) -> Option<u64> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => chorale_cuda::memory_in_use(index).ok().and_then(|bytes| u64::try_from(bytes).ok()),
            _ => None,
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || ModelError::UnknownDevice(text.to_owned());
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            // `usize::from_str` also takes a plus sign, which no device name has.
            Some(("cuda", index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                index.parse().map(Self::Cuda).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, device) in
            [("cpu", DeviceSpec::Cpu), ("cuda:0", DeviceSpec::Cuda(0)), ("cuda:13", DeviceSpec::Cuda(13))]
        {
            assert_eq!(text.parse::<DeviceSpec>().unwrap(), device);
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceSpec>().unwrap(), DeviceSpec::Cuda(0));
    }

    #[test]
    fn anything_else_is_an_error_that_quotes_it() {
        for text in ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:99999999999999999999"] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_without_the_feature_says_how_to_get_it() {
        let error = DeviceSpec::Cuda(1).open().unwrap_err().to_string();
        assert!(error.contains("cuda:1") && error.contains("--features cuda"), "{error}");
    }
}
