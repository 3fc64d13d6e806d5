//! The configuration of the feature service.

use std::{net::SocketAddr, num::NonZeroUsize, thread::available_parallelism, time::Duration};

use bytesize::ByteSize;
use chorale_runtime::{
    replicas::Target,
    tls::{ClientTlsConfig, ServerTlsConfig},
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Limits, StartError};

/// The configuration of the feature service, the section `feature`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeatureConfig {
    /// Where to listen. Default: `127.0.0.1:50052`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the inference replicas are: one target or a list of them. Default: `http://127.0.0.1:50053`.
    #[serde(deserialize_with = "one_or_many")]
    pub inference: Vec<Target>,
    /// Whom to believe that is an inference replica, for targets with `https://`.
    pub inference_tls: ClientTlsConfig,
    /// How gateways are spoken to. Default: without TLS.
    pub tls: Option<ServerTlsConfig>,
    /// What a track may cost.
    pub limits: FeatureLimits,
    /// Tracks that are decoded at a time. Default: as many as the process sees cores, which in a container are those of its CPU
    /// limit, or without one those of the machine: then it helps to say how many are its own.
    pub cores: Option<NonZeroUsize>,
    /// Tracks taken in at a time; one more is refused as overload. As many as there are `cores` are decoded at a time, the
    /// others wait for their turn, or for their upload. Default: 256.
    pub max_concurrent_streams: NonZeroUsize,
    /// How long tracks may wait for a core on average. After a second of longer waits fewer may wait, until waits are
    /// shorter; further ones are refused as overload. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub target_wait: Duration,
    /// How chunks reach the inference replicas.
    pub dispatch: DispatchConfig,
}

impl FeatureConfig {
    /// Checks what the types cannot. Touches no port.
    ///
    /// # Errors
    /// [`StartError::NoInference`] without a target.
    pub fn validate(&self) -> Result<(), StartError> {
        if self.inference.is_empty() { Err(StartError::NoInference) } else { Ok(()) }
    }
}

impl FeatureConfig {
    /// Tracks that are decoded at a time.
    pub(crate) fn cores(&self) -> usize {
        self.cores.map_or_else(|| available_parallelism().map_or(1, NonZeroUsize::get), NonZeroUsize::get)
    }
}

impl Default for FeatureConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50_052)),
            inference: vec![SocketAddr::from(([127, 0, 0, 1], 50_053)).into()],
            inference_tls: ClientTlsConfig::default(),
            tls: None,
            limits: FeatureLimits::default(),
            cores: None,
            max_concurrent_streams: NonZeroUsize::MIN.saturating_add(255),
            target_wait: Duration::from_secs(2),
            dispatch: DispatchConfig::default(),
        }
    }
}

/// What a track may cost. The defaults are those of [`Limits`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeatureLimits {
    /// Bytes of audio, before decoding.
    pub max_audio_bytes: ByteSize,
    /// How long the decoded audio may be.
    #[serde(with = "humantime_serde")]
    pub max_duration: Duration,
    /// Channels.
    pub max_channels: u32,
    /// Samples a second of one channel, in Hz.
    pub max_sample_rate: u32,
    /// How long a track may be decoded, without the time in which it waits.
    #[serde(with = "humantime_serde")]
    pub max_decode_time: Duration,
}

impl Default for FeatureLimits {
    fn default() -> Self {
        let Limits { max_audio_bytes, max_duration, max_channels, max_sample_rate, max_decode_time } =
            Limits::default();
        let max_audio_bytes = ByteSize::b(max_audio_bytes);
        Self { max_audio_bytes, max_duration, max_channels, max_sample_rate, max_decode_time }
    }
}

impl From<&FeatureLimits> for Limits {
    fn from(limits: &FeatureLimits) -> Self {
        Self {
            max_audio_bytes: limits.max_audio_bytes.as_u64(),
            max_duration: limits.max_duration,
            max_channels: limits.max_channels,
            max_sample_rate: limits.max_sample_rate,
            max_decode_time: limits.max_decode_time,
        }
    }
}

/// How chunks reach the inference replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DispatchConfig {
    /// Chunks of one track that wait for an answer at a time; the decoder pauses beyond. Default: 32.
    pub window: NonZeroUsize,
    /// How long a chunk waits while no replica can be reached. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub connect_patience: Duration,
    /// How long a chunk is offered to replicas that are all overloaded. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub overload_patience: Duration,
    /// How long a replica may take to answer a chunk before another one gets it. Default: 60 s.
    #[serde(with = "humantime_serde")]
    pub answer_patience: Duration,
}

impl Default for DispatchConfig {
    fn default() -> Self {
        Self {
            window: NonZeroUsize::MIN.saturating_add(31),
            connect_patience: Duration::from_secs(5),
            overload_patience: Duration::from_secs(30),
            answer_patience: Duration::from_secs(60),
        }
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Target>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected `http://host:port` or `https://host:port`, or a list of such")]
    enum OneOrMany {
        One(Target),
        Many(Vec<Target>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(target) => vec![target],
        OneOrMany::Many(targets) => targets,
    })
}

#[cfg(test)]
mod tests {
    use chorale_runtime::config::{flag_value, load};

    use super::*;

    #[test]
    fn inference_is_one_target_or_a_list() {
        let one = [("inference", flag_value("inference:50053").unwrap())];
        let config: FeatureConfig = load(None, &one).unwrap();
        assert_eq!(config.inference, ["http://inference:50053".parse().unwrap()]);
        let two = [("inference", flag_value(["a:1", "b:2"]).unwrap())];
        let config: FeatureConfig = load(None, &two).unwrap();
        assert_eq!(config.inference, ["a:1", "b:2"].map(|target| target.parse().unwrap()));
        let wrong = [("inference", flag_value("ftp://a:1").unwrap())];
        let error = load::<FeatureConfig>(None, &wrong).unwrap_err().to_string();
        assert!(error.contains("http://host:port"), "{error}");
    }

    #[test]
    fn the_defaults_survive_a_round_trip() {
        let config: FeatureConfig = load(None, &[]).unwrap();
        assert_eq!(config, FeatureConfig::default());
        assert_eq!(Limits::from(&config.limits), Limits::default());
    }
}
