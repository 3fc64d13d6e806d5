//! A figure as pixels.

use plotters::prelude::RGBColor;
use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree},
};

use crate::{
    error::{PictureError, Result},
    fonts,
};

/// Pixels of a picture at most: 256 MiB of memory while it is drawn.
const MOST_PIXELS: u64 = 64_000_000;
/// Pixels of a figure in a metre, by what CSS takes a pixel for.
const PIXELS_PER_METRE: f64 = 96.0 / 0.0254;

/// A figure that [`svg()`](crate::svg) drew as a PNG file, with `scale` pixels to each of its own: 2 is sharp on most screens,
/// 3 in print.
///
/// # Errors
/// [`PictureError::TooLarge`], or [`PictureError::Draw`] for what is no SVG.
pub fn png(svg: &str, scale: f64) -> Result<Vec<u8>> {
    let options = Options { fontdb: fonts::embedded(), font_resolver: fonts::resolver(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(PictureError::drawing)?;
    let size = tree.size();
    let pixels = |length: f32| (f64::from(length) * scale).round().max(1.0) as u64;
    let (width, height) = (pixels(size.width()), pixels(size.height()));
    let too_large = || PictureError::TooLarge { width, height, most: MOST_PIXELS };
    if width.saturating_mul(height) > MOST_PIXELS {
        return Err(too_large());
    }
    let (columns, rows) =
        (u32::try_from(width).map_err(|_| too_large())?, u32::try_from(height).map_err(|_| too_large())?);
    let mut pixmap = Pixmap::new(columns, rows).ok_or_else(too_large)?;
    let transform = Transform::from_scale(width as f32 / size.width(), height as f32 / size.height());
    resvg::render(&tree, transform, &mut pixmap.as_mut());
    let per_metre = (PIXELS_PER_METRE * scale).round() as u32;
    encode(&pixmap, per_metre).map_err(PictureError::drawing)
}

/// The paper covers all of it: what would be transparent need not be written.
fn encode(pixmap: &Pixmap, per_metre: u32) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, pixmap.width(), pixmap.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter }));
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    let opaque: Vec<u8> = pixmap.pixels().iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
    encoder.write_header()?.write_image_data(&opaque)?;
    Ok(bytes)
}

/// An image of `width` columns of `cells`, row by row, each with the colour of its value.
pub(crate) fn indexed(cells: &[u8], width: usize, colours: &[RGBColor; 256]) -> Result<Vec<u8>> {
    let wide = u32::try_from(width).map_err(PictureError::drawing)?;
    let high = u32::try_from(cells.len() / width.max(1)).map_err(PictureError::drawing)?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, wide, high);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    encoder.set_palette(colours.iter().flat_map(|colour| [colour.0, colour.1, colour.2]).collect::<Vec<u8>>());
    let mut writer = encoder.write_header().map_err(PictureError::drawing)?;
    writer.write_image_data(cells).map_err(PictureError::drawing)?;
    writer.finish().map_err(PictureError::drawing)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> (png::OutputInfo, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info, pixels)
    }

    fn written(text: &str) -> Vec<u8> {
        let svg = format!(
            "<svg width=\"60\" height=\"20\" xmlns=\"http://www.w3.org/2000/svg\"><rect width=\"60\" height=\"20\" \
             fill=\"white\"/><text x=\"5\" y=\"15\" font-family=\"Inter, sans-serif\">{text}</text></svg>"
        );
        decoded(&png(&svg, 2.0).unwrap()).1
    }

    #[test]
    fn words_are_drawn_whatever_fonts_the_machine_has() {
        let ink = |pixels: &[u8]| pixels.iter().filter(|value| **value < 128).count();
        assert_eq!(ink(&written("")), 0);
        assert!(ink(&written("word")) > 200);
        assert_ne!(written("слово"), written("□□□□□"), "Cyrillic is there");
        // No font has this one: it is replaced, and nobody falls over it.
        assert!(ink(&written("\u{10ffff}")) > 20);
        written("日本語 العربية 🎵");
    }

    #[test]
    fn a_picture_has_the_size_that_was_asked_for_or_none() {
        let svg = "<svg width=\"30\" height=\"10\" xmlns=\"http://www.w3.org/2000/svg\"/>";
        let (info, _) = decoded(&png(svg, 1.5).unwrap());
        assert_eq!((info.width, info.height), (45, 15));
        for scale in [1e4, 1e30, f64::INFINITY] {
            let error = png(svg, scale).unwrap_err().to_string();
            assert!(error.contains("expected at most 64 million"), "{error}");
        }
        assert!(matches!(png("no picture", 1.0), Err(PictureError::Draw(_))));
    }

    #[test]
    fn cells_become_colours() {
        let colours = std::array::from_fn(|index| RGBColor(index as u8, 0, 255 - index as u8));
        let (info, pixels) = decoded(&indexed(&[0, 255, 7, 8, 9, 10], 3, &colours).unwrap());
        assert_eq!((info.width, info.height, pixels), (3, 2, vec![0, 255, 7, 8, 9, 10]));
        assert!(indexed(&[], 0, &colours).is_err());
    }
}
