//! Decoded samples to events.

use crate::chunk::{Chunker, DbChunk};
use crate::decoded::MonoBlock;
use crate::error::FeatureError;
use crate::mel::MelSpectrogram;
use crate::signal::Signal;
use chorale_model::contract::{MIN_FRAMES, SAMPLE_RATE};
use rubato::{ResampleError, ResamplerConstructionError};
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Samples under one pair of the envelope: 0.1 s.
const SPAN_SAMPLES: u32 = SAMPLE_RATE / 10;
/// Pairs in one [`Envelope`]: 2 s.
const SPANS: usize = 20;

/// Something that became known on the way through a track.
#[derive(Debug)]
pub enum Event<'a> {
    /// The next chunk. It borrows the analysis: quantise it, or copy its cells.
    Chunk(DbChunk<'a>),
    /// The next stretch of the waveform. Only if it was asked for.
    Envelope(Envelope),
}

/// A stretch of the mono waveform: the lowest and highest sample of each of equal spans.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Where the first span begins, in seconds.
    pub start_seconds: f64,
    /// The length of a span, in seconds.
    pub span_seconds: f64,
    /// Lowest sample of each span; full scale is ±1.
    pub minima: Vec<f32>,
    /// Highest sample of each span; full scale is ±1.
    pub maxima: Vec<f32>,
}

/// Receives events; breaks to end the analysis.
pub(crate) type EventSink<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'a;

/// Resampler, envelope, spectrogram and chunker in a row.
pub(crate) struct Pipeline<'a> {
    signal: Signal,
    features: Features<'a>,
}

struct Features<'a> {
    mel: MelSpectrogram,
    chunker: Chunker,
    envelope: Option<EnvelopeBuilder>,
    sink: &'a mut EventSink<'a>,
    /// Time in here, without that in `sink`.
    busy: Duration,
    in_sink: Duration,
}

/// What came out of a track.
pub(crate) struct Totals {
    pub(crate) duration_seconds: f64,
    pub(crate) chunk_count: u32,
    pub(crate) mel_time: Duration,
    pub(crate) sink_time: Duration,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(max_duration: Duration, want_envelope: bool, sink: &'a mut EventSink<'a>) -> Self {
        let features = Features {
            mel: MelSpectrogram::new(),
            chunker: Chunker::new(),
            envelope: want_envelope.then(EnvelopeBuilder::default),
            sink,
            busy: Duration::ZERO,
            in_sink: Duration::ZERO,
        };
        Self { signal: Signal::new(max_duration), features }
    }

    /// Takes the next samples. Their rate may differ from that of the last ones.
    pub(crate) fn push(&mut self, block: MonoBlock<'_>) -> Result<(), FeatureError> {
        self.signal.push(block, &mut |samples| self.features.push(samples))
    }

    /// Ends the track.
    pub(crate) fn finish(mut self) -> Result<Totals, FeatureError> {
        self.signal.finish(&mut |samples| self.features.push(samples))?;
        self.features.finish()
    }
}

impl Features<'_> {
    fn push(&mut self, samples: &[f32]) -> Result<(), FeatureError> {
        let started = Instant::now();
        let in_sink_before = self.in_sink;
        if let Some(envelope) = &mut self.envelope {
            envelope.push(samples, &mut |envelope| notify(self.sink, &mut self.in_sink, Event::Envelope(envelope)))?;
        }
        self.mel.push(samples, &mut |frame| match self.chunker.push(frame) {
            Some(chunk) => notify(self.sink, &mut self.in_sink, Event::Chunk(chunk)),
            None => Ok(()),
        })?;
        self.busy += started.elapsed().saturating_sub(self.in_sink - in_sink_before);
        Ok(())
    }

    fn finish(mut self) -> Result<Totals, FeatureError> {
        let started = Instant::now();
        let in_sink_before = self.in_sink;
        if let Some(envelope) = self.envelope.take().and_then(EnvelopeBuilder::finish) {
            notify(self.sink, &mut self.in_sink, Event::Envelope(envelope))?;
        }
        self.mel.finish(&mut |frame| match self.chunker.push(frame) {
            Some(chunk) => notify(self.sink, &mut self.in_sink, Event::Chunk(chunk)),
            None => Ok(()),
        })?;
        let duration_seconds = self.mel.samples() as f64 / f64::from(SAMPLE_RATE);
        if self.chunker.frames() < MIN_FRAMES as u64 {
            return Err(FeatureError::TooShort { seconds: duration_seconds });
        }
        if let Some(chunk) = self.chunker.finish() {
            notify(self.sink, &mut self.in_sink, Event::Chunk(chunk))?;
        }
        self.busy += started.elapsed().saturating_sub(self.in_sink - in_sink_before);
        Ok(Totals {
            duration_seconds,
            chunk_count: self.chunker.chunks(),
            mel_time: self.busy,
            sink_time: self.in_sink,
        })
    }
}

