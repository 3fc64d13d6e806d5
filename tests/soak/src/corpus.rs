//! What callers send, and what is right to answer.

use bytes::{BufMut, Bytes, BytesMut};
use chorale_proto::v1::{ChunkVote, ClassifyOptions, EventKind, Verdict};
use chorale_tests::{client::reason, fixtures, sound};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use crate::caller::{Call, Caller, Ending};

/// Lengths of the synthetic tracks in seconds: how many have which. The last ones are longer than what a gateway keeps to send
/// again.
const LENGTHS: [(usize, f64, f64); 3] = [(12, 1.2, 10.0), (5, 12.0, 40.0), (2, 80.0, 100.0)];
/// Pieces of noise that no decoder knows.
const PIECES_OF_GARBAGE: usize = 6;

/// A track, or what a caller takes for one.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) audio: Bytes,
    pub(crate) expected: Expected,
    /// Whether it stays the same track with a few bytes more at its end.
    pub(crate) salts: bool,
}

/// What is right to answer.
pub(crate) enum Expected {
    Verdict(Box<Verdict>, Vec<ChunkVote>),
    /// The reason why there is no verdict.
    Refusal(String),
}

/// All samples.
pub(crate) struct Corpus {
    pub(crate) valid: Vec<Sample>,
    pub(crate) invalid: Vec<Sample>,
}

impl Corpus {
    /// Gathers fixtures, makes tracks, and asks for the right answers while nothing disturbs.
    pub(crate) async fn gather(random: &mut ChaCha8Rng, caller: &Caller) -> Self {
        let mut corpus = Self { valid: Vec::new(), invalid: Vec::new() };
        let mut files = fixtures::formats();
        files.extend(fixtures::genres());
        let broken = [
            "clip.opus",
            "damaged-middle.mp3",
            "empty.mp3",
            "header-only.wav",
            "mp3-named.wav",
            "no-audio.mp4",
            "no-moov.m4a",
            "text.mp3",
            "truncated.mp3",
        ];
        files.extend(broken.map(fixtures::broken));
        for path in files {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            corpus.add(caller, name, fixtures::read(&path), false).await;
        }
        for (count, shortest, longest) in LENGTHS {
            for _ in 0..count {
                let seconds = random.random_range(shortest..longest);
                let samples = sound::chord(seconds, random.random());
                corpus.add(caller, format!("chord of {seconds:.1} s"), sound::wav(&samples), true).await;
            }
        }
        let mut half_silent = sound::chord(7.0, random.random());
        half_silent.extend(sound::silence(9.0));
        corpus.add(caller, "half silence".to_owned(), sound::wav(&half_silent), true).await;
        corpus.add(caller, "silence".to_owned(), sound::wav(&sound::silence(6.0)), true).await;
        corpus.add(caller, "too short".to_owned(), sound::wav(&sound::chord(0.7, random.random())), false).await;
        for index in 0..PIECES_OF_GARBAGE {
            let mut bytes = vec![0; random.random_range(1..200_000)];
            random.fill_bytes(&mut bytes);
            corpus.add(caller, format!("garbage {index}"), bytes.into(), false).await;
        }
        corpus
    }

    async fn add(&mut self, caller: &Caller, name: String, audio: Bytes, salts: bool) {
        let options = ClassifyOptions {
            bypass_cache: true,
            events: vec![EventKind::ChunkVote.into()],
            ..ClassifyOptions::default()
        };
        let attempt = caller.stream(0, &Call { options, ..Call::of(audio.clone()) }).await;
        let (samples, expected) = match attempt.ending {
            Ending::Verdict(verdict) => (&mut self.valid, Expected::Verdict(verdict, attempt.votes)),
            Ending::Failure(status) => {
                let reason = reason(&status);
                assert!(status.code() == tonic::Code::InvalidArgument, "{name}: {status:?}");
                (&mut self.invalid, Expected::Refusal(reason))
            }
        };
        samples.push(Sample { name, audio, expected, salts });
    }
}

impl Sample {
    /// The same track in bytes that nobody has sent before: a WAV file with a chunk more at its end.
    pub(crate) fn salted(&self, salt: u64) -> Bytes {
        let mut bytes = BytesMut::from(&self.audio[..]);
        bytes.put_slice(b"junk");
        bytes.put_u32_le(8);
        bytes.put_u64_le(salt);
        bytes.freeze()
    }
}
