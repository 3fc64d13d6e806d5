//! Uncompressed samples: raw PCM as its sender declares it, and the sample formats of `.au`.

use crate::analyze::Limits;
use crate::decoded::{Decoded, MonoBlock, MonoSink, check_signal};
use crate::error::FeatureError;
use crate::mono::sanitize;
use crate::source::AudioSource;
use std::io::Read;

/// How a raw sample is stored. Full scale is ±1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SampleFormat {
    /// Signed 16-bit integer, little-endian.
    S16Le,
    /// Signed 24-bit integer in three bytes, little-endian.
    S24Le,
    /// Signed 32-bit integer, little-endian.
    S32Le,
    /// 32-bit IEEE float, little-endian.
    F32Le,
    /// Unsigned 8-bit integer, 128 is zero.
    U8,
}

/// Raw samples: interleaved, without a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PcmSpec {
    /// How a sample is stored.
    pub format: SampleFormat,
    /// Samples a second of one channel, in Hz.
    pub sample_rate: u32,
    /// Channels, interleaved.
    pub channels: u32,
}

/// Every way of storing a sample that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    U8,
    S8,
    MuLaw,
    ALaw,
    S16Le,
    S16Be,
    S24Le,
    S24Be,
    S32Le,
    S32Be,
    F32Le,
    F32Be,
    F64Be,
}

impl From<SampleFormat> for Encoding {
    fn from(format: SampleFormat) -> Self {
        match format {
            SampleFormat::S16Le => Self::S16Le,
            SampleFormat::S24Le => Self::S24Le,
            SampleFormat::S32Le => Self::S32Le,
            SampleFormat::F32Le => Self::F32Le,
            SampleFormat::U8 => Self::U8,
        }
    }
}

impl Encoding {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::S8 | Self::MuLaw | Self::ALaw => 1,
            Self::S16Le | Self::S16Be => 2,
            Self::S24Le | Self::S24Be => 3,
            Self::S32Le | Self::S32Be | Self::F32Le | Self::F32Be => 4,
            Self::F64Be => 8,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::U8 => "pcm_u8",
            Self::S8 => "pcm_s8",
            Self::MuLaw => "pcm_mulaw",
            Self::ALaw => "pcm_alaw",
            Self::S16Le => "pcm_s16le",
            Self::S16Be => "pcm_s16be",
            Self::S24Le => "pcm_s24le",
            Self::S24Be => "pcm_s24be",
            Self::S32Le => "pcm_s32le",
            Self::S32Be => "pcm_s32be",
            Self::F32Le => "pcm_f32le",
            Self::F32Be => "pcm_f32be",
            Self::F64Be => "pcm_f64be",
        }
    }

    /// One sample from its [`bytes`](Self::bytes); anything shorter is silence.
    fn sample(self, bytes: &[u8]) -> f32 {
        const SCALE_16: f32 = 1.0 / 32_768.0;
        const SCALE_32: f64 = 1.0 / 2_147_483_648.0;
        let sample_32 = |value: i32| (f64::from(value) * SCALE_32) as f32;
        match (self, bytes) {
            (Self::U8, &[a]) => (f32::from(a) - 128.0) / 128.0,
            (Self::S8, &[a]) => f32::from(a.cast_signed()) / 128.0,
            (Self::MuLaw, &[a]) => f32::from(mu_law(a)) * SCALE_16,
            (Self::ALaw, &[a]) => f32::from(a_law(a)) * SCALE_16,
            (Self::S16Le, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) * SCALE_16,
            (Self::S16Be, &[a, b]) => f32::from(i16::from_be_bytes([a, b])) * SCALE_16,
            (Self::S24Le, &[a, b, c]) => sample_32(i32::from_le_bytes([0, a, b, c])),
            (Self::S24Be, &[a, b, c]) => sample_32(i32::from_be_bytes([a, b, c, 0])),
            (Self::S32Le, &[a, b, c, d]) => sample_32(i32::from_le_bytes([a, b, c, d])),
            (Self::S32Be, &[a, b, c, d]) => sample_32(i32::from_be_bytes([a, b, c, d])),
            (Self::F32Le, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::F32Be, &[a, b, c, d]) => f32::from_be_bytes([a, b, c, d]),
            (Self::F64Be, &[a, b, c, d, e, f, g, h]) => f64::from_be_bytes([a, b, c, d, e, f, g, h]) as f32,
            _ => 0.0,
        }
    }
}

