//! The arguments of `chorale plot`.

use std::path::PathBuf;

use chorale_picture::{Look, Part, Stretch, Theme};
use clap::{Args, ValueEnum};

use super::listener::ListenerFlags;

pub(crate) const EXAMPLES: &str = "\
Examples:
  chorale plot song.mp3                                  writes song.png into this folder
  chorale plot song.mp3 -o song.svg --theme dark
  chorale plot song.mp3 -o intro.png --from 0 --to 0:30 --what waveform,spectrogram
  chorale plot song.mp3 -o slide.png --size 1280x720 --scale 1.5
  chorale plot song.mp3 -o - --format png | display      to another program
  chorale plot ~/Music/album -o pictures/                one picture for each file

A figure of waveform and spectrogram alone is drawn without asking anybody. SVG files load nothing and need no
fonts; PNG files look the same wherever they are made.
Exit codes: 0 all drawn, 1 something failed (the rest was drawn), 2 wrong usage or configuration.";

/// Pixels of a side at most.
const MOST_PIXELS: u32 = 20_000;

#[derive(Debug, Args)]
pub(crate) struct PlotArguments {
    /// Audio files, or folders to search for audio files
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Picture to write: NAME.png or NAME.svg, - for standard output, or a folder for several files [default: the name of
    /// the file with .png, in the current folder, if nothing is there yet]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// What to write, whatever the name of the picture says [default: as it says; png for folders, svg for -]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<PictureFormat>,
    /// Parts to draw, comma-separated [default: all]
    #[arg(long, value_enum, value_name = "PART", value_delimiter = ',')]
    pub(crate) what: Vec<PartFlag>,
    /// Colours: light for paper, dark for slides and dark pages
    #[arg(long, value_enum, default_value_t = ThemeFlag::Light)]
    pub(crate) theme: ThemeFlag,
    /// Size of the figure in pixels; the height is what the parts need if it is left out
    #[arg(long, value_name = "WIDTH[xHEIGHT]", default_value = "1000", value_parser = size)]
    pub(crate) size: FigureSize,
    /// Pixels of a PNG file for each pixel of the figure: 2 is sharp on most screens, 3 in print
    #[arg(long, value_name = "N", default_value = "2", value_parser = scale)]
    pub(crate) scale: f64,
    /// Heading [default: the name of the file]
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Draw from here on: seconds, 1:23 or 1m23s. The verdict is that of the whole track
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time)]
    pub(crate) from: f64,
    /// Draw up to here [default: the end]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) to: Option<f64>,
    /// Files to draw at a time [default: the number of cores]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    #[command(flatten)]
    pub(crate) listener: ListenerFlags,
}

/// What a picture is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PictureFormat {
    /// Pixels
    Png,
    /// Lines and words, sharp at any size
    Svg,
}

impl PictureFormat {
    /// What its files end in.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Svg => "svg",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PartFlag {
    /// Range and root mean square of the samples
    Waveform,
    /// The log-mel spectrogram, which is what the network hears
    Spectrogram,
    /// Probabilities of genres chunk by chunk
    Timeline,
    /// Probabilities over the whole track
    Vote,
}

impl From<PartFlag> for Part {
    fn from(flag: PartFlag) -> Self {
        match flag {
            PartFlag::Waveform => Self::Waveform,
            PartFlag::Spectrogram => Self::Spectrogram,
            PartFlag::Timeline => Self::Timeline,
            PartFlag::Vote => Self::Vote,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ThemeFlag {
    Light,
    Dark,
}

/// Pixels from left to right, and from top to bottom if that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FigureSize {
    width: u32,
    height: Option<u32>,
}

impl PlotArguments {
    /// How tracks are to be drawn.
    pub(crate) fn look(&self) -> Look {
        let parts = if self.what.is_empty() {
            Part::ALL.to_vec()
        } else {
            self.what.iter().map(|part| Part::from(*part)).collect()
        };
        let theme = match self.theme {
            ThemeFlag::Light => Theme::Light,
            ThemeFlag::Dark => Theme::Dark,
        };
        Look {
            parts,
            stretch: Stretch { from_seconds: self.from, to_seconds: self.to },
            theme,
            width: self.size.width,
            height: self.size.height,
            title: self.title.clone(),
        }
    }
}

fn size(text: &str) -> Result<FigureSize, String> {
    let expected = || {
        format!(
            "expected WIDTH or WIDTHxHEIGHT in pixels, the width from {} and both up to {MOST_PIXELS}",
            Look::LEAST_WIDTH
        )
    };
    let (width, height) = text.split_once('x').map_or((text, None), |(width, height)| (width, Some(height)));
    let pixels = |text: &str| text.parse().ok().filter(|pixels| *pixels <= MOST_PIXELS).ok_or_else(expected);
    let width = pixels(width)?;
    let height = height.map(pixels).transpose()?;
    if width < Look::LEAST_WIDTH { Err(expected()) } else { Ok(FigureSize { width, height }) }
}

fn scale(text: &str) -> Result<f64, String> {
    let expected = || "expected a number from 0.25 to 16".to_owned();
    text.parse().ok().filter(|scale| (0.25..=16.0).contains(scale)).ok_or_else(expected)
}

/// Seconds of a time such as `83`, `83.5`, `1:23`, `1:02:03` or `1m23s`.
fn time(text: &str) -> Result<f64, String> {
    let expected = || "expected a time such as 83, 1:23, 1:02:03 or 1m23s".to_owned();
    if !text.contains(':') && text.contains(char::is_alphabetic) {
        return humantime::parse_duration(text).map(|duration| duration.as_secs_f64()).map_err(|_| expected());
    }
    let fields: Vec<&str> = text.split(':').collect();
    let digits = |field: &&str| field.starts_with(|first: char| first.is_ascii_digit());
    if fields.len() > 3 || !fields.iter().all(digits) {
        return Err(expected());
    }
    let numbers: Result<Vec<f64>, _> = fields.iter().map(|field| field.parse::<f64>()).collect();
    let seconds = numbers.map_err(|_| expected())?.into_iter().fold(0.0, |seconds, field| seconds * 60.0 + field);
    if seconds.is_finite() { Ok(seconds) } else { Err(expected()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let times = ["0", "83", "83.5", "1:23", "1:02:03", "1m23s", "500ms"].map(|text| time(text).unwrap());
        assert_eq!(times, [0.0, 83.0, 83.5, 83.0, 3_723.0, 83.0, 0.5]);
        for wrong in ["", "-1", "1:", ":", "a", "1:2:3:4", "1:x", "inf", "NaN", "1:-2"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_bounds() {
        assert_eq!(size("1000"), Ok(FigureSize { width: 1_000, height: None }));
        assert_eq!(size("1280x720"), Ok(FigureSize { width: 1_280, height: Some(720) }));
        for wrong in ["", "x", "100", "1000x", "20001", "1000x20001", "-5", "1e3"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
