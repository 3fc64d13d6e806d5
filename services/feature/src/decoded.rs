//! What a decoder hands on: mono samples, and what it noticed on the way.

use crate::analyze::{Limits, Warning, WarningKind};
use crate::error::FeatureError;

/// Below this no music was ever stored; a header that says so is broken.
const MIN_SAMPLE_RATE: u32 = 1_000;

/// Mono samples at the rate of the source.
#[derive(Clone, Copy)]
pub(crate) struct MonoBlock<'a> {
    pub(crate) sample_rate: u32,
    pub(crate) samples: &'a [f32],
}

/// Receives decoded audio, in order.
pub(crate) type MonoSink<'a> = dyn FnMut(MonoBlock<'_>) -> Result<(), FeatureError> + 'a;

/// What was decoded.
pub(crate) struct Decoded {
    pub(crate) container: String,
    pub(crate) codec: String,
    pub(crate) sample_rate: u32,
    pub(crate) channels: u32,
    damage_count: u32,
    damage_first_seconds: f64,
    /// The length that the container promised, in seconds, if that is more than came. 0 if it did not say.
    pub(crate) cut_short: Option<f64>,
    pub(crate) extra_tracks: u32,
}

impl Decoded {
    pub(crate) fn new(container: &str, codec: &str, sample_rate: u32, channels: u32) -> Self {
        Self {
            container: container.to_owned(),
            codec: codec.to_owned(),
            sample_rate,
            channels,
            damage_count: 0,
            damage_first_seconds: 0.0,
            cut_short: None,
            extra_tracks: 0,
        }
    }

    /// Counts `count` pieces of damage at `seconds`.
    pub(crate) fn damage(&mut self, count: u64, seconds: f64) {
        if self.damage_count == 0 {
            self.damage_first_seconds = seconds;
        }
        self.damage_count = self.damage_count.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    pub(crate) fn warnings(&self, duration_seconds: f64) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.damage_count > 0 {
            let (count, first_seconds) = (self.damage_count, self.damage_first_seconds);
            let pieces = if count == 1 { "1 piece".to_owned() } else { format!("{count} pieces") };
            warnings.push(Warning {
                kind: WarningKind::DecodeDamage,
                message: format!("{pieces} of damaged audio left out, the first at {first_seconds:.1} s"),
                count,
                first_seconds,
            });
        }
        if let Some(promised) = self.cut_short {
            let message = if promised > 0.0 {
                format!("the audio ends after {duration_seconds:.1} s of the {promised:.1} s that its header promises")
            } else {
                format!("the audio breaks off after {duration_seconds:.1} s")
            };
            let kind = WarningKind::Truncated;
            warnings.push(Warning { kind, message, count: 1, first_seconds: duration_seconds });
        }
        if self.extra_tracks > 0 {
            warnings.push(Warning {
                kind: WarningKind::ExtraTracks,
                message: format!("{} more audio tracks were not heard", self.extra_tracks),
                count: self.extra_tracks,
                first_seconds: 0.0,
            });
        }
        warnings
    }
}

/// Refuses what no header should say.
pub(crate) fn check_signal(sample_rate: u32, channels: u32, limits: &Limits) -> Result<(), FeatureError> {
    let exceeded = |limit, value: u32, allowed: u32| {
        Err(FeatureError::LimitExceeded { limit, value: u64::from(value), allowed: u64::from(allowed) })
    };
    if sample_rate > limits.max_sample_rate {
        exceeded("max_sample_rate", sample_rate, limits.max_sample_rate)
    } else if channels > limits.max_channels {
        exceeded("max_channels", channels, limits.max_channels)
    } else if sample_rate < MIN_SAMPLE_RATE || channels == 0 {
        Err(FeatureError::Unsupported { found: format!("audio with {channels} channels at {sample_rate} Hz") })
    } else {
        Ok(())
    }
}
