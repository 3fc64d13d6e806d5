//! How long callers wait under a load, as a picture.

use std::{error::Error, path::Path};

use plotters::prelude::{
    ChartBuilder, Circle, Color, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries, PathElement, RGBColor,
    SVGBackend, SeriesLabelPosition, ShapeStyle, WHITE,
};

use crate::load::LoadResult;

const SIZE: (u32, u32) = (860, 480);
const INK: RGBColor = RGBColor(0x1F, 0x24, 0x28);
const GRID: RGBColor = RGBColor(0xDD, 0xE1, 0xE5);
/// Of the palette of Okabe and Ito, which people with any kind of colour vision tell apart.
const COLOURS: [RGBColor; 3] = [RGBColor(0x00, 0x72, 0xB2), RGBColor(0xD5, 0x5E, 0x00), RGBColor(0x00, 0x9E, 0x73)];
const TEXT: i32 = 15;

/// Writes an SVG: tracks a second from left to right, milliseconds upwards; a line for what all but one in a hundred
/// callers wait at most, and a thin one for half of them.
pub(crate) fn write(results: &[LoadResult], path: &Path) -> anyhow::Result<()> {
    let svg = draw(results).map_err(|error| anyhow::anyhow!("the plot cannot be drawn: {error}"))?;
    std::fs::write(path, svg)?;
    Ok(())
}

fn draw(results: &[LoadResult]) -> Result<String, Box<dyn Error + Send + Sync>> {
    let loads = || results.iter().flat_map(|result| &result.loads);
    let most = loads().map(|load| load.offered_per_second).fold(0.0, f64::max);
    let slowest = loads().map(|load| load.latency.p99).fold(0.0, f64::max);
    let fastest = loads().map(|load| load.latency.p50).fold(slowest, f64::min);
    let mut svg = String::new();
    let canvas = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    canvas.fill(&WHITE)?;
    let font = || ("sans-serif", TEXT).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&canvas)
        .margin(20)
        .x_label_area_size(50)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..most * 1.05, (fastest * 0.8..slowest * 1.25).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE.mix(0.0))
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style(font())
        .axis_desc_style(font())
        .x_desc("tracks a second that were offered, at random times")
        .y_desc("milliseconds until the verdict")
        .x_label_formatter(&|per_second| format!("{per_second:.0}"))
        .y_label_formatter(&|milliseconds| format!("{milliseconds:.0}"))
        .draw()?;
    for (result, colour) in results.iter().zip(COLOURS.iter().cycle()) {
        for (label, width, at) in [("99 of 100", 3, 0.99), ("half", 1, 0.5)] {
            let style = ShapeStyle::from(colour).stroke_width(width);
            let points = || {
                let waits = |load: &crate::load::Load| if at > 0.5 { load.latency.p99 } else { load.latency.p50 };
                result.loads.iter().map(move |load| (load.offered_per_second, waits(load)))
            };
            chart
                .draw_series(LineSeries::new(points(), style))?
                .label(format!("{}: {label} wait no longer", result.name))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            chart.draw_series(points().map(|point| Circle::new(point, 3, colour.filled())))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.9))
        .border_style(GRID)
        .label_font(font())
        .draw()?;
    canvas.present()?;
    drop((chart, canvas));
    Ok(svg)
}
