//! Between the messages of `chorale.v1` and what this crate calls the same.

use std::io::ErrorKind;

use chorale_model::contract;
use chorale_proto::v1::{AnalyzeOptions, AudioFormat, PcmFormat, SampleFormat, Summary, Warning, WarningKind};
use chorale_runtime::failure::{Failure, Reason};

use crate::{AudioInput, AudioSummary, FeatureError, PcmSpec};

/// What the options say of the audio.
pub(crate) fn audio_input(options: &AnalyzeOptions) -> Result<AudioInput, Failure> {
    Ok(AudioInput {
        content_type: options.content_type.clone(),
        pcm: options.pcm.as_ref().map(pcm_spec).transpose()?,
        want_envelope: options.want_envelope,
    })
}

fn pcm_spec(pcm: &PcmFormat) -> Result<PcmSpec, Failure> {
    let format = match pcm.sample_format() {
        SampleFormat::S16le => crate::SampleFormat::S16Le,
        SampleFormat::S24le => crate::SampleFormat::S24Le,
        SampleFormat::S32le => crate::SampleFormat::S32Le,
        SampleFormat::F32le => crate::SampleFormat::F32Le,
        SampleFormat::U8 => crate::SampleFormat::U8,
        SampleFormat::Unspecified => {
            let message = format!("expected one of `SampleFormat`, found {}", pcm.sample_format);
            return Err(Failure::invalid("options.pcm.sample_format", message));
        }
    };
    if pcm.sample_rate == 0 {
        return Err(Failure::invalid("options.pcm.sample_rate", "expected samples a second, found 0"));
    }
    if pcm.channels == 0 {
        return Err(Failure::invalid("options.pcm.channels", "expected at least one channel, found 0"));
    }
    Ok(PcmSpec { format, sample_rate: pcm.sample_rate, channels: pcm.channels })
}

/// What the end of an analysis says.
pub(crate) fn summary_message(summary: &AudioSummary) -> Summary {
    let warnings = summary.warnings.iter().map(|warning| Warning {
        kind: WarningKind::from(warning.kind).into(),
        message: warning.message.clone(),
        count: warning.count,
        first_seconds: warning.first_seconds,
    });
    Summary {
        duration_seconds: summary.duration_seconds,
        chunk_count: summary.chunk_count,
        audio_format: Some(AudioFormat {
            container: summary.container.clone(),
            codec: summary.codec.clone(),
            sample_rate: summary.sample_rate,
            channels: summary.channels,
        }),
        warnings: warnings.collect(),
        feature_id: contract::feature_id().to_owned(),
        decode: prost_types::Duration::try_from(summary.decode_time).ok(),
        mel: prost_types::Duration::try_from(summary.mel_time).ok(),
    }
}

impl From<crate::WarningKind> for WarningKind {
    fn from(kind: crate::WarningKind) -> Self {
        match kind {
            crate::WarningKind::DecodeDamage => Self::DecodeDamage,
            crate::WarningKind::Truncated => Self::Truncated,
            crate::WarningKind::ExtraTracks => Self::ExtraTracks,
        }
    }
}

impl From<FeatureError> for Failure {
    fn from(error: FeatureError) -> Self {
        let message = error.to_string();
        match error {
            FeatureError::Empty => Self::new(Reason::AudioEmpty, message),
            FeatureError::Unsupported { .. } => Self::new(Reason::AudioUnsupported, message),
            FeatureError::Unreadable { byte, seconds, .. } => {
                Self::new(Reason::AudioUnreadable, message).with("byte", byte).with("seconds", seconds)
            }
            FeatureError::TooShort { seconds } => Self::new(Reason::AudioTooShort, message).with("seconds", seconds),
            FeatureError::LimitExceeded { limit, value, allowed } => {
                Self::limit(limit, allowed, message).with("found", value)
            }
            FeatureError::Aborted => Self::new(Reason::Cancelled, message),
            // The system has no further thread.
            FeatureError::Io(error) if error.kind() == ErrorKind::WouldBlock => Self::new(Reason::Overloaded, message),
            FeatureError::Io(_) => Self::new(Reason::Internal, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_samples_must_be_described() {
        let pcm = PcmFormat { sample_format: SampleFormat::S16le.into(), sample_rate: 44_100, channels: 2 };
        assert_eq!(pcm_spec(&pcm).unwrap().channels, 2);
        let field = |pcm: PcmFormat| pcm_spec(&pcm).unwrap_err().field.unwrap();
        assert_eq!(field(PcmFormat { sample_format: 0, ..pcm }), "options.pcm.sample_format");
        assert_eq!(field(PcmFormat { sample_format: 99, ..pcm }), "options.pcm.sample_format");
        assert_eq!(field(PcmFormat { sample_rate: 0, ..pcm }), "options.pcm.sample_rate");
        assert_eq!(field(PcmFormat { channels: 0, ..pcm }), "options.pcm.channels");
    }

    #[test]
    fn a_failure_names_the_limit_and_the_position() {
        let limit = FeatureError::LimitExceeded { limit: "max_duration", value: 11, allowed: 10 };
        let failure = Failure::from(limit);
        assert_eq!(failure.reason, Reason::LimitExceeded);
        assert_eq!((&*failure.metadata["limit"], &*failure.metadata["value"]), ("max_duration", "10"));
        let unreadable = FeatureError::Unreadable { what: "nothing".to_owned(), byte: 7, seconds: 0.5 };
        let failure = Failure::from(unreadable);
        assert_eq!(failure.reason, Reason::AudioUnreadable);
        assert_eq!((&*failure.metadata["byte"], &*failure.metadata["seconds"]), ("7", "0.5"));
    }
}
