//! From a file to what can be seen of it.

use std::{ops::ControlFlow, path::Path};

use chorale_feature::{FeatureError, Limits, MelFrame, MelSpectrogram, SignalSummary, read_signal};
use chorale_model::contract::{FRAMES_PER_SECOND, SAMPLE_RATE, frame_centre};

use crate::{
    error::{PictureError, Result},
    look::Stretch,
    spectrogram::Spectrogram,
    waveform::Waveform,
};

/// What can be seen of a track's audio, in memory that does not grow with its length.
#[derive(Debug, Clone)]
pub struct Sound {
    pub(crate) end_sample: u64,
    pub(crate) waveform: Waveform,
    pub(crate) spectrogram: Spectrogram,
    /// The frame that is the first of the spectrogram.
    pub(crate) first_frame: u64,
    summary: Option<SignalSummary>,
}

impl Sound {
    /// Reads what lies within `stretch` of a file, and no further.
    ///
    /// # Errors
    /// [`PictureError::Audio`] if the file cannot be read or decoded, [`PictureError::Stretch`] if the track ends before the
    /// stretch begins.
    pub fn read(path: &Path, stretch: Stretch) -> Result<Self> {
        let mut reader = Reader::new(stretch);
        let summary = read_signal(path, &Limits::default(), &mut |samples| reader.take(samples))?;
        reader.finish(summary)
    }

    /// Where it ends, in seconds from the start of the track.
    #[must_use]
    pub fn end_seconds(&self) -> f64 {
        self.end_sample as f64 / f64::from(SAMPLE_RATE)
    }

    /// What the whole file is, if it was read to its end.
    #[must_use]
    pub fn summary(&self) -> Option<&SignalSummary> {
        self.summary.as_ref()
    }
}

/// Frames that are looked at, those of the stretch and its neighbours.
struct Frames {
    next: u64,
    first: u64,
    last: u64,
    spectrogram: Spectrogram,
}

impl Frames {
    fn take(&mut self, frame: &MelFrame) {
        if (self.first..=self.last).contains(&self.next) {
            self.spectrogram.push(frame);
        }
        self.next += 1;
    }
}

struct Reader {
    from: u64,
    to: u64,
    samples: u64,
    waveform: Waveform,
    mel: MelSpectrogram,
    frames: Frames,
}

impl Reader {
    fn new(stretch: Stretch) -> Self {
        let sample = |seconds: f64| (seconds * f64::from(SAMPLE_RATE)).round() as u64;
        let frame = |sample: u64| sample * u64::from(FRAMES_PER_SECOND) / u64::from(SAMPLE_RATE);
        let from = sample(stretch.from_seconds);
        let to = stretch.to_seconds.map_or(u64::MAX, sample);
        let last = stretch.to_seconds.map_or(u64::MAX, |_| frame(to) + 1);
        Self {
            from,
            to,
            samples: 0,
            waveform: Waveform::new(),
            mel: MelSpectrogram::new(),
            frames: Frames { next: 0, first: frame(from), last, spectrogram: Spectrogram::new() },
        }
    }

    fn take(&mut self, samples: &[f32]) -> ControlFlow<()> {
        let index = |sample: u64| usize::try_from(sample.saturating_sub(self.samples)).unwrap_or(usize::MAX);
        let (from, to) = (index(self.from).min(samples.len()), index(self.to).min(samples.len()));
        self.waveform.push(samples.get(from..to).unwrap_or_default());
        self.samples += samples.len() as u64;
        let frames = &mut self.frames;
        // What cannot fail need not be looked at.
        let _ = self.mel.push(samples, &mut |frame| {
            frames.take(frame);
            Ok::<(), FeatureError>(())
        });
        if frames.next > frames.last && self.samples >= self.to {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn finish(mut self, summary: Option<SignalSummary>) -> Result<Sound> {
        let frames = &mut self.frames;
        if summary.is_some() {
            let _ = self.mel.finish(&mut |frame| {
                frames.take(frame);
                Ok::<(), FeatureError>(())
            });
        }
        let duration = self.samples as f64 / f64::from(SAMPLE_RATE);
        if self.samples <= self.from {
            return Err(PictureError::Stretch { from: self.from as f64 / f64::from(SAMPLE_RATE), duration });
        }
        Ok(Sound {
            end_sample: self.to.min(self.samples),
            waveform: self.waveform,
            first_frame: self.frames.first,
            spectrogram: self.frames.spectrogram,
            summary,
        })
    }
}

/// Where the stretch of a frame begins, in seconds: half a frame before its centre.
pub(crate) fn frame_start_seconds(index: u64) -> f64 {
    let half_frame = 0.5 / f64::from(FRAMES_PER_SECOND);
    frame_centre(index) as f64 / f64::from(SAMPLE_RATE) - half_frame
}
