//! Raw samples as a text says what they are: `s16le,22050,1`.

use chorale_proto::v1::{PcmFormat, SampleFormat};
use chorale_runtime::open_inference::quoted;

const FORMATS: [(&str, SampleFormat); 5] = [
    ("s16le", SampleFormat::S16le),
    ("s24le", SampleFormat::S24le),
    ("s32le", SampleFormat::S32le),
    ("f32le", SampleFormat::F32le),
    ("u8", SampleFormat::U8),
];

/// Reads `FORMAT,RATE,CHANNELS`.
///
/// # Errors
/// What was expected, and what is there.
pub(crate) fn parse_pcm(text: &str) -> Result<PcmFormat, String> {
    let parse = || {
        let [format, rate, channels]: [&str; 3] = text.split(',').map(str::trim).collect::<Vec<_>>().try_into().ok()?;
        let (_, format) = FORMATS.into_iter().find(|(name, _)| *name == format)?;
        Some(PcmFormat {
            sample_format: format.into(),
            sample_rate: rate.parse().ok()?,
            channels: channels.parse().ok()?,
        })
    };
    parse().ok_or_else(|| {
        let formats = FORMATS.map(|(name, _)| name).join(", ");
        format!(
            "expected FORMAT,RATE,CHANNELS such as `s16le,22050,1` with a format of {formats}, found {}",
            quoted(text)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_read_as_it_is_written_and_nothing_else_is() {
        let read = parse_pcm("s16le, 22050, 1").unwrap();
        assert_eq!((read.sample_format(), read.sample_rate, read.channels), (SampleFormat::S16le, 22_050, 1));
        assert_eq!(parse_pcm("f32le,8000,2").unwrap().channels, 2);
        for wrong in ["", "s16le", "s16le,22050", "s16le,22050,1,1", "s16be,22050,1", "s16le,-1,1", "s16le,22050,x"] {
            assert!(parse_pcm(wrong).unwrap_err().contains("`s16le,22050,1`"), "{wrong}");
        }
    }
}
