//! Any audio to mono samples at its own rate.

use crate::analyze::{AudioInput, Limits, Warning, WarningKind};
use crate::edit_list;
use crate::error::FeatureError;
use crate::mono::downmix;
use crate::sniff::{SNIFF_BYTES, Sniffed, sniff};
use crate::source::{AudioSource, SourceReader};
use crate::{au, pcm};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use symphonia::core::audio::Channels;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions, well_known,
};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, TimeBase, Timestamp};

/// Below this no music was ever stored; a header that says so is broken.
const MIN_SAMPLE_RATE: u32 = 1_000;
/// Errors of a demuxer in a row after which it will not recover.
const MAX_DEMUX_ERRORS: u32 = 16;
/// Times that a stream may start over (chained Ogg) before it counts as garbage.
const MAX_RESTARTS: u32 = 1_024;
/// Silence that may stand in for lost audio, in all, so that a small hostile file cannot make hours of it.
const MAX_FILLED_SECONDS: f64 = 120.0;
/// The share of its bytes that a stream of bare frames must hand on as packets. Noise has what looks like a frame now and
/// then; real streams are nothing but frames.
const MIN_PACKET_SHARE: f64 = 0.5;
/// Bytes after which that share is looked at for the first time.
const PACKET_SHARE_BYTES: u64 = 512 << 10;
/// Bytes that symphonia may have read ahead of the packet that it returned.
const READ_AHEAD_BYTES: u64 = 64 << 10;

/// Mono samples at the rate of the source.
#[derive(Clone, Copy)]
pub(crate) struct MonoBlock<'a> {
    pub(crate) sample_rate: u32,
    pub(crate) samples: &'a [f32],
}

/// Receives decoded audio, in order.
pub(crate) type MonoSink<'a> = dyn FnMut(MonoBlock<'_>) -> Result<(), FeatureError> + 'a;

/// What was decoded.
pub(crate) struct Decoded {
    pub(crate) container: String,
    pub(crate) codec: String,
    pub(crate) sample_rate: u32,
    pub(crate) channels: u32,
    damage_count: u32,
    damage_first_seconds: f64,
    /// The length that the container promised, in seconds, if that is more than came. 0 if it did not say.
    pub(crate) cut_short: Option<f64>,
    extra_tracks: u32,
}

impl Decoded {
    pub(crate) fn new(container: &str, codec: &str, sample_rate: u32, channels: u32) -> Self {
        Self {
            container: container.to_owned(),
            codec: codec.to_owned(),
            sample_rate,
            channels,
            damage_count: 0,
            damage_first_seconds: 0.0,
            cut_short: None,
            extra_tracks: 0,
        }
    }

    /// Counts `count` pieces of damage at `seconds`.
    pub(crate) fn damage(&mut self, count: u64, seconds: f64) {
        if self.damage_count == 0 {
            self.damage_first_seconds = seconds;
        }
        self.damage_count = self.damage_count.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    pub(crate) fn warnings(&self, duration_seconds: f64) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.damage_count > 0 {
            let (count, first_seconds) = (self.damage_count, self.damage_first_seconds);
            let pieces = if count == 1 { "1 piece".to_owned() } else { format!("{count} pieces") };
            warnings.push(Warning {
                kind: WarningKind::DecodeDamage,
                message: format!("{pieces} of damaged audio left out, the first at {first_seconds:.1} s"),
                count,
                first_seconds,
            });
        }
        if let Some(promised) = self.cut_short {
            let message = if promised > 0.0 {
                format!("the audio ends after {duration_seconds:.1} s of the {promised:.1} s that its header promises")
            } else {
                format!("the audio breaks off after {duration_seconds:.1} s")
            };
            let kind = WarningKind::Truncated;
            warnings.push(Warning { kind, message, count: 1, first_seconds: duration_seconds });
        }
        if self.extra_tracks > 0 {
            warnings.push(Warning {
                kind: WarningKind::ExtraTracks,
                message: format!("{} more audio tracks were not heard", self.extra_tracks),
                count: self.extra_tracks,
                first_seconds: 0.0,
            });
        }
        warnings
    }
}

