//! Where everything goes.

use crate::{
    error::{PictureError, Result},
    figure::{TEXT, rows::Rows},
    look::{Look, Part},
    scene::Area,
    track::Track,
    words::width_of,
};

/// Around everything.
pub(super) const MARGIN: f64 = 24.0;
/// The height of the title and what stands under it.
const HEADING: f64 = 56.0;
/// The height of what stands above a panel.
pub(super) const CAPTION: f64 = 22.0;
/// Between a panel and the next caption.
const GAP: f64 = 8.0;
/// The height of the time axis.
const TIME_AXIS: f64 = 26.0;
/// The height of what stands at the foot.
const FOOT: f64 = 22.0;
/// What a colour bar and its numbers need, right of a spectrogram.
const COLOUR_BAR: f64 = 54.0;
/// What numbers at the axis of a waveform or a spectrogram need.
const LEAST_LEFT: f64 = 40.0;
/// The height of the strip of segments and of the space below it.
pub(super) const SEGMENTS: f64 = 28.0;
const TIMELINE_ROW: f64 = 20.0;
const VOTE_ROW: f64 = 20.0;
const WAVEFORM: f64 = 96.0;
/// Two pixels for each mel band.
const SPECTROGRAM: f64 = 256.0;
/// How much lower panels may become than they would be by themselves.
const LEAST_STRETCH: f64 = 0.6;

/// Where everything goes, in pixels.
pub(super) struct Plan {
    /// Of the whole figure.
    pub(super) size: (u32, u32),
    /// Where panels begin.
    pub(super) left: f64,
    /// The width of panels that have a time axis.
    pub(super) time_width: f64,
    /// The panels, from top to bottom.
    pub(super) panels: Vec<(Part, Area)>,
    /// The top of the time axis, if there is one.
    pub(super) time_axis: Option<f64>,
}

impl Plan {
    pub(super) fn new(track: &Track, look: &Look, rows: &Rows) -> Result<Self> {
        let parts: Vec<(Part, f64)> = Part::ALL
            .into_iter()
            .filter(|part| look.has(*part))
            .filter_map(|part| height_of(part, track, rows))
            .collect();
        let has = |wanted: Part| parts.iter().any(|(part, _)| *part == wanted);
        let has_time = parts.iter().any(|(part, _)| *part != Part::Vote);
        let fixed = 2.0 * MARGIN
            + HEADING
            + FOOT
            + parts.len() as f64 * (CAPTION + GAP)
            + if has_time { TIME_AXIS } else { 0.0 };
        let flexible: f64 = parts.iter().map(|(_, height)| height).sum();
        let height = look.height.unwrap_or((fixed + flexible).round() as u32);
        let stretch = if flexible > 0.0 { (f64::from(height) - fixed) / flexible } else { 1.0 };
        if stretch < LEAST_STRETCH - 1e-3 || f64::from(height) < fixed {
            let least = (fixed + LEAST_STRETCH * flexible).ceil() as u32;
            return Err(PictureError::TooLow { height, least });
        }

        let width = look.width.max(Look::LEAST_WIDTH);
        let longest = rows.names().map(|name| width_of(name, TEXT)).max().map_or(0.0, f64::from);
        let left = MARGIN + LEAST_LEFT.max(if has(Part::Timeline) || has(Part::Vote) { longest + 4.0 } else { 0.0 });
        let right = MARGIN + if has(Part::Spectrogram) { COLOUR_BAR } else { 0.0 };
        let time_width = f64::from(width) - left - right;
        let mut top = MARGIN + HEADING;
        let mut time_axis = None;
        let mut panels = Vec::new();
        for (part, height) in parts {
            if part == Part::Vote && has_time {
                top += TIME_AXIS;
            }
            top += CAPTION;
            let width = if part == Part::Vote { f64::from(width) - left - MARGIN } else { time_width };
            panels.push((part, Area { left, top, width, height: height * stretch }));
            top += height * stretch;
            if part != Part::Vote {
                time_axis = Some(top);
            }
            top += GAP;
        }
        Ok(Self { size: (width, height), left, time_width, panels, time_axis })
    }
}

/// A part with its height, if there is something to draw.
fn height_of(part: Part, track: &Track, rows: &Rows) -> Option<(Part, f64)> {
    let sound = track.sound.as_ref();
    let answer = track.answer.as_ref();
    let height = match part {
        Part::Waveform => sound.map(|_| WAVEFORM),
        Part::Spectrogram => sound.map(|_| SPECTROGRAM),
        Part::Timeline => answer.map(|_| SEGMENTS + TIMELINE_ROW * rows.timeline.len() as f64),
        Part::Vote => answer.map(|_| VOTE_ROW * rows.vote.len().max(1) as f64),
    };
    Some((part, height?))
}
