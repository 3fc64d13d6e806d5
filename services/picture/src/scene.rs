//! What a figure is made of: marks with places that are no whole pixels, images, and groups that say what they are.

use std::fmt;

use askama::Template;
use base64::{Engine, prelude::BASE64_STANDARD};
use plotters::prelude::RGBColor;

use crate::{
    error::{PictureError, Result},
    fonts, frame,
    words::printable,
};

/// A length in pixels, as it is written: to a hundredth, and 0 for what is no number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pixels(f64);

impl fmt::Display for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The sum turns −0 into 0.
        let rounded = (self.0 * 100.0).round() / 100.0 + 0.0;
        write!(f, "{}", if rounded.is_finite() { rounded } else { 0.0 })
    }
}

/// A rectangle, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Area {
    pub(crate) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    pub(crate) fn middle(&self) -> f64 {
        self.top + self.height / 2.0
    }
}

/// Which end of a line of words stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        })
    }
}

/// How words look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    pub(crate) size: f64,
    pub(crate) colour: RGBColor,
    pub(crate) anchor: Anchor,
    pub(crate) bold: bool,
}

impl Words {
    pub(crate) fn new(size: f64, colour: RGBColor, anchor: Anchor) -> Self {
        Self { size, colour, anchor, bold: false }
    }

    pub(crate) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }
}

/// A colour as SVG has it.
struct Hex(RGBColor);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RGBColor(red, green, blue) = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

/// One mark. Words are escaped where they are put in.
#[derive(Template)]
#[template(ext = "html")]
enum Mark {
    #[template(
        source = "<rect x=\"{{ left }}\" y=\"{{ top }}\" width=\"{{ width }}\" height=\"{{ height }}\" fill=\"{{ fill }}\"\
                  {% if opacity.0 < 1.0 %} fill-opacity=\"{{ opacity }}\"{% endif %}/>"
    )]
    Rectangle { left: Pixels, top: Pixels, width: Pixels, height: Pixels, fill: Hex, opacity: Pixels },
    #[template(source = "<path d=\"{{ outline }}\" fill=\"{{ fill }}\"/>")]
    Shape { outline: String, fill: Hex },
    #[template(
        source = "<path d=\"{{ outline }}\" fill=\"none\" stroke=\"{{ stroke }}\" stroke-width=\"{{ width }}\"/>"
    )]
    Lines { outline: String, stroke: Hex, width: Pixels },
    #[template(
        source = "<text x=\"{{ x }}\" y=\"{{ y }}\" font-size=\"{{ size }}\" fill=\"{{ fill }}\" text-anchor=\"{{ anchor }}\"\
                  {% if bold %} font-weight=\"600\"{% endif %}>{{ text }}</text>"
    )]
    Text { x: Pixels, y: Pixels, size: Pixels, fill: Hex, anchor: Anchor, bold: bool, text: String },
    #[template(source = "<image x=\"{{ left }}\" y=\"{{ top }}\" width=\"{{ width }}\" height=\"{{ height }}\" \
                  preserveAspectRatio=\"none\" href=\"data:image/png;base64,{{ png|safe }}\"/>")]
    Image { left: Pixels, top: Pixels, width: Pixels, height: Pixels, png: String },
    #[template(source = "<g{% if !name.is_empty() %} class=\"{{ name }}\"{% endif %}>{% if !title.is_empty() %}\
                  <title>{{ title }}</title>{% endif %}{% for mark in marks %}{{ mark|safe }}{% endfor %}</g>\n")]
    Group { name: &'static str, title: String, marks: Vec<Mark> },
    #[template(source = "<svg x=\"{{ left }}\" y=\"{{ top }}\" width=\"{{ width }}\" height=\"{{ height }}\" \
                  viewBox=\"{{ left }} {{ top }} {{ width }} {{ height }}\">{% for mark in marks %}{{ mark|safe }}{% endfor %}\
                  </svg>\n")]
    Window { left: Pixels, top: Pixels, width: Pixels, height: Pixels, marks: Vec<Mark> },
}

#[derive(Template)]
#[template(
    source = "<svg width=\"{{ width }}\" height=\"{{ height }}\" viewBox=\"0 0 {{ width }} {{ height }}\" \
              xmlns=\"http://www.w3.org/2000/svg\" font-family=\"{{ family }}, sans-serif\">\n\
              {% for mark in marks %}{{ mark|safe }}{% endfor %}</svg>\n",
    ext = "html"
)]
struct Document<'a> {
    width: u32,
    height: u32,
    family: &'a str,
    marks: &'a [Mark],
}

/// Marks in the order in which they are painted.
#[derive(Default)]
pub(crate) struct Scene(Vec<Mark>);