/// Refuses what no header should say.
pub(crate) fn check_signal(sample_rate: u32, channels: u32, limits: &Limits) -> Result<(), FeatureError> {
    let exceeded = |limit, value: u32, allowed: u32| {
        Err(FeatureError::LimitExceeded { limit, value: u64::from(value), allowed: u64::from(allowed) })
    };
    if sample_rate > limits.max_sample_rate {
        exceeded("max_sample_rate", sample_rate, limits.max_sample_rate)
    } else if channels > limits.max_channels {
        exceeded("max_channels", channels, limits.max_channels)
    } else if sample_rate < MIN_SAMPLE_RATE || channels == 0 {
        Err(FeatureError::Unsupported { found: format!("audio with {channels} channels at {sample_rate} Hz") })
    } else {
        Ok(())
    }
}

/// Decodes `source` to its end.
pub(crate) fn decode(
    source: &AudioSource,
    input: &AudioInput,
    limits: &Limits,
    sink: &mut MonoSink<'_>,
) -> Result<Decoded, FeatureError> {
    let head = source.peek(SNIFF_BYTES)?;
    if head.is_empty() {
        return Err(FeatureError::Empty);
    }
    if let Some(spec) = input.pcm {
        return pcm::decode(source, spec, limits, sink);
    }
    match sniff(&head) {
        Sniffed::Au => au::decode(source, limits, sink),
        Sniffed::Foreign(found) => Err(FeatureError::Unsupported { found: found.to_owned() }),
        Sniffed::WholeFileFirst => {
            source.start_recording();
            decode_spooled(source, input, limits, sink)
        }
        Sniffed::Unknown => {
            source.start_recording();
            source.remember(true);
            match open(source, source.stream())? {
                Ok(format) if can_stream(&*format) => {
                    let listener = Listener::new(format, source, limits, id3_bytes(&head))?;
                    source.stop_recording();
                    if !listener.bare_frames {
                        source.remember(false);
                    }
                    listener.listen(sink)
                }
                // A container that is not known when streamed is not known when spooled either.
                Err(error) if is_unknown(&error) => Err(open_error(&error, source, input)),
                Ok(_) | Err(_) => decode_spooled(source, input, limits, sink),
            }
        }
    }
}

/// Decodes a source whose container needs to be read back and forth: from a file, a temporary one for an upload.
fn decode_spooled(
    source: &AudioSource,
    input: &AudioInput,
    limits: &Limits,
    sink: &mut MonoSink<'_>,
) -> Result<Decoded, FeatureError> {
    source.remember(false);
    let reader = source.spool()?;
    match open(source, reader)? {
        Ok(format) => Listener::new(format, source, limits, 0)?.listen(sink),
        Err(error) => Err(open_error(&error, source, input)),
    }
}

fn open(
    source: &AudioSource,
    reader: SourceReader,
) -> Result<Result<Box<dyn FormatReader + 'static>, Error>, FeatureError> {
    let stream = MediaSourceStream::new(Box::new(reader), MediaSourceStreamOptions::default());
    let opened = guard(source, 0.0, || {
        symphonia::default::get_probe().probe(
            &Hint::new(),
            stream,
            FormatOptions::default(),
            MetadataOptions::default(),
        )
    })?;
    match source.failure() {
        Some(failure) => Err(failure),
        None => Ok(opened),
    }
}

/// Runs what symphonia does with hostile bytes. It aims not to panic on any, but it is a large body of parsers: should
/// one slip, it costs its own track, not the thread and the caller's answer.
fn guard<T>(source: &AudioSource, seconds: f64, call: impl FnOnce() -> T) -> Result<T, FeatureError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| FeatureError::Unreadable {
        what: "the decoder failed on it".to_owned(),
        byte: source.position(),
        seconds,
    })
}

