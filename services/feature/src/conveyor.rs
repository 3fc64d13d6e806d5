//! One track on two cores: a thread decodes, another one computes features of what it has decoded.

use std::{
    mem,
    ops::ControlFlow,
    panic::resume_unwind,
    sync::mpsc::{self, Receiver, Sender, SyncSender, TrySendError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    analyze::{AudioInput, AudioSummary, Limits, summarize},
    decode,
    decoded::MonoBlock,
    error::FeatureError,
    pipeline::{Event, Pipeline, Totals},
    source::AudioSource,
    turns::SharedTurn,
};

/// Samples that are handed over together: 0.2 s of most tracks. To wake the other thread takes as long as some hundred.
const LOAD: usize = 8 << 10;
/// Fewer are handed over after this time: audio that arrives as it is played is heard at once.
const PATIENCE: Duration = Duration::from_millis(20);
/// Loads that wait for features to be computed.
const LOADS: usize = 2;

/// Mono samples of one rate.
#[derive(Default)]
struct Load {
    sample_rate: u32,
    samples: Vec<f32>,
}

/// What goes from the decoder to the features.
enum Parcel {
    Load(Load),
    /// The track is complete. Without it, something went wrong.
    End,
}

/// The same as [`analyze`](crate::analyze), on this thread and another one, which calls `sink`. This one uses `turn`, and lets
/// it rest while features are behind.
///
/// # Errors
/// As [`analyze`](crate::analyze), and if there is no further thread.
pub(crate) fn analyze_on_two_cores(
    source: &AudioSource,
    input: &AudioInput,
    limits: &Limits,
    turn: &SharedTurn,
    sink: &mut (dyn FnMut(Event<'_>) -> ControlFlow<()> + Send),
) -> Result<AudioSummary, FeatureError> {
    source.limit(limits.max_audio_bytes)?;
    let (parcels, arriving) = mpsc::sync_channel(LOADS);
    let (empties, returned) = mpsc::channel();
    let (max_duration, want_envelope) = (limits.max_duration, input.want_envelope);
    thread::scope(|scope| {
        let features = move || {
            let mut forward = |event: Event<'_>| sink(event);
            unload(&arriving, &empties, Pipeline::new(max_duration, want_envelope, &mut forward))
        };
        let features = thread::Builder::new().name("features".to_owned()).spawn_scoped(scope, features)?;

        let started = Instant::now();
        let mut loader = Loader {
            turn,
            source,
            max_decode_time: limits.max_decode_time,
            parcels,
            returned,
            load: Load::default(),
            started,
            shipped: started,
            waited: Duration::ZERO,
        };
        let decoded = decode::decode(source, input, limits, &mut |block| loader.push(block));
        let decoded = decoded.and_then(|decoded| loader.finish().map(|()| decoded));
        let decode_time = loader.decode_time();
        drop(loader);
        turn.end();

        let totals = features.join().unwrap_or_else(|panic| resume_unwind(panic));
        match (decoded, totals) {
            // If features ended first, that ended the decoder.
            (_, Err(error)) | (Err(error), Ok(_)) => Err(error),
            (Ok(_), Ok(None)) => Err(FeatureError::Aborted),
            (Ok(decoded), Ok(Some((totals, resample_time)))) => {
                summarize(source, decoded, &totals, decode_time + resample_time)
            }
        }
    })
}

/// The end of the conveyor at the decoder.
struct Loader<'a> {
    turn: &'a SharedTurn,
    source: &'a AudioSource,
    max_decode_time: Duration,
    parcels: SyncSender<Parcel>,
    /// Loads that were taken, to be filled again.
    returned: Receiver<Load>,
    load: Load,
    started: Instant,
    /// When the last load was handed over.
    shipped: Instant,
    /// Time in which features were behind, or other tracks went first.
    waited: Duration,
}

impl Loader<'_> {
    fn push(&mut self, block: MonoBlock<'_>) -> Result<(), FeatureError> {
        if self.load.sample_rate != block.sample_rate {
            self.ship()?;
            self.load.sample_rate = block.sample_rate;
        }
        self.load.samples.extend_from_slice(block.samples);
        if self.load.samples.len() >= LOAD || self.shipped.elapsed() >= PATIENCE { self.ship() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), FeatureError> {
        self.ship()?;
        self.send(Parcel::End)
    }

    fn ship(&mut self) -> Result<(), FeatureError> {
        if self.load.samples.is_empty() {
            return Ok(());
        }
        let sample_rate = self.load.sample_rate;
        let mut empty = self.returned.try_recv().unwrap_or_default();
        empty.samples.clear();
        let load = mem::replace(&mut self.load, Load { sample_rate, ..empty });
        let seconds = load.samples.len() as f64 / f64::from(sample_rate);
        self.send(Parcel::Load(load))?;
        let counted = Instant::now();
        self.turn.count_audio(seconds);
        self.shipped = Instant::now();
        self.waited += self.shipped - counted;
        let (spent, allowed) = (self.decode_time(), self.max_decode_time);
        if spent > allowed {
            let (value, allowed) = (spent.as_secs(), allowed.as_secs());
            return Err(FeatureError::LimitExceeded { limit: "max_decode_time", value, allowed });
        }
        Ok(())
    }

    /// Time spent decoding so far.
    fn decode_time(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.source.waited() + self.waited)
    }

    fn send(&mut self, parcel: Parcel) -> Result<(), FeatureError> {
        let sent = match self.parcels.try_send(parcel) {
            Err(TrySendError::Full(parcel)) => {
                let started = Instant::now();
                let sent = self.turn.rest(|| self.parcels.send(parcel));
                self.waited += started.elapsed();
                sent.is_ok()
            }
            sent => sent.is_ok(),
        };
        // Features have ended; they say why.
        if sent { Ok(()) } else { Err(FeatureError::Aborted) }
    }
}

/// Computes the features of what arrives: what came of them, and the time that resampling took, unless the track broke off.
fn unload(
    arriving: &Receiver<Parcel>,
    empties: &Sender<Load>,
    mut pipeline: Pipeline<'_>,
) -> Result<Option<(Totals, Duration)>, FeatureError> {
    let mut busy = Duration::ZERO;
    for parcel in arriving {
        let started = Instant::now();
        match parcel {
            Parcel::Load(load) => {
                pipeline.push(MonoBlock { sample_rate: load.sample_rate, samples: &load.samples })?;
                busy += started.elapsed();
                // The decoder may have ended.
                let _ = empties.send(load);
            }
            Parcel::End => {
                let totals = pipeline.finish()?;
                busy += started.elapsed();
                let resampling = busy.saturating_sub(totals.mel_time + totals.sink_time);
                return Ok(Some((totals, resampling)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use chorale_runtime::{metrics::Metrics, overload::Urgency};
    use futures::FutureExt;

    use super::*;
    use crate::{
        FeatureMetrics, PcmSpec, SampleFormat, analyze,
        turns::{Party, SharedTurn, Turns},
    };

    fn turn() -> SharedTurn {
        let metrics = FeatureMetrics::register(&Metrics::new());
        let turns = Turns::new(1, Duration::from_secs(1), 1, metrics);
        // There is a core: this does not wait.
        turns
            .enter(Party { caller: "test".into(), urgency: Urgency::Interactive })
            .now_or_never()
            .unwrap()
            .unwrap()
            .into()
    }

    fn raw(sample_rate: u32) -> AudioInput {
        let pcm = PcmSpec { format: SampleFormat::S16Le, sample_rate, channels: 1 };
        AudioInput { pcm: Some(pcm), want_envelope: true, ..AudioInput::default() }
    }

    /// A tone that rises, of 16 bits a sample.
    fn tone(samples: u32) -> Vec<u8> {
        (0..samples).flat_map(|n| (((f64::from(n).powi(2) * 1e-6).sin() * 9_000.0) as i16).to_le_bytes()).collect()
    }

    /// What a track gives: its events, and the summary without its times, or the error.
    fn heard(bytes: &[u8], input: &AudioInput, limits: &Limits, two: bool, most: usize) -> (Vec<String>, String) {
        let (source, turn) = (AudioSource::bytes(bytes.to_vec()), turn());
        let mut events = Vec::new();
        let mut sink = |event: Event<'_>| {
            events.push(match event {
                Event::Chunk(chunk) => format!("{:?}", chunk.quantize()),
                Event::Envelope(envelope) => format!("{envelope:?}"),
            });
            if events.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let outcome = if two {
            analyze_on_two_cores(&source, input, limits, &turn, &mut sink)
        } else {
            analyze(&source, input, limits, &mut sink)
        };
        let untimed = |summary: AudioSummary| {
            assert!(summary.decode_time + summary.mel_time > Duration::ZERO);
            AudioSummary { decode_time: Duration::ZERO, mel_time: Duration::ZERO, ..summary }
        };
        let outcome = format!("{:?}", outcome.map(untimed));
        (events, outcome)
    }

    #[test]
    fn two_cores_hear_what_one_hears() {
        let hour = Limits { max_duration: Duration::from_secs(3_600), ..Limits::default() };
        let short = Limits { max_duration: Duration::from_secs(7), ..Limits::default() };
        let all = usize::MAX;
        for (bytes, input, limits, most) in [
            (tone(900_000), raw(22_050), &hour, all),
            (tone(900_000), raw(48_000), &hour, all),
            (tone(900_000), raw(48_000), &hour, 3),
            (tone(900_000), raw(48_000), &short, all),
            (tone(10_000), raw(48_000), &hour, all),
            (b"no audio at all".repeat(100), AudioInput::default(), &hour, all),
            (Vec::new(), AudioInput::default(), &hour, all),
        ] {
            let one = heard(&bytes, &input, limits, false, most);
            assert_eq!(heard(&bytes, &input, limits, true, most), one);
        }
    }

    #[test]
    fn a_track_that_takes_too_long_to_decode_ends() {
        let limits = Limits { max_decode_time: Duration::ZERO, ..Limits::default() };
        let (_, outcome) = heard(&tone(900_000), &raw(48_000), &limits, true, usize::MAX);
        assert!(outcome.contains("LimitExceeded") && outcome.contains("max_decode_time"), "{outcome}");
    }

    #[tokio::test]
    async fn what_arrives_slowly_is_heard_at_once() {
        let (sender, source) = AudioSource::channel(4);
        let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
        let turn = turn();
        source.take_turns(turn.clone());
        let thread = thread::spawn(move || {
            let mut sink = |event: Event<'_>| match event {
                Event::Chunk(_) if heard.send(()).is_err() => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            };
            analyze_on_two_cores(&source, &raw(22_050), &Limits::default(), &turn, &mut sink).map(drop)
        });
        // Less than a load each, and just enough for a chunk.
        for part in tone(5 * 22_050).chunks(2 * 5_000) {
            sender.send(part.to_vec().into()).await.unwrap();
            tokio::time::sleep(2 * PATIENCE).await;
        }
        tokio::time::timeout(Duration::from_secs(5), events.recv()).await.expect("a chunk is known").unwrap();
        drop(sender);
        assert!(matches!(thread.join().unwrap(), Err(FeatureError::Aborted)), "a lost sender is not an end");
    }
}
