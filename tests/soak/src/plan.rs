//! What a caller is about to do, drawn from the seed.

use std::time::Duration;

use chorale_proto::v1::{ClassifyOptions, DeadlinePolicy, EventKind, Priority};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use crate::{
    caller::{Call, DEADLINE},
    corpus::{Corpus, Sample},
    fleet::{IDLE_TIMEOUT, REPLICAS},
};

/// A slow upload takes about this long, in seconds.
const SLOW: std::ops::Range<f64> = 1.0..5.0;
const SLOW_MESSAGES: usize = 12;

/// A caller.
pub(crate) struct Plan {
    /// The index of its sample, among valid ones unless it is to be refused.
    pub(crate) sample: usize,
    pub(crate) valid: bool,
    /// The gateway that it asks first.
    pub(crate) gateway: usize,
    /// Makes bytes that nobody has sent before.
    pub(crate) salt: Option<u64>,
    pub(crate) unary: bool,
    pub(crate) votes: bool,
    pub(crate) progress: bool,
    pub(crate) bypass: bool,
    pub(crate) claims: bool,
    pub(crate) bulk: bool,
    pub(crate) early: bool,
    /// How long its upload takes in seconds, if it is slow.
    pub(crate) slow: Option<f64>,
    pub(crate) manner: Manner,
}

/// What a caller is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Manner {
    /// It wants a verdict, and asks until it has one.
    Honest,
    /// It reads nothing, and leaves when it has sent a share of its track and lingered.
    Leaves {
        share: f64,
        linger: Duration,
        /// Whether its connection goes with it.
        alone: bool,
    },
    /// It sends everything and reads nothing, so that votes pile up, and leaves when it has lingered.
    StopsReading { linger: Duration },
    /// It sends half of its track, and then nothing.
    GoesQuiet,
    /// It has too little time.
    Hurries(Duration),
    /// It takes what is there when its time is up.
    TakesPart(Duration),
    /// It says that its track is another one.
    Lies,
    /// It sends audio where options should be.
    Babbles,
}

impl Manner {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::Leaves { .. } => "leaves",
            Self::StopsReading { .. } => "stops reading",
            Self::GoesQuiet => "goes quiet",
            Self::Hurries(_) => "too little time",
            Self::TakesPart(_) => "takes a part",
            Self::Lies => "wrong digest",
            Self::Babbles => "no options",
        }
    }
}

impl Plan {
    /// A caller at random.
    pub(crate) fn draw(random: &mut ChaCha8Rng, corpus: &Corpus) -> Self {
        let mut manner = match random.random_range(0..200) {
            0..8 => Manner::Leaves {
                share: random.random(),
                linger: Duration::from_millis(random.random_range(0..400)),
                alone: random.random(),
            },
            8..10 => Manner::StopsReading { linger: Duration::from_secs(random.random_range(1..15)) },
            10..11 => Manner::GoesQuiet,
            11..23 => Manner::Hurries(Duration::from_millis(random.random_range(1..60))),
            23..30 => Manner::TakesPart(Duration::from_millis(random.random_range(1_200..2_500))),
            30..38 => Manner::Lies,
            38..40 => Manner::Babbles,
            _ => Manner::Honest,
        };
        let valid = random.random_bool(0.93) || manner != Manner::Honest;
        let samples = if valid { &corpus.valid } else { &corpus.invalid };
        let mut sample = random.random_range(0..samples.len());
        if matches!(manner, Manner::StopsReading { .. }) {
            // Only a long track has more votes than fit on the way.
            let long = (0..samples.len()).max_by_key(|index| samples[*index].audio.len());
            sample = long.expect("there are samples");
        }
        if matches!(manner, Manner::GoesQuiet) && samples[sample].audio.len() < 2 {
            manner = Manner::Honest;
        }
        let salt = random.next_u64();
        let plan = Self {
            sample,
            valid,
            gateway: random.random_range(0..REPLICAS),
            salt: Some(salt).filter(|_| samples[sample].salts && !salt.is_multiple_of(5)),
            unary: random.random_bool(0.3),
            votes: random.random_bool(0.5),
            progress: random.random_bool(0.3),
            bypass: random.random_bool(0.3),
            claims: random.random_bool(0.4),
            bulk: random.random_bool(0.3),
            early: random.random_bool(0.15),
            slow: Some(random.random_range(SLOW)).filter(|_| salt.is_multiple_of(7)),
            manner,
        };
        plan.consistent()
    }

    /// What goes together.
    fn consistent(mut self) -> Self {
        match self.manner {
            Manner::Leaves { .. } | Manner::GoesQuiet | Manner::StopsReading { .. } => {
                (self.unary, self.bypass, self.votes) = (false, true, true);
                self.slow = None;
            }
            Manner::TakesPart(time) => {
                (self.unary, self.bypass, self.slow) = (false, true, Some(time.as_secs_f64() * 2.0));
            }
            Manner::Lies => self.early = false,
            Manner::Babbles => self.unary = false,
            Manner::Honest | Manner::Hurries(_) => {}
        }
        if self.unary {
            (self.slow, self.votes, self.progress) = (None, false, false);
        }
        self
    }

    pub(crate) fn sample<'a>(&self, corpus: &'a Corpus) -> &'a Sample {
        if self.valid { &corpus.valid[self.sample] } else { &corpus.invalid[self.sample] }
    }

    /// What it sends.
    pub(crate) fn call(&self, corpus: &Corpus) -> Call {
        let sample = self.sample(corpus);
        let audio = self.salt.map_or_else(|| sample.audio.clone(), |salt| sample.salted(salt));
        let mut digest = if self.claims { blake3::hash(&audio).as_bytes().to_vec() } else { Vec::new() };
        if self.manner == Manner::Lies {
            digest = blake3::hash(b"another track").as_bytes().to_vec();
        }
        let wanted = [(self.votes, EventKind::ChunkVote), (self.progress, EventKind::Progress)];
        let partial = matches!(self.manner, Manner::TakesPart(_));
        let options = ClassifyOptions {
            events: wanted.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, kind)| kind.into()).collect(),
            blake3_digest: digest.into(),
            bypass_cache: self.bypass,
            early_error_rate: if self.early { 0.05 } else { 0.0 },
            priority: if self.bulk { Priority::Bulk } else { Priority::Interactive }.into(),
            deadline_policy: if partial { DeadlinePolicy::Partial } else { DeadlinePolicy::Fail }.into(),
            ..ClassifyOptions::default()
        };
        let mut call = Call { options, waits: self.claims, ..Call::of(audio) };
        call.deadline = match self.manner {
            Manner::Hurries(time) | Manner::TakesPart(time) => time,
            Manner::GoesQuiet => IDLE_TIMEOUT * 2,
            _ => DEADLINE,
        };
        if let Some(seconds) = self.slow {
            call.message_bytes = call.audio.len().div_ceil(SLOW_MESSAGES).max(1);
            call.pause = Duration::from_secs_f64(seconds / SLOW_MESSAGES as f64);
        }
        call
    }
}