/// Whether packets come in the order of the file. Tracks of an MP4 file lie in turns, and symphonia goes by time.
fn can_stream(format: &dyn FormatReader) -> bool {
    format.format_info().short_name != "isomp4" || format.tracks().len() == 1
}

fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Unsupported(what) if what.starts_with("core (probe)"))
}

fn open_error(error: &Error, source: &AudioSource, input: &AudioInput) -> FeatureError {
    let unreadable = |what| FeatureError::Unreadable { what, byte: source.position(), seconds: 0.0 };
    match error {
        error if is_unknown(error) => {
            let declared: String = input.content_type.chars().take(64).collect();
            let declared = if declared.is_empty() { declared } else { format!(" (declared as {declared:?})") };
            FeatureError::Unsupported { found: format!("data of an unknown kind{declared}") }
        }
        Error::Unsupported(what) if what.contains("missing") => unreadable(format!("a part of it is missing ({what})")),
        Error::Unsupported(what) => FeatureError::Unsupported { found: format!("audio of this kind ({what})") },
        error => unreadable(error.to_string()),
    }
}

/// The length of an `ID3v2` tag at the start of a file.
fn id3_bytes(head: &[u8]) -> u64 {
    match head {
        [b'I', b'D', b'3', _, _, _, a, b, c, d, ..] => {
            let size = [a, b, c, d].iter().fold(0, |size, &&seven_bits| size << 7 | u64::from(seven_bits & 0x7f));
            size + 10
        }
        _ => 0,
    }
}

/// A codec's usual name, for those that can be met but not decoded.
fn codec_name(codec: AudioCodecId) -> String {
    let name = match codec {
        well_known::CODEC_ID_OPUS => "opus",
        well_known::CODEC_ID_AAC => "aac other than LC in mono or stereo",
        well_known::CODEC_ID_AC3 => "ac-3",
        well_known::CODEC_ID_EAC3 => "e-ac-3",
        well_known::CODEC_ID_AC4 => "ac-4",
        well_known::CODEC_ID_DCA => "dts",
        well_known::CODEC_ID_SPEEX => "speex",
        well_known::CODEC_ID_WAVPACK => "wavpack",
        well_known::CODEC_ID_TRUEHD => "truehd",
        well_known::CODEC_ID_WMA => "windows media",
        other => match symphonia::default::get_codecs().get_audio_decoder(other) {
            Some(decoder) => decoder.codec.info.short_name,
            None => return "an unknown codec".to_owned(),
        },
    };
    name.to_owned()
}

/// An audio track and its decoder.
struct Voice {
    track_id: u32,
    params: AudioCodecParameters,
    decoder: Box<dyn AudioDecoder>,
    time_base: Option<TimeBase>,
    /// Whether a tick is a sample, so that timestamps can be trusted to the sample.
    exact_time: bool,
    num_frames: Option<u64>,
    audio_tracks: u32,
}

impl Voice {
    /// The first audio track that can be decoded.
    fn choose(format: &dyn FormatReader, source: &AudioSource, seconds: f64) -> Result<Self, FeatureError> {
        let audio = |track: &Track| match &track.codec_params {
            Some(CodecParameters::Audio(params)) => Some(params.clone()),
            _ => None,
        };
        let audio_tracks = format.tracks().iter().filter(|track| audio(track).is_some()).count() as u32;
        let mut refused = None;
        for track in format.tracks() {
            let Some(params) = audio(track) else { continue };
            let Some(decoder) = make_decoder(source, &params, seconds)? else {
                refused.get_or_insert_with(|| codec_name(params.codec));
                continue;
            };
            let exact_time = match (track.time_base, params.sample_rate) {
                (Some(time_base), Some(rate)) => time_base.numer.get() == 1 && time_base.denom.get() == rate,
                _ => false,
            };
            return Ok(Self {
                track_id: track.id,
                params,
                decoder,
                time_base: track.time_base,
                exact_time,
                num_frames: track.num_frames,
                audio_tracks,
            });
        }
        let found = match refused {
            Some(codec) => format!("the codec of this {} file ({codec})", container_name(format)),
            None => format!("a {} file without an audio track", container_name(format)),
        };
        Err(FeatureError::Unsupported { found })
    }

