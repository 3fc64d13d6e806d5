//! Any audio to the mono signal that features are computed from.

use std::{ops::ControlFlow, path::Path, time::Duration};

use chorale_model::contract::SAMPLE_RATE;

use crate::analyze::{AudioInput, Limits, Warning};
use crate::decode;
use crate::decoded::MonoBlock;
use crate::error::FeatureError;
use crate::resample::Resampler;
use crate::source::AudioSource;

/// Receives samples at [`SAMPLE_RATE`], in order.
type SampleSink<'a> = dyn FnMut(&[f32]) -> Result<(), FeatureError> + 'a;

/// Mono blocks of any rates to one signal at [`SAMPLE_RATE`] that is no longer than allowed.
pub(crate) struct Signal {
    resampler: Option<Resampler>,
    samples: u64,
    max_samples: u64,
    max_seconds: u64,
}

impl Signal {
    pub(crate) fn new(max_duration: Duration) -> Self {
        Self {
            resampler: None,
            samples: 0,
            max_samples: (max_duration.as_secs_f64() * f64::from(SAMPLE_RATE)) as u64,
            max_seconds: max_duration.as_secs(),
        }
    }

    /// Takes the next samples. Their rate may differ from that of the last ones.
    pub(crate) fn push(&mut self, block: MonoBlock<'_>, sink: &mut SampleSink<'_>) -> Result<(), FeatureError> {
        let mut resampler = match self.resampler.take() {
            Some(resampler) if resampler.rate() == block.sample_rate => resampler,
            other => {
                self.flush(other, sink)?;
                Resampler::new(block.sample_rate)?
            }
        };
        resampler.push(block.samples, &mut |samples| self.hand_on(samples, sink))?;
        self.resampler = Some(resampler);
        Ok(())
    }

    /// Ends the signal, and hands on what is left of it.
    pub(crate) fn finish(&mut self, sink: &mut SampleSink<'_>) -> Result<(), FeatureError> {
        let resampler = self.resampler.take();
        self.flush(resampler, sink)
    }

    fn flush(&mut self, resampler: Option<Resampler>, sink: &mut SampleSink<'_>) -> Result<(), FeatureError> {
        resampler.map_or(Ok(()), |resampler| resampler.finish(&mut |samples| self.hand_on(samples, sink)))
    }

    fn hand_on(&mut self, samples: &[f32], sink: &mut SampleSink<'_>) -> Result<(), FeatureError> {
        let total = self.samples + samples.len() as u64;
        if total > self.max_samples {
            return Err(FeatureError::LimitExceeded {
                limit: "max_duration",
                value: total.div_ceil(u64::from(SAMPLE_RATE)),
                allowed: self.max_seconds,
            });
        }
        self.samples = total;
        sink(samples)
    }
}

/// What a file turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalSummary {
    /// Seconds of audio that were handed on.
    pub duration_seconds: f64,
    /// The codec, for example `mp3`.
    pub codec: String,
    /// Samples a second before resampling, in Hz.
    pub sample_rate: u32,
    /// Channels before the downmix.
    pub channels: u32,
    /// What was wrong with it.
    pub warnings: Vec<Warning>,
}

/// Reads the signal of a file that features are computed from, mono at [`SAMPLE_RATE`] and 1 for full scale, and hands it to
/// `sink` in pieces. Unlike [`analyze_file`](crate::analyze_file), it takes audio of any length.
///
/// `None` if `sink` breaks, which ends the reading.
///
/// # Errors
///
/// See [`FeatureError`]. Samples may have been handed on before.
pub fn read_signal(
    path: &Path,
    limits: &Limits,
    sink: &mut dyn FnMut(&[f32]) -> ControlFlow<()>,
) -> Result<Option<SignalSummary>, FeatureError> {
    let content_type = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    let input = AudioInput { content_type, ..AudioInput::default() };
    let source = AudioSource::file(path)?;
    source.limit(limits.max_audio_bytes)?;
    let mut signal = Signal::new(limits.max_duration);
    let mut broken = false;
    let mut forward = |samples: &[f32]| {
        broken = sink(samples).is_break();
        if broken { Err(FeatureError::Aborted) } else { Ok(()) }
    };
    let decoded = decode::decode(&source, &input, limits, &mut |block| signal.push(block, &mut forward));
    let decoded = decoded.and_then(|decoded| signal.finish(&mut forward).map(|()| decoded));
    match decoded {
        Err(FeatureError::Aborted) if broken => Ok(None),
        Err(error) => Err(error),
        Ok(decoded) => {
            let duration_seconds = signal.samples as f64 / f64::from(SAMPLE_RATE);
            Ok(Some(SignalSummary {
                duration_seconds,
                warnings: decoded.warnings(duration_seconds),
                codec: decoded.codec,
                sample_rate: decoded.sample_rate,
                channels: decoded.channels,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::MelSpectrogram;

    /// A file of `seconds` of a sine, 16-bit stereo AU at 44,100 Hz.
    fn file(seconds: u32) -> tempfile::NamedTempFile {
        let mut bytes = b".snd".to_vec();
        for field in [24, u32::MAX, 3, 44_100, 2] {
            bytes.extend_from_slice(&u32::to_be_bytes(field));
        }
        for index in 0..seconds * 44_100 {
            let sample = ((f64::from(index) * 0.05).sin() * 16_384.0) as i16;
            bytes.extend_from_slice(&[sample.to_be_bytes(), sample.to_be_bytes()].concat());
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn the_signal_is_the_one_that_features_are_computed_from() {
        let file = file(6);
        let mut mel = MelSpectrogram::new();
        let mut frames = Vec::new();
        let mut keep = |frame: &[f32; 128]| {
            frames.push(*frame);
            Ok::<(), FeatureError>(())
        };
        let summary = read_signal(file.path(), &Limits::default(), &mut |samples| {
            mel.push(samples, &mut keep).unwrap();
            ControlFlow::Continue(())
        });
        mel.finish(&mut keep).unwrap();
        let summary = summary.unwrap().unwrap();
        assert_eq!((summary.duration_seconds, summary.sample_rate, summary.channels), (6.0, 44_100, 2));
        let mut chunks = 0;
        crate::analyze_file(file.path(), &Limits::default(), &mut |event| {
            if let crate::Event::Chunk(chunk) = event {
                chunks += 1;
                for (band, row) in chunk.cells.chunks_exact(96).enumerate() {
                    let frame = &frames[chunk.first_frame as usize + 40];
                    let expected = (frame[band] - chunk.loudest_db).max(-80.0);
                    assert!((row[40] - expected).abs() < 1e-4, "band {band}: {} {expected}", row[40]);
                }
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(chunks, 2);
    }

    #[test]
    fn who_has_read_enough_reads_no_more_and_what_is_too_long_is_refused() {
        let file = file(3);
        let mut samples = 0;
        let stopped = read_signal(file.path(), &Limits::default(), &mut |piece| {
            samples += piece.len();
            if samples > 22_050 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(stopped.unwrap(), None);
        assert!(samples < 2 * 22_050);
        let limits = Limits { max_duration: Duration::from_secs(2), ..Limits::default() };
        let error = read_signal(file.path(), &limits, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(
            matches!(error, FeatureError::LimitExceeded { limit: "max_duration", value: 3, allowed: 2 }),
            "{error}"
        );
    }
}
