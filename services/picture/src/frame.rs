//! The frame of a finished picture.

use askama::Template;

use crate::{
    error::{PictureError, Result},
    words::printable,
};

/// An SVG document with what a screen reader says about it.
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

/// The document of `svg` with its `title` and `description`.
pub(crate) fn describe(svg: &str, title: &str, description: &str) -> Result<String> {
    let (attributes, body) = svg.strip_prefix("<svg").and_then(|rest| rest.split_once('>')).unwrap_or_default();
    let (title, description) = (printable(title), printable(description));
    Framed { attributes, title, description, body }.render().map_err(PictureError::drawing)
}