    fn seconds(&self, ticks: i64) -> Option<f64> {
        let time_base = self.time_base?;
        Some(ticks as f64 * f64::from(time_base.numer.get()) / f64::from(time_base.denom.get()))
    }
}

fn make_decoder(
    source: &AudioSource,
    params: &AudioCodecParameters,
    seconds: f64,
) -> Result<Option<Box<dyn AudioDecoder>>, FeatureError> {
    let options = AudioDecoderOptions::default();
    let made = guard(source, seconds, || symphonia::default::get_codecs().make_audio_decoder(params, &options))?;
    Ok(made.ok())
}

fn container_name(format: &dyn FormatReader) -> &'static str {
    match format.format_info().short_name {
        "wave" => "wav",
        "isomp4" => "mp4",
        "matroska" => "mkv",
        name => name,
    }
}

/// The part of a track's samples that is heard, where symphonia leaves the cutting to its caller.
#[derive(Debug, Default)]
struct Trim {
    skip_seconds: f64,
    duration_seconds: Option<f64>,
}

impl Trim {
    fn of(format: &dyn FormatReader, voice: &Voice, source: &AudioSource) -> Self {
        let rate = f64::from(voice.params.sample_rate.unwrap_or_default().max(1));
        match container_name(format) {
            "mp4" => match source.revisit(|mut file| edit_list::find(&mut file, voice.track_id)).flatten() {
                Some(edit) => Self { skip_seconds: edit.skip_seconds, duration_seconds: edit.duration_seconds },
                None => Self::default(),
            },
            "caf" => {
                let delay =
                    format.tracks().iter().find(|track| track.id == voice.track_id).and_then(|track| track.delay);
                let skip_seconds = f64::from(delay.unwrap_or_default()) / rate;
                let heard = voice.num_frames.filter(|_| delay.is_some()).map(|frames| frames as f64 / rate);
                Self { skip_seconds, duration_seconds: heard }
            }
            _ => Self::default(),
        }
    }
}

/// Follows one file from its first packet to its last.
struct Listener<'a> {
    format: Box<dyn FormatReader>,
    source: &'a AudioSource,
    limits: &'a Limits,
    voice: Voice,
    trim: Trim,
    decoded: Decoded,
    planes: Vec<Vec<f32>>,
    mono: Vec<f32>,
    sample_rate: u32,
    /// Samples decoded or filled at `sample_rate`, before trimming; seconds of those at other rates.
    frames: u64,
    seconds_before: f64,
    /// The time of the container at the first of `frames`, in seconds.
    clock_start: Option<f64>,
    filled_seconds: f64,
    good_packets: u64,
    bad_packets: u64,
    bad_in_a_row: u32,
    first_error: Option<String>,
    restarts: u32,
    /// Whether the stream is MPEG or ADTS frames and nothing else, so that only its bytes tell what was skipped.
    bare_frames: bool,
    audio_start: u64,
    packet_bytes: u64,
    next_packet: Option<u64>,
}

