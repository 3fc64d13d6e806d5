//! The audio track of a file that is heard: its decoder, and which part of its samples counts.

use crate::edit_list;
use crate::error::FeatureError;
use crate::source::AudioSource;
use std::panic::{AssertUnwindSafe, catch_unwind};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions, well_known,
};
use symphonia::core::formats::{FormatReader, Track};
use symphonia::core::units::TimeBase;

/// Runs what symphonia does with hostile bytes. It aims not to panic on any, but it is a large body of parsers: should
/// one slip, it costs its own track, not the thread and the caller's answer.
pub(crate) fn guard<T>(source: &AudioSource, seconds: f64, call: impl FnOnce() -> T) -> Result<T, FeatureError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| FeatureError::Unreadable {
        what: "the decoder failed on it".to_owned(),
        byte: source.position(),
        seconds,
    })
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
pub(crate) struct AudioTrack {
    pub(crate) track_id: u32,
    pub(crate) params: AudioCodecParameters,
    pub(crate) decoder: Box<dyn AudioDecoder>,
    pub(crate) time_base: Option<TimeBase>,
    /// Whether a tick is a sample, so that timestamps can be trusted to the sample.
    pub(crate) exact_time: bool,
    pub(crate) num_frames: Option<u64>,
    pub(crate) audio_tracks: u32,
}

impl AudioTrack {
    /// The first audio track that can be decoded.
    pub(crate) fn choose(format: &dyn FormatReader, source: &AudioSource, seconds: f64) -> Result<Self, FeatureError> {
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

    pub(crate) fn seconds(&self, ticks: i64) -> Option<f64> {
        let time_base = self.time_base?;
        Some(ticks as f64 * f64::from(time_base.numer.get()) / f64::from(time_base.denom.get()))
    }
}

pub(crate) fn make_decoder(
    source: &AudioSource,
    params: &AudioCodecParameters,
    seconds: f64,
) -> Result<Option<Box<dyn AudioDecoder>>, FeatureError> {
    let options = AudioDecoderOptions::default();
    let made = guard(source, seconds, || symphonia::default::get_codecs().make_audio_decoder(params, &options))?;
    Ok(made.ok())
}

pub(crate) fn container_name(format: &dyn FormatReader) -> &'static str {
    match format.format_info().short_name {
        "wave" => "wav",
        "isomp4" => "mp4",
        "matroska" => "mkv",
        name => name,
    }
}

/// The part of a track's samples that is heard, where symphonia leaves the cutting to its caller.
#[derive(Debug, Default)]
pub(crate) struct Trim {
    pub(crate) skip_seconds: f64,
    pub(crate) duration_seconds: Option<f64>,
}

impl Trim {
    pub(crate) fn of(format: &dyn FormatReader, audio: &AudioTrack, source: &AudioSource) -> Self {
        let rate = f64::from(audio.params.sample_rate.unwrap_or_default().max(1));
        match container_name(format) {
            "mp4" => match source.revisit(|mut file| edit_list::find(&mut file, audio.track_id)).flatten() {
                Some(edit) => Self { skip_seconds: edit.skip_seconds, duration_seconds: edit.duration_seconds },
                None => Self::default(),
            },
            "caf" => {
                let delay =
                    format.tracks().iter().find(|track| track.id == audio.track_id).and_then(|track| track.delay);
                let skip_seconds = f64::from(delay.unwrap_or_default()) / rate;
                let heard = audio.num_frames.filter(|_| delay.is_some()).map(|frames| frames as f64 / rate);
                Self { skip_seconds, duration_seconds: heard }
            }
            _ => Self::default(),
        }
    }
}
