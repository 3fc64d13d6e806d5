//! The figure: its parts, from top to bottom, on one time axis.

mod heading;
mod plan;
mod rows;
mod spectrogram;
mod time;
mod timeline;
mod vote;
mod waveform;

use crate::{
    error::Result,
    figure::{plan::Plan, rows::Rows, time::TimeScale},
    look::{Look, Part},
    scene::{Anchor, Area, Scene, Words},
    theme::Palette,
    track::Track,
};

/// The size of most words, in pixels.
const TEXT: f64 = 12.0;
/// The size of words at axes, in pixels.
const SMALL: f64 = 11.0;

/// What all parts look at.
struct Figure<'a> {
    track: &'a Track,
    look: &'a Look,
    palette: Palette,
    rows: Rows,
    plan: Plan,
    time: TimeScale,
}

/// Draws `track` as an SVG document. It loads nothing, and says in words what it shows.
///
/// # Errors
/// [`PictureError::Stretch`](crate::PictureError::Stretch) if the track ends before what is to be shown,
/// [`PictureError::TooLow`](crate::PictureError::TooLow) if the parts do not fit into the height that `look` wants,
/// [`PictureError::Draw`](crate::PictureError::Draw) if drawing fails.
pub fn svg(track: &Track, look: &Look) -> Result<String> {
    let rows = Rows::of(track);
    let plan = Plan::new(track, look, &rows)?;
    let time = TimeScale::new(track, look.stretch, plan.left, plan.time_width)?;
    let figure = Figure { track, look, palette: Palette::of(look.theme), rows, plan, time };
    let mut scene = Scene::default();
    let (width, height) = figure.plan.size;
    let whole = Area { left: 0.0, top: 0.0, width: f64::from(width), height: f64::from(height) };
    scene.rectangle(whole, figure.palette.paper);
    heading::paint(&figure, &mut scene);
    for (part, area) in &figure.plan.panels {
        match part {
            Part::Waveform => waveform::paint(&figure, *area, &mut scene),
            Part::Spectrogram => spectrogram::paint(&figure, *area, &mut scene)?,
            Part::Timeline => timeline::paint(&figure, *area, &mut scene),
            Part::Vote => vote::paint(&figure, *area, &mut scene),
        }
    }
    if let Some(top) = figure.plan.time_axis {
        figure.time.paint(top, &figure.palette, &mut scene);
    }
    scene.document(figure.plan.size, &figure.title(), &heading::description(&figure))
}

impl Figure<'_> {
    fn title(&self) -> String {
        self.look.title.clone().unwrap_or_else(|| self.track.name.clone())
    }

    /// What a panel shows, above it.
    fn caption(&self, text: &str, area: Area, scene: &mut Scene) {
        let place = (area.left, area.top - plan::CAPTION / 2.0 + 1.0);
        scene.text(text, place, Words::new(SMALL, self.palette.soft_ink, Anchor::Start));
    }

    /// The name of a row, at its left.
    fn row_name(&self, name: &str, area: Area, y: f64, scene: &mut Scene) {
        scene.text(name, (area.left - 8.0, y), Words::new(TEXT, self.palette.ink, Anchor::End));
    }
}

#[cfg(test)]
mod tests;
