//! Which stretches of a track's waveform its caller has.

use chorale_proto::v1::Envelope;

/// More spans than the feature service puts into one message.
const MAX_SPANS: usize = 4_096;

/// A stretch of the waveform that the rest of the cluster should not have sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum WaveformError {
    #[error("expected 1 to {MAX_SPANS} spans, each with its lowest and highest sample, found {minima} and {maxima}")]
    Spans { minima: usize, maxima: usize },
    #[error("expected spans of more than 0 s from {expected} s on, found {found} s from {start} s on")]
    Times { expected: f64, start: f64, found: f64 },
}

/// The waveform so far. It is the same whichever replica computes it, and whatever the model.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Waveform {
    /// Where it ends, in seconds.
    end: f64,
}

impl Waveform {
    /// Adds the next stretch, and says whether it is new.
    pub(crate) fn extend(&mut self, envelope: &Envelope) -> Result<bool, WaveformError> {
        let Envelope { start_seconds, span_seconds, minima, maxima } = envelope;
        if minima.len() != maxima.len() || !(1..=MAX_SPANS).contains(&minima.len()) {
            return Err(WaveformError::Spans { minima: minima.len(), maxima: maxima.len() });
        }
        let end = start_seconds + minima.len() as f64 * span_seconds;
        let half = span_seconds / 2.0;
        let in_order = (0.0..=self.end + half).contains(start_seconds);
        if !(in_order && *span_seconds > 0.0 && end.is_finite()) {
            return Err(WaveformError::Times { expected: self.end, start: *start_seconds, found: *span_seconds });
        }
        let is_new = *start_seconds > self.end - half;
        if is_new {
            self.end = end;
        }
        Ok(is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(start_seconds: f64, spans: usize) -> Envelope {
        Envelope { start_seconds, span_seconds: 0.1, minima: vec![-1.0; spans], maxima: vec![1.0; spans] }
    }

    #[test]
    fn a_stretch_that_comes_again_is_not_new() {
        let mut waveform = Waveform::default();
        let starts = [0.0, 2.0, 0.0, 2.0, 4.0];
        let new = starts.map(|start| waveform.extend(&stretch(start, 20)).unwrap());
        assert_eq!(new, [true, true, false, false, true]);
    }

    #[test]
    fn what_is_no_next_stretch_is_an_error() {
        let mut waveform = Waveform::default();
        for wrong in [stretch(1.0, 20), stretch(-1.0, 20), stretch(f64::NAN, 20)] {
            assert!(matches!(waveform.extend(&wrong), Err(WaveformError::Times { .. })));
        }
        for spans in [0, MAX_SPANS + 1] {
            assert!(matches!(waveform.extend(&stretch(0.0, spans)), Err(WaveformError::Spans { .. })));
        }
        let endless = Envelope { span_seconds: f64::INFINITY, ..stretch(0.0, 1) };
        assert!(waveform.extend(&endless).is_err());
        assert_eq!(waveform, Waveform::default());
    }
}