impl<'a> Listener<'a> {
    fn new(
        format: Box<dyn FormatReader>,
        source: &'a AudioSource,
        limits: &'a Limits,
        tag_bytes: u64,
    ) -> Result<Self, FeatureError> {
        let voice = Voice::choose(&*format, source, 0.0)?;
        let params = voice.decoder.codec_params();
        let sample_rate = params.sample_rate.or(voice.params.sample_rate).unwrap_or_default();
        let channels = params.channels.as_ref().or(voice.params.channels.as_ref()).map_or(0, Channels::count);
        let codec = voice.decoder.codec_info().short_name;
        let mut decoded = Decoded::new(container_name(&*format), codec, sample_rate, channels as u32);
        decoded.extra_tracks = voice.audio_tracks.saturating_sub(1);
        let trim = Trim::of(&*format, &voice, source);
        Ok(Self {
            trim,
            bare_frames: matches!(decoded.container.as_str(), "mp1" | "mp2" | "mp3" | "aac"),
            decoded,
            sample_rate,
            audio_start: tag_bytes.max(source.position().saturating_sub(READ_AHEAD_BYTES)),
            format,
            source,
            limits,
            voice,
            planes: Vec::new(),
            mono: Vec::new(),
            frames: 0,
            seconds_before: 0.0,
            clock_start: None,
            filled_seconds: 0.0,
            good_packets: 0,
            bad_packets: 0,
            bad_in_a_row: 0,
            first_error: None,
            restarts: 0,
            packet_bytes: 0,
            next_packet: None,
        })
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.frames as f64 / f64::from(self.sample_rate.max(1))
    }

    fn unreadable(&self, what: String) -> FeatureError {
        FeatureError::Unreadable { what, byte: self.source.position(), seconds: self.seconds() }
    }

    fn listen(mut self, sink: &mut MonoSink<'_>) -> Result<Decoded, FeatureError> {
        let mut demux_errors = 0;
        loop {
            let next = guard(self.source, self.seconds(), || self.format.next_packet())?;
            if let Some(failure) = self.source.failure() {
                return Err(failure);
            }
            match next {
                Ok(Some(packet)) => {
                    demux_errors = 0;
                    if packet.track_id == self.voice.track_id {
                        self.hear(packet, sink)?;
                    }
                    self.check_packet_share(PACKET_SHARE_BYTES)?;
                }
                Ok(None) => break,
                Err(Error::ResetRequired) => self.restart()?,
                Err(Error::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                    // These two may leave their length open, and end like that as a rule.
                    if !matches!(self.decoded.container.as_str(), "mkv" | "wav") {
                        self.decoded.cut_short = Some(0.0);
                    }
                    break;
                }
                Err(Error::IoError(error)) => return Err(FeatureError::Io(error)),
                Err(error) => {
                    self.note_damage(&error);
                    demux_errors += 1;
                    if demux_errors == MAX_DEMUX_ERRORS {
                        break;
                    }
                }
            }
        }
        self.conclude()
    }

    fn conclude(mut self) -> Result<Decoded, FeatureError> {
        self.check_packet_share(0)?;
        if self.bad_packets > self.good_packets {
            let error = self.first_error.take().unwrap_or_default();
            return Err(self.unreadable(format!("most of its packets cannot be decoded ({error})")));
        }
        // Rounding, an encoder's habits, and what a codec holds back at the end are no truncation.
        let tolerance = 0.1 + 8_192.0 / f64::from(self.sample_rate.max(1));
        if let Some(promised) = self.promised_seconds().filter(|promised| promised - self.seconds() > tolerance) {
            self.decoded.cut_short = Some(promised);
        }
        Ok(self.decoded)
    }

    /// The length of the audio as its container states it.
    fn promised_seconds(&self) -> Option<f64> {
        if self.restarts > 0 {
            return None;
        }
        match (self.voice.num_frames, self.format.tracks()) {
            (Some(frames), _) => Some(frames as f64 / f64::from(self.voice.params.sample_rate?)),
            (None, [_]) => {
                let info = self.format.media_info();
                let (time_base, duration) = (info.time_base?, info.duration?);
                Some(duration.get() as f64 * f64::from(time_base.numer.get()) / f64::from(time_base.denom.get()))
            }
            (None, _) => None,
        }
    }

