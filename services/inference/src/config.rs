//! The configuration of the inference role.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chorale_model::{DeviceSpec, ModelError};
use chorale_runtime::tls::ServerTlsConfig;
use serde::{Deserialize, Serialize};

use crate::{InferenceError, queue::BatchPolicy};

/// The largest `max_batch`: beyond it no device gains, and one batch would hold its chunks for seconds.
const MAX_BATCH_LIMIT: usize = 1_024;
/// The largest `max_queue_delay`: a longer one is a mistake of units.
const MAX_QUEUE_DELAY_LIMIT: Duration = Duration::from_secs(1);
/// How long an idle GPU waits for a batch to fill, unless it is configured.
const GPU_DELAY: Duration = Duration::from_millis(2);
/// The largest `queue_capacity`: 12 GiB of chunks.
const QUEUE_CAPACITY_LIMIT: usize = 1 << 20;

/// How chunks are classified.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct InferenceConfig {
    /// Where to answer. Default: `127.0.0.1:50053`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How feature services are spoken to. Default: without TLS.
    pub tls: Option<ServerTlsConfig>,
    /// The model folder. Default: none, which takes the model that is part of the binary.
    pub model: Option<PathBuf>,
    /// A folder of model folders, in place of `model`: its file `serving.toml` says which of them are served, with which
    /// weights. It is watched, and what it says is served without a restart. Default: none.
    pub models: Option<PathBuf>,
    /// How long a model stays loaded that left the set of `models` and that no chunk asks for: tracks under way are finished by
    /// the model that began them. Default: 60 s.
    #[serde(with = "humantime_serde")]
    pub model_linger: Duration,
    /// The devices to run the model on, each with a thread and a copy of the weights: `cpu`, `cuda:0`. A list, or one
    /// text with commas. Default: `cpu`.
    #[serde(with = "device_list")]
    pub devices: Vec<DeviceSpec>,
    /// Chunks in a batch at most. Default: 32. More raise a GPU's throughput, and everybody's latency.
    pub max_batch: usize,
    /// How long an idle device waits for a batch to fill, from the arrival of its first chunk. Zero runs whatever waits at
    /// once. Default: 2 ms if a device is a GPU; zero on the CPU, which takes no longer for its chunks one by one. What comes
    /// while a device is busy makes a batch either way.
    #[serde(with = "humantime_serde")]
    pub max_queue_delay: Option<Duration>,
    /// Chunks that may wait for a device at most, 12 KiB each; a further one is refused with `OVERLOADED`. A stream that has
    /// as many in flight is not read until some are answered. Default: 1024.
    pub queue_capacity: usize,
    /// How long chunks may wait for a device on average. After a second of longer waits fewer may wait than
    /// `queue_capacity`, down to a batch or one track's 32, until waits are shorter. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub target_wait: Duration,
    /// How long a forward pass may run. After that the device hangs: the process ends, to be started again. Default: 60 s, a
    /// thousand times what a full batch takes on a processor.
    #[serde(with = "humantime_serde")]
    pub max_forward_time: Duration,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50_053)),
            tls: None,
            model: None,
            models: None,
            model_linger: Duration::from_secs(60),
            devices: vec![DeviceSpec::Cpu],
            max_batch: 32,
            max_queue_delay: None,
            queue_capacity: 1_024,
            target_wait: Duration::from_secs(1),
            max_forward_time: Duration::from_secs(60),
        }
    }
}

impl InferenceConfig {
    /// Checks what can be checked without touching a port, a file or a device.
    ///
    /// # Errors
    /// [`InferenceError::Config`] naming the first key that cannot be used, and [`InferenceError::Model`] for a device
    /// that this build does not support.
    pub fn validate(&self) -> Result<(), InferenceError> {
        let check = |fits: bool, key, expected: String, found: String| {
            if fits { Ok(()) } else { Err(InferenceError::Config { key, expected, found }) }
        };
        check(
            (1..=MAX_BATCH_LIMIT).contains(&self.max_batch),
            "max_batch",
            format!("1 to {MAX_BATCH_LIMIT} chunks"),
            self.max_batch.to_string(),
        )?;
        check(
            self.max_queue_delay() <= MAX_QUEUE_DELAY_LIMIT,
            "max_queue_delay",
            format!("at most {MAX_QUEUE_DELAY_LIMIT:?}"),
            format!("{:?}", self.max_queue_delay()),
        )?;
        check(
            (self.max_batch..=QUEUE_CAPACITY_LIMIT).contains(&self.queue_capacity),
            "queue_capacity",
            format!("{} (one batch) to {QUEUE_CAPACITY_LIMIT} chunks", self.max_batch),
            self.queue_capacity.to_string(),
        )?;
        check(
            !self.target_wait.is_zero(),
            "target_wait",
            "more than nothing".to_owned(),
            format!("{:?}", self.target_wait),
        )?;
        check(
            self.max_forward_time >= Duration::from_secs(1),
            "max_forward_time",
            "at least 1s".to_owned(),
            format!("{:?}", self.max_forward_time),
        )?;
        check(
            self.model.is_none() || self.models.is_none(),
            "models",
            "either it or `model`".to_owned(),
            "both".to_owned(),
        )?;
        check(!self.devices.is_empty(), "devices", "at least one device".to_owned(), "none".to_owned())?;
        for (position, &device) in self.devices.iter().enumerate() {
            let repeated = self.devices.iter().take(position).any(|&earlier| earlier == device);
            check(!repeated, "devices", "each device once".to_owned(), format!("{device} twice"))?;
            if matches!(device, DeviceSpec::Cuda(_)) && !cfg!(feature = "cuda") {
                return Err(ModelError::DeviceNotBuilt(device).into());
            }
        }
        Ok(())
    }

