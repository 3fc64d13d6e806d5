//! The pictures of a report.

mod confusion;
mod genres;
mod reliability;

pub(crate) use chorale_picture::{
    canvas::{
        BLUE, Canvas, Drawn, GREEN, GRID, HEADING, INK, INK_ON_DARK, INK_ON_LIGHT, ORANGE, PAPER, RED, SOFT_INK, TEXT,
        heading, mesh, tint, words, write,
    },
    words::{printable, shorten, width_of},
};

pub(crate) use self::{confusion::confusion, genres::genres, reliability::reliability};
use crate::{Result, TrainerError};

/// An SVG document of `size` pixels that `paint` fills.
pub(crate) fn draw(
    size: (u32, u32),
    title: &str,
    description: &str,
    paint: impl FnOnce(&Canvas<'_>) -> Drawn,
) -> Result<String> {
    chorale_picture::canvas::draw(size, title, description, paint).map_err(|error| TrainerError::Picture(error.into()))
}