    /// Refuses noise in which something looks like the frames of MPEG audio now and then.
    fn check_packet_share(&self, from_bytes: u64) -> Result<(), FeatureError> {
        if !self.bare_frames {
            return Ok(());
        }
        let bytes = self.source.position().saturating_sub(self.audio_start);
        if bytes < from_bytes || self.packet_bytes as f64 >= bytes as f64 * MIN_PACKET_SHARE {
            return Ok(());
        }
        let share = 100 * self.packet_bytes / bytes.max(1);
        let looks_like = &self.decoded.container;
        Err(self.unreadable(format!("it looks like {looks_like} here and there, but only {share} % of it is")))
    }

    fn restart(&mut self) -> Result<(), FeatureError> {
        self.restarts += 1;
        if self.restarts > MAX_RESTARTS {
            return Err(self.unreadable("the stream starts over again and again".to_owned()));
        }
        self.voice = Voice::choose(&*self.format, self.source, self.seconds())?;
        self.clock_start = None;
        Ok(())
    }

    fn note_damage(&mut self, error: &Error) {
        self.decoded.damage(1, self.seconds());
        self.bad_packets += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    fn hear(&mut self, mut packet: Packet, sink: &mut MonoSink<'_>) -> Result<(), FeatureError> {
        self.distrust_end(&mut packet);
        self.fill_skipped(&packet, sink)?;
        self.fill_gap(&packet, sink)?;
        match self.decode_packet(&packet)? {
            Ok(()) => {
                self.good_packets += 1;
                self.bad_in_a_row = 0;
                if self.clock_start.is_none() && !self.mono.is_empty() {
                    self.clock_start = self.heard_from(&packet).map(|time| time - self.seconds());
                }
                self.emit(sink)
            }
            Err(error) => {
                self.note_damage(&error);
                self.bad_in_a_row += 1;
                let lost = self.voice.seconds(packet.dur.get().try_into().unwrap_or_default());
                self.fill(lost.unwrap_or_default().min(1.0), sink)
            }
        }
    }

    /// Hears audio beyond the end that a header declares: files are joined, and headers lie.
    fn distrust_end(&self, packet: &mut Packet) {
        /// More than any encoder pads.
        const MAX_PADDING: i64 = 4_608;
        let end = self.voice.num_frames.and_then(|frames| i64::try_from(frames).ok());
        if end.is_some_and(|end| packet.pts > Timestamp::new(end.saturating_add(MAX_PADDING))) {
            packet.dur = packet.block_dur();
            packet.trim_start = Duration::ZERO;
            packet.trim_end = Duration::ZERO;
        }
    }

    /// Where the container says that the audible part of a packet begins, in seconds.
    fn heard_from(&self, packet: &Packet) -> Option<f64> {
        self.voice.seconds(packet.pts.saturating_add(packet.trim_start).get())
    }

    /// Puts silence where timestamps say that packets are missing, so that what follows keeps its place.
    fn fill_gap(&mut self, packet: &Packet, sink: &mut MonoSink<'_>) -> Result<(), FeatureError> {
        let (Some(time), Some(clock_start)) = (self.heard_from(packet), self.clock_start) else { return Ok(()) };
        // Containers with a clock of their own round, and drift a little.
        let tolerance = if self.voice.exact_time { 0.05 } else { 0.5 };
        let gap = time - clock_start - self.seconds();
        if gap > tolerance {
            self.decoded.damage(1, self.seconds());
            self.fill(gap, sink)?;
            // Whatever could not be filled stays out.
            self.clock_start = Some(time - self.seconds());
        }
        Ok(())
    }

    /// Puts silence where bytes between bare frames were skipped: there are no timestamps to tell.
    fn fill_skipped(&mut self, packet: &Packet, sink: &mut MonoSink<'_>) -> Result<(), FeatureError> {
        /// An ADTS header, which is not part of the packet.
        const HEADER_BYTES: u64 = 9;
        if !self.bare_frames {
            return Ok(());
        }
        let bytes = packet.data.len() as u64;
        let expected = self.next_packet;
        let found = self.source.find_recent(&packet.data, expected.unwrap_or(self.audio_start));
        self.next_packet = found.map(|found| found.position + bytes);
        self.packet_bytes += bytes;
        let (Some(expected), Some(found)) = (expected, found) else { return Ok(()) };
        let skipped = found.position.saturating_sub(expected);
        if skipped <= HEADER_BYTES || found.after_tag {
            return Ok(());
        }
        self.decoded.damage(1, self.seconds());
        let packets = self.good_packets + self.bad_packets + 1;
        let skipped_packets = skipped as f64 * packets as f64 / self.packet_bytes.max(1) as f64;
        let packet_ticks = i64::try_from(packet.block_dur().get()).unwrap_or_default();
        self.fill(skipped_packets * self.voice.seconds(packet_ticks).unwrap_or_default(), sink)
    }

    fn fill(&mut self, seconds: f64, sink: &mut MonoSink<'_>) -> Result<(), FeatureError> {
        let seconds = seconds.min(MAX_FILLED_SECONDS - self.filled_seconds);
        if seconds <= 0.0 || self.good_packets == 0 {
            return Ok(());
        }
        self.filled_seconds += seconds;
        let mut left = (seconds * f64::from(self.sample_rate)) as usize;
        while left > 0 {
            let part = left.min(4_096);
            self.mono.clear();
            self.mono.resize(part, 0.0);
            self.emit(sink)?;
            left -= part;
        }
        Ok(())
    }

    /// Decodes a packet to `mono`.
    fn decode_packet(&mut self, packet: &Packet) -> Result<Result<(), Error>, FeatureError> {
        let mut result = self.try_packet(packet)?;
        if result.is_err() && self.bad_in_a_row > 0 {
            // A decoder is bound to the signal that it began with, and the signal may have changed.
            if let Some(decoder) = make_decoder(self.source, &self.voice.params, self.seconds())? {
                self.voice.decoder = decoder;
                result = self.try_packet(packet)?;
            }
        }
        Ok(result)
    }

    fn try_packet(&mut self, packet: &Packet) -> Result<Result<(), Error>, FeatureError> {
        let seconds = self.seconds();
        let Self { voice, planes, source, limits, .. } = self;
        let result = guard(source, seconds, || {
            let buffer = voice.decoder.decode(packet)?;
            let (rate, channels) = (buffer.spec().rate(), buffer.spec().channels().count() as u32);
            let checked = if buffer.is_empty() { Ok(()) } else { check_signal(rate, channels, limits) };
            if checked.is_ok() {
                buffer.copy_to_vecs_planar::<f32>(planes);
            }
            Ok(checked.map(|()| (rate, channels)))
        })?;
        let (rate, channels) = match result {
            Ok(signal) => signal?,
            Err(error) => return Ok(Err(error)),
        };
        let damaged = downmix(&self.planes, &mut self.mono);
        if damaged > 0 {
            self.decoded.damage(damaged, seconds);
        }
        if !self.mono.is_empty() && (rate != self.sample_rate || self.good_packets == 0) {
            self.seconds_before = seconds;
            self.frames = 0;
            self.sample_rate = rate;
            if self.good_packets == 0 {
                self.decoded.sample_rate = rate;
                self.decoded.channels = channels;
            }
        }
        Ok(Ok(()))
    }

    /// Hands on the part of `mono` that is to be heard.
    fn emit(&mut self, sink: &mut MonoSink<'_>) -> Result<(), FeatureError> {
        let rate = f64::from(self.sample_rate);
        let first = self.frames;
        self.frames += self.mono.len() as u64;
        let skip = (self.trim.skip_seconds * rate).round() as u64;
        let end = match self.trim.duration_seconds {
            Some(seconds) => skip.saturating_add((seconds * rate).round() as u64),
            None => u64::MAX,
        };
        let index = |frame: u64| (frame.saturating_sub(first) as usize).min(self.mono.len());
        let heard = self.mono.get(index(skip)..index(end)).unwrap_or_default();
        if heard.is_empty() {
            return Ok(());
        }
        sink(MonoBlock { sample_rate: self.sample_rate, samples: heard })
    }
}
