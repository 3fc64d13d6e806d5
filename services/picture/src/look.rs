//! How a track is to be drawn.

/// A part of the figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The waveform: the range of samples, and their root mean square.
    Waveform,
    /// The log-mel spectrogram, which is what the network hears.
    Spectrogram,
    /// What each chunk sounds like.
    Timeline,
    /// What the whole track sounds like.
    Vote,
}

impl Part {
    /// All parts, from top to bottom.
    pub const ALL: [Self; 4] = [Self::Waveform, Self::Spectrogram, Self::Timeline, Self::Vote];

    /// Whether it is drawn from the audio; from the answer if not.
    #[must_use]
    pub fn needs_sound(self) -> bool {
        matches!(self, Self::Waveform | Self::Spectrogram)
    }
}

/// Dark on light, or light on dark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Theme {
    /// For paper and light pages.
    #[default]
    Light,
    /// For slides and dark pages.
    Dark,
}

/// A stretch of a track, in seconds from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stretch {
    /// Where it begins.
    pub from_seconds: f64,
    /// Where it ends. Default: where the track does.
    pub to_seconds: Option<f64>,
}

/// How a track is to be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// What is drawn, from top to bottom whatever their order here.
    pub parts: Vec<Part>,
    /// What is shown of the track, where time goes from left to right.
    pub stretch: Stretch,
    /// Its colours.
    pub theme: Theme,
    /// Pixels from left to right, at least [`Look::LEAST_WIDTH`].
    pub width: u32,
    /// Pixels from top to bottom. Default: what the parts need.
    pub height: Option<u32>,
    /// The heading. Default: the name of the track.
    pub title: Option<String>,
}

impl Look {
    /// The least width, in pixels.
    pub const LEAST_WIDTH: u32 = 480;

    /// Whether `part` is drawn.
    #[must_use]
    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

impl Default for Look {
    fn default() -> Self {
        Self {
            parts: Part::ALL.to_vec(),
            stretch: Stretch::default(),
            theme: Theme::Light,
            width: 1_000,
            height: None,
            title: None,
        }
    }
}
