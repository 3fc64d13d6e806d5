//! Audio: any bytes through the whole analysis.

use std::{ops::ControlFlow, time::Duration};

use bytes::Bytes;
use chorale_feature::{
    AudioInput, AudioSource, AudioSummary, Event, FeatureError, Limits, PcmSpec, SampleFormat, analyze,
};
use chorale_model::contract::CHUNK_CELLS;
use futures::FutureExt;

const MAX_SECONDS: f64 = 20.0;
/// One every 2 s, and one more for what is left at the end.
const MAX_CHUNKS: u32 = 10;

fn limits() -> Limits {
    Limits {
        max_audio_bytes: 1 << 20,
        max_duration: Duration::from_secs_f64(MAX_SECONDS),
        max_channels: 8,
        max_sample_rate: 96_000,
        max_decode_time: Duration::from_secs(60),
    }
}

/// How an upload arrives.
#[derive(Clone, Copy)]
struct Arrival {
    /// As a file, or in pieces of this many bytes.
    piece_bytes: Option<usize>,
    /// Whether the caller goes away at the end instead of saying that it is one.
    lost: bool,
    want_envelope: bool,
}

impl Arrival {
    /// From a byte that is part of the input anyway, so that any audio file is an input.
    fn of(byte: u8) -> Self {
        let piece_bytes = match byte >> 2 & 3 {
            0 => None,
            1 => Some(1_000),
            2 => Some(4_096),
            _ => Some(1 << 16),
        };
        Self { piece_bytes, lost: byte & 0x33 == 0x33, want_envelope: byte & 1 == 1 }
    }
}

/// An audio file, or anything that calls itself one. Its last byte also says how it arrives.
pub fn decode(input: &[u8]) {
    let arrival = Arrival::of(input.last().copied().unwrap_or_default());
    hear(Bytes::copy_from_slice(input), AudioInput::default(), arrival);
}

/// The same with the first bytes of Sun/NeXT `.au`.
pub fn au(input: &[u8]) {
    let mut file = b".snd".to_vec();
    file.extend(input.get(4..).unwrap_or_default());
    decode(&file);
}

/// Raw samples: format, how they arrive, channels, rate (4 bytes, little-endian), and the samples.
pub fn pcm(input: &[u8]) {
    let Some((&[format, arrival, channels, a, b, c, d], samples)) = input.split_first_chunk() else { return };
    let format = match format % 5 {
        0 => SampleFormat::S16Le,
        1 => SampleFormat::S24Le,
        2 => SampleFormat::S32Le,
        3 => SampleFormat::F32Le,
        _ => SampleFormat::U8,
    };
    let pcm = PcmSpec { format, sample_rate: u32::from_le_bytes([a, b, c, d]), channels: channels.into() };
    let input = AudioInput { pcm: Some(pcm), ..AudioInput::default() };
    hear(Bytes::copy_from_slice(samples), input, Arrival::of(arrival));
}

fn hear(audio: Bytes, input: AudioInput, arrival: Arrival) {
    let input = AudioInput { want_envelope: arrival.want_envelope, ..input };
    let mut heard = Heard::default();
    let outcome = analyze(&source(audio, arrival), &input, &limits(), &mut |event| {
        heard.take(event);
        ControlFlow::Continue(())
    });
    match outcome {
        Ok(summary) => heard.check(&summary),
        Err(FeatureError::Aborted) => assert!(arrival.lost, "nobody went away"),
        // All bytes are in memory.
        Err(error @ FeatureError::Io(_)) => panic!("{error}"),
        Err(error) => assert!(error.to_string().len() < 10_000, "a message without end"),
    }
}

fn source(audio: Bytes, arrival: Arrival) -> AudioSource {
    let Some(piece_bytes) = arrival.piece_bytes else { return AudioSource::bytes(audio) };
    // All of it fits, so that it need not be sent from another thread.
    let (sender, source) = AudioSource::channel(audio.len() / piece_bytes + 1);
    for piece in audio.chunks(piece_bytes) {
        let sent = sender.send(audio.slice_ref(piece)).now_or_never();
        assert_eq!(sent, Some(Ok(())), "there is room");
    }
    if !arrival.lost {
        sender.finish();
    }
    source
}

#[derive(Default)]
struct Heard {
    chunks: u32,
    end_seconds: f64,
    envelope_seconds: f64,
}

impl Heard {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Chunk(chunk) => {
                let chunk = chunk.quantize();
                assert_eq!(chunk.index, self.chunks);
                assert_eq!(chunk.cells.len(), CHUNK_CELLS);
                assert!(chunk.start_seconds.is_finite() && chunk.start_seconds >= 0.0, "{}", chunk.start_seconds);
                assert!(chunk.start_seconds < chunk.end_seconds && chunk.end_seconds >= self.end_seconds);
                self.end_seconds = chunk.end_seconds;
                self.chunks += 1;
                assert!(self.chunks <= MAX_CHUNKS, "more chunks than {MAX_SECONDS} s have");
            }
            Event::Envelope(envelope) => {
                assert_eq!(envelope.minima.len(), envelope.maxima.len());
                let mut spans = envelope.minima.iter().zip(&envelope.maxima);
                assert!(spans.all(|(low, high)| low.is_finite() && high.is_finite() && low <= high));
                assert!((envelope.start_seconds - self.envelope_seconds).abs() < 1e-6);
                self.envelope_seconds += envelope.span_seconds * envelope.minima.len() as f64;
            }
        }
    }

    fn check(&self, summary: &AudioSummary) {
        assert_eq!(summary.chunk_count, self.chunks);
        assert!((0.9..=MAX_SECONDS).contains(&summary.duration_seconds), "{} s", summary.duration_seconds);
        assert!(self.chunks > 0 && self.end_seconds <= summary.duration_seconds.max(4.0) + 0.1);
        let limits = limits();
        assert!((1..=limits.max_channels).contains(&summary.channels), "{} channels", summary.channels);
        assert!(summary.sample_rate <= limits.max_sample_rate, "{} Hz", summary.sample_rate);
        assert!(summary.warnings.len() <= 3);
        for warning in &summary.warnings {
            assert!(warning.count > 0 && warning.first_seconds.is_finite() && warning.first_seconds >= 0.0);
            assert!(warning.message.len() < 1_000);
        }
    }
}
