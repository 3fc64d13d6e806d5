//! The reliability diagram: whether the model is right as often as it is sure.

use plotters::{
    prelude::{ChartBuilder, Circle, Color, DashedLineSeries, PathElement, Rectangle},
    style::text_anchor::HPos,
};

use super::{BLUE, INK, RED, SOFT_INK, TEXT, draw, heading, mesh, tint, words, write};
use crate::{Report, Result, metrics::wilson_interval};

const MARGIN: i32 = 20;
const SIZE: (u32, u32) = (660, 640);
/// The height of the heading and what stands under it.
const HEAD: u32 = 104;
/// Room above 100 % for the number of tracks.
const TOP: f64 = 108.0;

/// Accuracy by confidence in bins, with the line on which both are equal.
pub(crate) fn reliability(report: &Report) -> Result<String> {
    let error = report.expected_calibration_error * 100.0;
    let description = format!(
        "Bars of the accuracy in bins of confidence, with the line on which both are equal. The expected calibration error \
         is {error:.1} % over {} tracks.",
        report.tracks
    );
    draw(SIZE, "Reliability diagram", &description, |canvas| {
        write(canvas, "Is it right as often as it is sure?".to_owned(), (MARGIN, 26), heading())?;
        let smooth = report.smooth_calibration_error * 100.0;
        let caption = format!(
            "expected calibration error {error:.1} % in 10 bins, {smooth:.1} % without; {} tracks",
            report.tracks
        );
        write(canvas, caption, (MARGIN, 52), words(TEXT, INK, HPos::Left))?;
        let key = 78;
        canvas.draw(&Circle::new((MARGIN + 6, key), 4, INK.filled()))?;
        let note = "mean confidence of the bin, with the 95 % interval of its accuracy";
        write(canvas, note.to_owned(), (MARGIN + 18, key), words(TEXT, INK, HPos::Left))?;
        canvas.draw(&PathElement::new([(MARGIN + 458, key), (MARGIN + 482, key)], RED.stroke_width(2)))?;
        write(canvas, "as sure as right".to_owned(), (MARGIN + 488, key), words(TEXT, INK, HPos::Left))?;

        let (_, below) = canvas.split_vertically(HEAD);
        let mut chart = ChartBuilder::on(&below)
            .margin_right(24)
            .margin_bottom(8)
            .margin_left(8)
            .x_label_area_size(50)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..100.0, 0.0..TOP)?;
        mesh(&mut chart)
            .x_labels(11)
            .y_labels(6)
            .x_desc("confidence (%)")
            .y_desc("track accuracy (%)")
            .x_label_formatter(&|percent| format!("{percent:.0}"))
            .y_label_formatter(&|percent| format!("{percent:.0}"))
            .draw()?;
        for bin in &report.reliability {
            let (Some(accuracy), Some(confidence)) = (bin.accuracy, bin.mean_confidence) else { continue };
            let [from, to] = [bin.lower * 100.0, bin.upper * 100.0];
            let corners = [(from + 0.4, 0.0), (to - 0.4, accuracy * 100.0)];
            chart.draw_series([
                Rectangle::new(corners, tint(BLUE, 0.45).filled()),
                Rectangle::new(corners, BLUE.stroke_width(1)),
            ])?;
            let right = (accuracy * bin.tracks as f64).round() as usize;
            let [low, high] = wilson_interval(right, bin.tracks).map(|share| share * 100.0);
            let confidence = confidence * 100.0;
            chart.draw_series([PathElement::new([(confidence, low), (confidence, high)], INK.stroke_width(1))])?;
            chart.draw_series([Circle::new((confidence, accuracy * 100.0), 4, INK.filled())])?;
        }
        let diagonal = [(0.0, 0.0), (100.0, 100.0)];
        chart.draw_series(DashedLineSeries::new(diagonal, 6, 4, RED.stroke_width(2)))?;

        let (_, row) = chart.backend_coord(&(0.0, 104.0));
        for bin in &report.reliability {
            let (x, _) = chart.backend_coord(&((bin.lower + bin.upper) * 50.0, 0.0));
            let tracks = if bin.tracks == 0 { "·".to_owned() } else { bin.tracks.to_string() };
            write(canvas, tracks, (x, row), words(TEXT, SOFT_INK, HPos::Center))?;
        }
        let (start, _) = chart.backend_coord(&(0.0, 0.0));
        write(canvas, "tracks".to_owned(), (start - 6, row), words(TEXT, SOFT_INK, HPos::Right))
    })
}