/// ITU-T G.711 µ-law to 16 bits.
fn mu_law(code: u8) -> i16 {
    let code = !code;
    let magnitude = (((i16::from(code & 0x0f) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84;
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// ITU-T G.711 A-law to 16 bits.
fn a_law(code: u8) -> i16 {
    let code = code ^ 0x55;
    let mantissa = i16::from(code & 0x0f) << 4;
    let magnitude = match (code & 0x70) >> 4 {
        0 => mantissa + 8,
        exponent => (mantissa + 0x108) << (exponent - 1),
    };
    if code & 0x80 == 0 { -magnitude } else { magnitude }
}

/// Interleaved samples, from where `reader` stands to its end, or to `frames` if that is known.
pub(crate) struct Interleaved {
    pub(crate) encoding: Encoding,
    pub(crate) sample_rate: u32,
    pub(crate) channels: u32,
    pub(crate) frames: Option<u64>,
}

impl Interleaved {
    pub(crate) fn decode(
        &self,
        source: &AudioSource,
        reader: &mut impl Read,
        limits: &Limits,
        container: &str,
        sink: &mut MonoSink<'_>,
    ) -> Result<Decoded, FeatureError> {
        const BLOCK_FRAMES: usize = 4096;
        source.found_codec(self.encoding.name());
        check_signal(self.sample_rate, self.channels, limits)?;
        let mut decoded = Decoded::new(container, self.encoding.name(), self.sample_rate, self.channels);
        let sample_bytes = self.encoding.bytes();
        let frame_bytes = sample_bytes * self.channels as usize;
        let mut bytes = vec![0; BLOCK_FRAMES * frame_bytes];
        let mut mono = Vec::with_capacity(BLOCK_FRAMES);
        let mut frames_left = self.frames.unwrap_or(u64::MAX);
        let mut frames_done = 0_u64;
        while frames_left > 0 {
            let wanted = frames_left.min(BLOCK_FRAMES as u64) as usize * frame_bytes;
            let wanted = bytes.get_mut(..wanted).unwrap_or_default();
            let read = reader.read(wanted).map_err(|error| source.failure().unwrap_or(FeatureError::Io(error)))?;
            let mut damaged = 0;
            mono.clear();
            for frame in wanted.get(..read).unwrap_or_default().chunks_exact(frame_bytes) {
                let samples = frame.chunks_exact(sample_bytes).map(|bytes| self.encoding.sample(bytes));
                let sum: f32 = samples.map(|sample| sanitize(sample, &mut damaged)).sum();
                mono.push(sum / self.channels as f32);
            }
            if damaged > 0 {
                decoded.damage(damaged, frames_done as f64 / f64::from(self.sample_rate));
            }
            sink(MonoBlock { sample_rate: self.sample_rate, samples: &mono })?;
            frames_done += mono.len() as u64;
            frames_left -= mono.len() as u64;
            if read < wanted.len() {
                decoded.cut_short = self.frames.map(|frames| frames as f64 / f64::from(self.sample_rate));
                break;
            }
        }
        Ok(decoded)
    }
}

/// Decodes raw PCM.
pub(crate) fn decode(
    source: &AudioSource,
    spec: PcmSpec,
    limits: &Limits,
    sink: &mut MonoSink<'_>,
) -> Result<Decoded, FeatureError> {
    let samples = Interleaved {
        encoding: spec.format.into(),
        sample_rate: spec.sample_rate,
        channels: spec.channels,
        frames: None,
    };
    samples.decode(source, &mut source.stream(), limits, "pcm", sink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_reach_full_scale() {
        assert_eq!(Encoding::U8.sample(&[0]), -1.0);
        assert_eq!(Encoding::U8.sample(&[128]), 0.0);
        assert_eq!(Encoding::S8.sample(&[0x80]), -1.0);
        assert_eq!(Encoding::S16Le.sample(&[0x00, 0x80]), -1.0);
        assert_eq!(Encoding::S16Be.sample(&[0x40, 0x00]), 0.5);
        assert_eq!(Encoding::S24Le.sample(&[0, 0, 0x80]), -1.0);
        assert_eq!(Encoding::S24Be.sample(&[0x40, 0, 0]), 0.5);
        assert_eq!(Encoding::S32Le.sample(&[0, 0, 0, 0x80]), -1.0);
        assert_eq!(Encoding::F32Be.sample(&0.25_f32.to_be_bytes()), 0.25);
        assert_eq!(Encoding::F64Be.sample(&0.25_f64.to_be_bytes()), 0.25);
        assert_eq!(Encoding::S16Le.sample(&[1]), 0.0);
    }

    #[test]
    fn companded_samples_follow_g711() {
        assert_eq!((mu_law(0xff), mu_law(0x7f), mu_law(0x80), mu_law(0x00)), (0, 0, 32_124, -32_124));
        assert_eq!((a_law(0xd5), a_law(0x55), a_law(0xaa), a_law(0x2a)), (8, -8, 32_256, -32_256));
    }
}