fn notify(sink: &mut EventSink<'_>, in_sink: &mut Duration, event: Event<'_>) -> Result<(), FeatureError> {
    let started = Instant::now();
    let flow = sink(event);
    *in_sink += started.elapsed();
    if flow.is_break() { Err(FeatureError::Aborted) } else { Ok(()) }
}

/// Collects the lowest and highest sample of each span.
#[derive(Default)]
struct EnvelopeBuilder {
    minima: Vec<f32>,
    maxima: Vec<f32>,
    in_span: u32,
    spans_before: u64,
}

impl EnvelopeBuilder {
    fn push(
        &mut self,
        samples: &[f32],
        each: &mut dyn FnMut(Envelope) -> Result<(), FeatureError>,
    ) -> Result<(), FeatureError> {
        for &sample in samples {
            if self.in_span == 0 {
                self.minima.push(sample);
                self.maxima.push(sample);
            }
            if let (Some(lowest), Some(highest)) = (self.minima.last_mut(), self.maxima.last_mut()) {
                *lowest = lowest.min(sample);
                *highest = highest.max(sample);
            }
            self.in_span = (self.in_span + 1) % SPAN_SAMPLES;
            if self.in_span == 0 && self.minima.len() == SPANS {
                each(self.take())?;
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Envelope {
        let span_seconds = f64::from(SPAN_SAMPLES) / f64::from(SAMPLE_RATE);
        let start_seconds = self.spans_before as f64 * span_seconds;
        self.spans_before += self.minima.len() as u64;
        Envelope {
            start_seconds,
            span_seconds,
            minima: std::mem::take(&mut self.minima),
            maxima: std::mem::take(&mut self.maxima),
        }
    }

    fn finish(mut self) -> Option<Envelope> {
        (!self.minima.is_empty()).then(|| self.take())
    }
}

// A resampler fails only if it was built or fed wrongly, which is no fault of the audio.
impl From<ResampleError> for FeatureError {
    fn from(error: ResampleError) -> Self {
        Self::Io(io::Error::other(error))
    }
}

impl From<ResamplerConstructionError> for FeatureError {
    fn from(error: ResamplerConstructionError) -> Self {
        Self::Io(io::Error::other(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_spans_the_signal() {
        let mut builder = EnvelopeBuilder::default();
        let mut seen = Vec::new();
        let samples: Vec<f32> = (0..5 * SAMPLE_RATE + 10).map(|n| if n % 2 == 0 { 0.5 } else { -0.25 }).collect();
        for part in samples.chunks(1_000) {
            builder
                .push(part, &mut |envelope| {
                    seen.push(envelope);
                    Ok(())
                })
                .unwrap();
        }
        seen.extend(builder.finish());
        assert_eq!(seen.iter().map(|envelope| envelope.minima.len()).collect::<Vec<_>>(), [20, 20, 11]);
        assert!((seen[2].start_seconds - 4.0).abs() < 1e-9);
        assert!(seen[1].minima.iter().all(|&lowest| lowest == -0.25));
        assert!(seen[1].maxima.iter().all(|&highest| highest == 0.5));
    }
}
