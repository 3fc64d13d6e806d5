//! The waveform: the range of the samples, and inside of it how loud they are.

use chorale_model::contract::SAMPLE_RATE;

use crate::{
    figure::{Figure, SMALL},
    scene::{Anchor, Area, Scene, Words},
    waveform::{Extent, fewer},
};

/// Ends of the axis, full scale being 1.
const RANGES: [f64; 12] = [0.000_1, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 10.0];
/// What is thinner cannot be seen, in pixels.
const THINNEST: f64 = 0.8;

pub(super) fn paint(figure: &Figure<'_>, area: Area, scene: &mut Scene) {
    let Some(sound) = &figure.track.sound else { return };
    let (time, palette) = (&figure.time, &figure.palette);
    let peak = sound.waveform.peak();
    let range = RANGES.into_iter().find(|range| *range >= peak).unwrap_or(peak);
    // Silence is a line in the middle of an axis like all others.
    let range = if peak > 0.0 { range } else { 1.0 };
    let y = |sample: f64| area.middle() - sample / range * area.height / 2.0;
    let (together, columns) = fewer(sound.waveform.columns(), area.width as usize);
    let seconds = (sound.waveform.samples_per_column() * together as u64) as f64 / f64::from(SAMPLE_RATE);
    let x = |index: f64| time.x((time.from + index * seconds).min(time.to));
    let band = |bounds: &dyn Fn(&Extent) -> (f64, f64)| {
        let edges: Vec<(f64, f64, f64)> = columns
            .iter()
            .enumerate()
            .map(|(index, extent)| {
                let (low, high) = bounds(extent);
                let (top, bottom) = (y(high), y(low));
                let thicker = ((THINNEST - (bottom - top)) / 2.0).max(0.0);
                (x(index as f64 + 0.5), top - thicker, bottom + thicker)
            })
            .collect();
        outline(&edges, (x(0.0), x(columns.len() as f64)))
    };
    figure.caption("Waveform: range, and root mean square", area, scene);
    scene.group("waveform", "", |scene| {
        scene.rectangle(area, palette.panel);
        time.grid(area, palette, scene);
        scene.shape(band(&|extent| (extent.lowest.into(), extent.highest.into())).into_iter(), palette.wave);
        let inner = |extent: &Extent| {
            let loudness = extent.loudness();
            (f64::from(extent.lowest).max(-loudness), f64::from(extent.highest).min(loudness))
        };
        scene.shape(band(&inner).into_iter(), palette.loudness);
        for sample in [range, 0.0, -range] {
            let number = if sample < 0.0 { format!("−{}", -sample) } else { sample.to_string() };
            let inside = y(sample).clamp(area.top + SMALL * 0.4, area.bottom() - SMALL * 0.4);
            scene.text(&number, (area.left - 8.0, inside), Words::new(SMALL, palette.soft_ink, Anchor::End));
        }
    });
}

/// The corners of a band, along its top and back along its bottom. `edges` are x, top and bottom of each column's middle;
/// `ends` are where the first column begins and the last one ends.
fn outline(edges: &[(f64, f64, f64)], ends: (f64, f64)) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (edges.first(), edges.last()) else { return Vec::new() };
    let (left, right) = ends;
    let edges = || [(left, first.1, first.2)].into_iter().chain(edges.iter().copied()).chain([(right, last.1, last.2)]);
    edges().map(|(x, top, _)| (x, top)).chain(edges().rev().map(|(x, _, bottom)| (x, bottom))).collect()
}
