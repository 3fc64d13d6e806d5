//! Pictures as SVG: the canvas, its colours and its words. They need no font and nothing else from the machine.

mod confusion;
mod genres;
mod reliability;

use std::{error::Error, fmt::Debug};

use askama::Template;
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

pub(crate) use self::{confusion::confusion, genres::genres, reliability::reliability};
use crate::{Result, TrainerError};

// The page turns PAPER, INK, SOFT_INK and GRID over in the dark: nothing else may have these colours.
/// Behind everything.
pub(crate) const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
/// Words and axes.
pub(crate) const INK: RGBColor = RGBColor(0x1F, 0x24, 0x28);
/// Words that matter less.
pub(crate) const SOFT_INK: RGBColor = RGBColor(0x59, 0x63, 0x6B);
/// Lines to hold on to.
pub(crate) const GRID: RGBColor = RGBColor(0xDD, 0xE1, 0xE5);
/// Words on a light colour.
pub(crate) const INK_ON_LIGHT: RGBColor = RGBColor(0x10, 0x12, 0x14);
/// Words on a dark colour.
pub(crate) const INK_ON_DARK: RGBColor = RGBColor(0xFE, 0xFE, 0xFE);

// Of the palette of Okabe and Ito, which people with any kind of colour vision tell apart.
pub(crate) const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
pub(crate) const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
pub(crate) const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
pub(crate) const RED: RGBColor = RGBColor(0xD5, 0x5E, 0x00);

/// The size of most words, in pixels.
pub(crate) const TEXT: f64 = 13.0;
/// The size of a heading, in pixels.
pub(crate) const HEADING: f64 = 17.0;
/// The backend takes the size of a font for the height of its line.
const LINE_HEIGHT: f64 = 1.24;

/// What is drawn on, in pixels.
pub(crate) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What comes of drawing.
pub(crate) type Drawn = std::result::Result<(), Box<dyn Error + Send + Sync>>;

/// The frame of a finished picture, with what a screen reader says about it.
#[derive(Template)]
#[template(
    source = "<svg role=\"img\"{{ attributes|safe }}>\n<title>{{ title }}</title>\n<desc>{{ description }}</desc>{{ \
              body|safe }}",
    ext = "html"
)]
struct Framed<'a> {
    attributes: &'a str,
    title: String,
    description: String,
    body: &'a str,
}

/// An SVG document of `size` pixels that `paint` fills.
pub(crate) fn draw(
    size: (u32, u32),
    title: &str,
    description: &str,
    paint: impl FnOnce(&Canvas<'_>) -> Drawn,
) -> Result<String> {
    let drawn = drawn(size, paint).map_err(TrainerError::Picture)?;
    let (attributes, body) = drawn.strip_prefix("<svg").and_then(|rest| rest.split_once('>')).unwrap_or_default();
    let (title, description) = (printable(title), printable(description));
    Framed { attributes, title, description, body }.render().map_err(|error| TrainerError::Picture(error.into()))
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
pub(crate) fn font(size: f64, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size * LINE_HEIGHT).into_font().color(&colour)
}

/// Words that are centred from top to bottom, and begin, are centred or end at their place.
pub(crate) fn words(size: f64, colour: RGBColor, horizontally: HPos) -> TextStyle<'static> {
    font(size, colour).pos(Pos::new(horizontally, VPos::Center))
}

/// A heading that begins at its place.
pub(crate) fn heading() -> TextStyle<'static> {
    let bold = ("sans-serif", HEADING * LINE_HEIGHT).into_font().style(FontStyle::Bold);
    bold.color(&INK).pos(Pos::new(HPos::Left, VPos::Center))
}

/// The axes and lines of a chart, in our colours and sizes.
pub(crate) fn mesh<'chart, 'canvas, X, Y>(
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
pub(crate) fn write(canvas: &Canvas<'_>, text: String, place: (i32, i32), style: TextStyle<'static>) -> Drawn {
    Ok(canvas.draw(&Text::new(text, place, style))?)
}

/// About how wide `text` is in a proportional font of `size` pixels.
pub(crate) fn width_of(text: &str, size: f64) -> i32 {
    (text.chars().count() as f64 * size * 0.54).ceil() as i32
}

/// At most `letters` letters of a name, none of which would break a document.
pub(crate) fn shorten(name: &str, letters: usize) -> String {
    let name = printable(name);
    if name.chars().count() <= letters {
        return name;
    }
    let kept: String = name.chars().take(letters.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// The text, with a sign in place of every character that XML forbids.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
            _ if letter.is_control() => char::REPLACEMENT_CHARACTER,
            _ => letter,
        })
        .collect()
}

/// `share` of the way from white to `colour`.
pub(crate) fn tint(colour: RGBColor, share: f64) -> RGBColor {
    let mix = |channel: u8| (255.0 - share.clamp(0.0, 1.0) * (255.0 - f64::from(channel))).round() as u8;
    RGBColor(mix(colour.0), mix(colour.1), mix(colour.2))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn long_names_end_early() {
        assert_eq!(shorten("classical", 9), "classical");
        assert_eq!(shorten("drum and bass", 6), "drum…");
    }
}
