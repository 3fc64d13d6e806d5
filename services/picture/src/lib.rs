//! Pictures of a track: waveform, log-mel spectrogram, what was heard where, and the vote, in one figure.
//!
//! [`Sound::read`] takes from a file what the eye can see of it, [`svg()`] draws a [`Track`] the way that a [`Look`] says, and
//! [`png()`] makes pixels of that, the same ones on every machine. Memory does not grow with the length of the track.
//!
//! [`canvas`] and [`words`] are what charts of other kinds are drawn with.

pub mod canvas;
pub mod words;

mod colour_map;
mod columns;
mod error;
mod figure;
mod fonts;
mod frame;
mod look;
mod oklab;
mod raster;
mod scene;
mod sound;
mod spectrogram;
mod theme;
mod track;
mod waveform;

pub use crate::{
    error::{PictureError, Result},
    figure::svg,
    look::{Look, Part, Stretch, Theme},
    raster::png,
    sound::Sound,
    track::{Answer, Track},
};
