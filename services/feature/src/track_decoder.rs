//! One file from its first packet to its last: damage is skipped, and what follows keeps its place in time.

use crate::analyze::Limits;
use crate::audio_track::{AudioTrack, Trim, container_name, guard, make_decoder};
use crate::decoded::{Decoded, MonoBlock, MonoSink, check_signal};
use crate::error::FeatureError;
use crate::mono::downmix;
use crate::source::AudioSource;
use std::io::ErrorKind;
use symphonia::core::audio::Channels;
use symphonia::core::errors::Error;
use symphonia::core::formats::FormatReader;
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

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

/// Follows one file from its first packet to its last.
pub(crate) struct TrackDecoder<'a> {
    format: Box<dyn FormatReader>,
    source: &'a AudioSource,
    limits: &'a Limits,
    track: AudioTrack,
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
    pub(crate) bare_frames: bool,
    audio_start: u64,
    packet_bytes: u64,
    next_packet: Option<u64>,
}

impl<'a> TrackDecoder<'a> {
    pub(crate) fn new(
        format: Box<dyn FormatReader>,
        source: &'a AudioSource,
        limits: &'a Limits,
        tag_bytes: u64,
    ) -> Result<Self, FeatureError> {
        let track = AudioTrack::choose(&*format, source, 0.0)?;
        let params = track.decoder.codec_params();
        let sample_rate = params.sample_rate.or(track.params.sample_rate).unwrap_or_default();
        let channels = params.channels.as_ref().or(track.params.channels.as_ref()).map_or(0, Channels::count);
        let codec = track.decoder.codec_info().short_name;
        source.found_codec(codec);
        let mut decoded = Decoded::new(container_name(&*format), codec, sample_rate, channels as u32);
        decoded.extra_tracks = track.audio_tracks.saturating_sub(1);
        let trim = Trim::of(&*format, &track, source);
        Ok(Self {
            trim,
            bare_frames: matches!(decoded.container.as_str(), "mp1" | "mp2" | "mp3" | "aac"),
            decoded,
            sample_rate,
            audio_start: tag_bytes.max(source.position().saturating_sub(READ_AHEAD_BYTES)),
            format,
            source,
            limits,
            track,
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

    /// Decodes to the end of the track.
    pub(crate) fn decode(mut self, sink: &mut MonoSink<'_>) -> Result<Decoded, FeatureError> {
        let mut demux_errors = 0;
        loop {
            let next = guard(self.source, self.seconds(), || self.format.next_packet())?;
            if let Some(failure) = self.source.failure() {
                return Err(failure);
            }
            match next {
                Ok(Some(packet)) => {
                    demux_errors = 0;
                    if packet.track_id == self.track.track_id {
                        self.take(packet, sink)?;
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
        match (self.track.num_frames, self.format.tracks()) {
            (Some(frames), _) => Some(frames as f64 / f64::from(self.track.params.sample_rate?)),
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
        self.track = AudioTrack::choose(&*self.format, self.source, self.seconds())?;
        self.clock_start = None;
        Ok(())
    }

    fn note_damage(&mut self, error: &Error) {
        self.decoded.damage(1, self.seconds());
        self.bad_packets += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    fn take(&mut self, mut packet: Packet, sink: &mut MonoSink<'_>) -> Result<(), FeatureError> {
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
                let lost = self.track.seconds(packet.dur.get().try_into().unwrap_or_default());
                self.fill(lost.unwrap_or_default().min(1.0), sink)
            }
        }
    }

    /// Hears audio beyond the end that a header declares: files are joined, and headers lie.
    fn distrust_end(&self, packet: &mut Packet) {
        /// More than any encoder pads.
        const MAX_PADDING: i64 = 4_608;
        let end = self.track.num_frames.and_then(|frames| i64::try_from(frames).ok());
        if end.is_some_and(|end| packet.pts > Timestamp::new(end.saturating_add(MAX_PADDING))) {
            packet.dur = packet.block_dur();
            packet.trim_start = Duration::ZERO;
            packet.trim_end = Duration::ZERO;
        }
    }

    /// Where the container says that the audible part of a packet begins, in seconds.
    fn heard_from(&self, packet: &Packet) -> Option<f64> {
        self.track.seconds(packet.pts.saturating_add(packet.trim_start).get())
    }

    /// Puts silence where timestamps say that packets are missing, so that what follows keeps its place.
    fn fill_gap(&mut self, packet: &Packet, sink: &mut MonoSink<'_>) -> Result<(), FeatureError> {
        let (Some(time), Some(clock_start)) = (self.heard_from(packet), self.clock_start) else { return Ok(()) };
        // Containers with a clock of their own round, and drift a little.
        let tolerance = if self.track.exact_time { 0.05 } else { 0.5 };
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
        self.fill(skipped_packets * self.track.seconds(packet_ticks).unwrap_or_default(), sink)
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
            if let Some(decoder) = make_decoder(self.source, &self.track.params, self.seconds())? {
                self.track.decoder = decoder;
                result = self.try_packet(packet)?;
            }
        }
        Ok(result)
    }

    fn try_packet(&mut self, packet: &Packet) -> Result<Result<(), Error>, FeatureError> {
        let seconds = self.seconds();
        let Self { track, planes, source, limits, .. } = self;
        let result = guard(source, seconds, || {
            let buffer = track.decoder.decode(packet)?;
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