    /// How long an idle device waits for a batch to fill: what was configured, or what suits the devices.
    pub(crate) fn max_queue_delay(&self) -> Duration {
        let of_devices =
            if self.devices.iter().all(|device| *device == DeviceSpec::Cpu) { Duration::ZERO } else { GPU_DELAY };
        self.max_queue_delay.unwrap_or(of_devices)
    }

    pub(crate) fn batch_policy(&self) -> BatchPolicy {
        BatchPolicy {
            max_batch: self.max_batch,
            max_queue_delay: self.max_queue_delay(),
            queue_capacity: self.queue_capacity,
            target_wait: self.target_wait,
        }
    }
}

/// Devices as texts: a list in a file, one text with commas in the environment.
mod device_list {
    use chorale_model::DeviceSpec;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Devices {
        List(Vec<String>),
        Commas(String),
    }

    pub(super) fn serialize<S: Serializer>(devices: &[DeviceSpec], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(devices.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DeviceSpec>, D::Error> {
        let parse = |name: &str| name.trim().parse().map_err(D::Error::custom);
        match Devices::deserialize(deserializer)
            .map_err(|_| D::Error::custom("expected a list of devices, or their names with commas between"))?
        {
            Devices::List(names) => names.iter().map(|name| parse(name)).collect(),
            Devices::Commas(names) => names.split(',').map(parse).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use chorale_runtime::config::{flag_value, load};

    use super::*;

    fn devices(value: impl Serialize) -> Result<Vec<DeviceSpec>, String> {
        let flags = [("devices", flag_value(value).unwrap())];
        load::<InferenceConfig>(None, &flags).map(|config| config.devices).map_err(|error| error.to_string())
    }

    #[test]
    fn devices_are_a_list_or_a_text_with_commas() {
        assert_eq!(devices(["cuda:1", "cpu"]).unwrap(), [DeviceSpec::Cuda(1), DeviceSpec::Cpu]);
        assert_eq!(devices("cuda:0, cuda:1").unwrap(), [DeviceSpec::Cuda(0), DeviceSpec::Cuda(1)]);
        let error = devices("cpu,tpu").unwrap_err();
        assert!(error.contains("devices") && error.contains("`tpu`"), "{error}");
        assert!(devices(7).unwrap_err().contains("list of devices"));
    }

    #[test]
    fn the_default_is_valid_and_survives_the_loader() {
        InferenceConfig::default().validate().unwrap();
        assert_eq!(load::<InferenceConfig>(None, &[]).unwrap(), InferenceConfig::default());
        let flags = [("max_queue_delay", flag_value("5ms").unwrap())];
        assert_eq!(load::<InferenceConfig>(None, &flags).unwrap().max_queue_delay(), Duration::from_millis(5));
        assert!(load::<InferenceConfig>(None, &[("max_batches", flag_value(8).unwrap())]).is_err());
    }

    #[test]
    fn an_idle_gpu_waits_for_more_and_an_idle_cpu_does_not() {
        let delay = |devices: &[DeviceSpec], max_queue_delay| {
            InferenceConfig { devices: devices.to_vec(), max_queue_delay, ..InferenceConfig::default() }
                .max_queue_delay()
        };
        let (cpu, gpu) = (DeviceSpec::Cpu, DeviceSpec::Cuda(0));
        assert_eq!(delay(&[cpu], None), Duration::ZERO);
        assert_eq!(delay(&[cpu, gpu], None), GPU_DELAY);
        assert_eq!(delay(&[cpu], Some(GPU_DELAY * 2)), GPU_DELAY * 2);
        assert_eq!(delay(&[gpu], Some(Duration::ZERO)), Duration::ZERO);
    }

    #[test]
    fn a_value_that_cannot_be_names_its_key_and_what_would_be_right() {
        let default = InferenceConfig::default;
        for (config, message) in [
            (InferenceConfig { max_batch: 0, ..default() }, "inference.max_batch: expected 1 to 1024 chunks, found 0"),
            (
                InferenceConfig { queue_capacity: 31, ..default() },
                "inference.queue_capacity: expected 32 (one batch) to 1048576 chunks, found 31",
            ),
            (
                InferenceConfig { max_queue_delay: Some(Duration::from_secs(2)), ..default() },
                "inference.max_queue_delay: expected at most 1s, found 2s",
            ),
            (
                InferenceConfig { target_wait: Duration::ZERO, ..default() },
                "inference.target_wait: expected more than nothing, found 0ns",
            ),
            (
                InferenceConfig { model: Some("a".into()), models: Some("b".into()), ..default() },
                "inference.models: expected either it or `model`, found both",
            ),
            (
                InferenceConfig { devices: Vec::new(), ..default() },
                "inference.devices: expected at least one device, found none",
            ),
            (
                InferenceConfig { devices: vec![DeviceSpec::Cpu; 2], ..default() },
                "inference.devices: expected each device once, found cpu twice",
            ),
        ] {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_this_build_does_not_support_is_refused_before_anything_starts() {
        let config = InferenceConfig { devices: vec![DeviceSpec::Cuda(0)], ..InferenceConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("--features cuda"));
    }
}