impl Scene {
    /// The document, with what a screen reader says about it.
    pub(crate) fn document(&self, (width, height): (u32, u32), title: &str, description: &str) -> Result<String> {
        let document = Document { width, height, family: fonts::FAMILY, marks: &self.0 };
        frame::describe(&document.render().map_err(PictureError::drawing)?, title, description)
    }

    /// A filled rectangle.
    pub(crate) fn rectangle(&mut self, area: Area, fill: RGBColor) {
        self.shade(area, fill, 1.0);
    }

    /// A filled rectangle through which `1 − opacity` of what is behind shows.
    pub(crate) fn shade(&mut self, area: Area, fill: RGBColor, opacity: f64) {
        let Area { left, top, width, height } = area;
        self.0.push(Mark::Rectangle {
            left: Pixels(left),
            top: Pixels(top),
            width: Pixels(width.max(0.0)),
            height: Pixels(height.max(0.0)),
            fill: Hex(fill),
            opacity: Pixels(opacity),
        });
    }

    /// A filled polygon.
    pub(crate) fn shape(&mut self, corners: impl Iterator<Item = (f64, f64)>, fill: RGBColor) {
        let mut outline = outline(corners);
        outline.push('Z');
        self.0.push(Mark::Shape { outline, fill: Hex(fill) });
    }

    /// A line through points.
    pub(crate) fn line(&mut self, points: impl IntoIterator<Item = (f64, f64)>, stroke: RGBColor, width: f64) {
        self.0.push(Mark::Lines { outline: outline(points.into_iter()), stroke: Hex(stroke), width: Pixels(width) });
    }

    /// Words whose middle, from top to bottom, is at `y`.
    pub(crate) fn text(&mut self, text: &str, (x, y): (f64, f64), words: Words) {
        // Half of the height of a capital letter is the same in most fonts; how they align lines by themselves is not.
        let baseline = y + 0.36 * words.size;
        self.0.push(Mark::Text {
            x: Pixels(x),
            y: Pixels(baseline),
            size: Pixels(words.size),
            fill: Hex(words.colour),
            anchor: words.anchor,
            bold: words.bold,
            text: printable(text),
        });
    }

    /// A PNG image that fills `area`.
    pub(crate) fn image(&mut self, area: Area, png: &[u8]) {
        let Area { left, top, width, height } = area;
        let [left, top, width, height] = [left, top, width, height].map(Pixels);
        self.0.push(Mark::Image { left, top, width, height, png: BASE64_STANDARD.encode(png) });
    }

    /// Marks that belong together. `name` is for programs, `title` for people who point at them.
    pub(crate) fn group(&mut self, name: &'static str, title: &str, paint: impl FnOnce(&mut Self)) {
        let mut scene = Self::default();
        paint(&mut scene);
        self.0.push(Mark::Group { name, title: printable(title), marks: scene.0 });
    }

    /// Marks of which only what lies within `area` is to be seen.
    pub(crate) fn window(&mut self, area: Area, paint: impl FnOnce(&mut Self)) {
        let mut scene = Self::default();
        paint(&mut scene);
        let Area { left, top, width, height } = area;
        let [left, top, width, height] = [left, top, width, height].map(Pixels);
        self.0.push(Mark::Window { left, top, width, height, marks: scene.0 });
    }
}

fn outline(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut outline = String::new();
    for (index, (x, y)) in points.enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        outline.push_str(&format!("{command}{} {}", Pixels(x), Pixels(y)));
    }
    outline
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_is_xml_whatever_it_says_and_wherever_it_stands() {
        let hostile = "</text><script>&\"'\u{0}\u{ffff}]]>";
        let black = RGBColor(0, 0, 0);
        let area = Area { left: f64::NAN, top: f64::INFINITY, width: -1.0, height: 1.0 / 3.0 };
        let mut scene = Scene::default();
        scene.group("part", hostile, |scene| {
            scene.rectangle(area, black);
            scene.window(area, |scene| scene.text(hostile, (0.0, 0.0), Words::new(10.0, black, Anchor::End).bold()));
            scene.shape([(0.0, -0.001), (f64::NAN, 1.0)].into_iter(), black);
            scene.line([], black, 1.0);
            scene.image(area, b"no image");
        });
        let svg = scene.document((100, 50), hostile, hostile).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts = document.descendants().filter(roxmltree::Node::is_text).filter_map(|node| node.text());
        let texts: Vec<&str> = texts.map(str::trim).filter(|text| !text.is_empty()).collect();
        assert_eq!(texts, ["</text><script>&\"'\u{fffd}\u{fffd}]]>"; 4]);
        assert!(svg.contains("M0 0L0 1Z") && svg.contains("height=\"0.33\"") && !svg.contains("NaN"), "{svg}");
    }
}
