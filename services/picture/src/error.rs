//! What can go wrong on the way to a picture.

use std::error::Error;

use chorale_feature::FeatureError;

/// A result whose error is a [`PictureError`].
pub type Result<T> = std::result::Result<T, PictureError>;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The audio cannot be read.
    #[error(transparent)]
    Audio(#[from] FeatureError),
    /// The stretch that is to be drawn lies outside of the track.
    #[error("nothing to draw from {from} s on: the track ends after {duration:.1} s")]
    Stretch {
        /// Where the stretch begins, in seconds.
        from: f64,
        /// Where the track ends, in seconds.
        duration: f64,
    },
    /// The parts do not fit into the height.
    #[error("a height of {height} is too little for what is to be drawn: expected at least {least}")]
    TooLow {
        /// The height that was asked for, in pixels.
        height: u32,
        /// The least height, in pixels.
        least: u32,
    },
    /// More pixels than make sense.
    #[error("a picture of {width} × {height} pixels is too large: expected at most {} million", .most / 1_000_000)]
    TooLarge {
        /// Pixels from left to right.
        width: u64,
        /// Pixels from top to bottom.
        height: u64,
        /// Pixels that are allowed.
        most: u64,
    },
    /// Drawing failed.
    #[error("cannot draw: {0}")]
    Draw(#[from] Box<dyn Error + Send + Sync>),
}

impl PictureError {
    /// Drawing failed because of `error`.
    pub(crate) fn drawing(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Draw(error.into())
    }
}
