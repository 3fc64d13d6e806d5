//! Charts as SVG: the canvas, its colours and its words. They need no font and nothing else from the machine.

use std::{error::Error, fmt::Debug};

use plotters::{
    chart::MeshStyle,
    coord::{Shift, ranged1d::ValueFormatter},
    prelude::{
        Cartesian2d, ChartContext, Color, DrawingArea, IntoDrawingArea, IntoFont, RGBColor, Ranged, SVGBackend, Text,
        TextStyle,
    },
    style::{
        FontStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use crate::{Result, frame};

// The page turns PAPER, INK, SOFT_INK and GRID over in the dark: nothing else may have these colours.
/// Behind everything.
pub const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
/// Words and axes.
pub const INK: RGBColor = RGBColor(0x1F, 0x24, 0x28);
/// Words that matter less.
pub const SOFT_INK: RGBColor = RGBColor(0x59, 0x63, 0x6B);
/// Lines to hold on to.
pub const GRID: RGBColor = RGBColor(0xDD, 0xE1, 0xE5);
/// Words on a light colour.
pub const INK_ON_LIGHT: RGBColor = RGBColor(0x10, 0x12, 0x14);
/// Words on a dark colour.
pub const INK_ON_DARK: RGBColor = RGBColor(0xFE, 0xFE, 0xFE);

// Of the palette of Okabe and Ito, which people with any kind of colour vision tell apart.
/// The first colour, and that of what is right.
pub const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
/// The second colour.
pub const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
/// The third colour.
pub const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
/// The colour of what differs, or is wrong.
pub const RED: RGBColor = RGBColor(0xD5, 0x5E, 0x00);

/// The size of most words, in pixels.
pub const TEXT: f64 = 13.0;
/// The size of a heading, in pixels.
pub const HEADING: f64 = 17.0;
/// The backend takes the size of a font for the height of its line.
const LINE_HEIGHT: f64 = 1.24;

/// What is drawn on, in pixels.
pub type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What comes of drawing.
pub type Drawn = std::result::Result<(), Box<dyn Error + Send + Sync>>;

/// An SVG document of `size` pixels that `paint` fills.
///
/// # Errors
/// [`PictureError::Draw`](crate::PictureError::Draw).
pub fn draw(
    size: (u32, u32),
    title: &str,
    description: &str,
    paint: impl FnOnce(&Canvas<'_>) -> Drawn,
) -> Result<String> {
    frame::describe(&drawn(size, paint)?, title, description)
}

fn drawn(
    size: (u32, u32),
    paint: impl FnOnce(&Canvas<'_>) -> Drawn,
) -> std::result::Result<String, Box<dyn Error + Send + Sync>> {
    let mut drawn = String::new();
    let canvas = SVGBackend::with_string(&mut drawn, size).into_drawing_area();
    canvas.fill(&PAPER)?;
    paint(&canvas)?;
    canvas.present()?;
    drop(canvas);
    Ok(drawn)
}

/// Words of `size` pixels.
#[must_use]
pub fn font(size: f64, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size * LINE_HEIGHT).into_font().color(&colour)
}

/// Words that are centred from top to bottom, and begin, are centred or end at their place.
#[must_use]
pub fn words(size: f64, colour: RGBColor, horizontally: HPos) -> TextStyle<'static> {
    font(size, colour).pos(Pos::new(horizontally, VPos::Center))
}

/// A heading that begins at its place.
#[must_use]
pub fn heading() -> TextStyle<'static> {
    let bold = ("sans-serif", HEADING * LINE_HEIGHT).into_font().style(FontStyle::Bold);
    bold.color(&INK).pos(Pos::new(HPos::Left, VPos::Center))
}

/// The axes and lines of a chart, in our colours and sizes.
pub fn mesh<'chart, 'canvas, X, Y>(
    chart: &'chart mut ChartContext<'canvas, SVGBackend<'canvas>, Cartesian2d<X, Y>>,
) -> MeshStyle<'canvas, 'chart, X, Y, SVGBackend<'canvas>>
where
    X: Ranged,
    Y: Ranged,
    X::ValueType: Debug,
    Y::ValueType: Debug,
    X: ValueFormatter<X::ValueType>,
    Y: ValueFormatter<Y::ValueType>,
{
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(PAPER.mix(0.0))
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style(font(TEXT, INK))
        .axis_desc_style(font(TEXT, SOFT_INK));
    mesh
}

/// Writes `text` on the canvas.
///
/// # Errors
/// What the canvas says.
pub fn write(canvas: &Canvas<'_>, text: String, place: (i32, i32), style: TextStyle<'static>) -> Drawn {
    Ok(canvas.draw(&Text::new(text, place, style))?)
}

/// `share` of the way from white to `colour`.
#[must_use]
pub fn tint(colour: RGBColor, share: f64) -> RGBColor {
    let mix = |channel: u8| (255.0 - share.clamp(0.0, 1.0) * (255.0 - f64::from(channel))).round() as u8;
    RGBColor(mix(colour.0), mix(colour.1), mix(colour.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::shorten;

    #[test]
    fn a_picture_is_xml_whatever_the_words_say() {
        let hostile = "<script>&\"'\u{0}\u{ffff}]]>--";
        let svg = draw((300, 100), hostile, hostile, |canvas| {
            write(canvas, shorten(hostile, 50), (10, 50), words(TEXT, INK, HPos::Left))
        });
        let svg = svg.unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts = ["title", "desc", "text"].map(|tag| {
            let node = document.descendants().find(|node| node.has_tag_name(tag));
            node.and_then(|node| node.text()).unwrap().trim().to_owned()
        });
        assert_eq!(texts, ["<script>&\"'\u{fffd}\u{fffd}]]>--"; 3]);
        assert_eq!(document.root_element().attribute("width"), Some("300"));
    }
}
