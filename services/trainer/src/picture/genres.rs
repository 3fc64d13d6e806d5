//! Precision, recall and F1 of every genre as bars.

use plotters::{
    prelude::{Color, PathElement, Rectangle},
    style::text_anchor::HPos,
};

use super::{BLUE, GREEN, GRID, INK, ORANGE, SOFT_INK, TEXT, draw, heading, shorten, width_of, words, write};
use crate::{Report, Result};

const MARGIN: i32 = 20;
const HEAD: i32 = 76;
const FOOT: i32 = 52;
/// The height of a bar, and of the bars of a genre with the space around them.
const BAR: i32 = 14;
const ROW: i32 = 3 * BAR + 16;
/// The width of a bar of 100 %.
const SCALE: i32 = 460;
/// The size of the numbers at the bars, in pixels.
const NUMBER: f64 = 11.0;
/// Letters of a genre.
const LETTERS: usize = 20;

/// Three bars a genre, in the order of the labels.
pub(crate) fn genres(report: &Report) -> Result<String> {
    let names: Vec<String> = report.genres.iter().map(|genre| shorten(&genre.genre, LETTERS)).collect();
    let widest = names.iter().map(|name| width_of(name, TEXT)).max().unwrap_or(0).max(width_of("000 tracks", NUMBER));
    let left = MARGIN + 12 + widest;
    let count = i32::try_from(names.len()).unwrap_or(i32::MAX);
    let bottom = HEAD + count.saturating_mul(ROW);
    let pixels = ((left + SCALE + 50).unsigned_abs(), bottom.saturating_add(FOOT).unsigned_abs());
    let description =
        format!("Bars of precision, recall and F1 for each genre. The mean F1 is {:.1} %.", report.macro_f1 * 100.0);
    draw(pixels, "Precision, recall and F1 by genre", &description, |canvas| {
        write(canvas, "How well each genre is told from the others".to_owned(), (MARGIN, 26), heading())?;
        let key = 54;
        let mut x = MARGIN;
        for (colour, text) in
            [(BLUE, "precision: of what is said"), (ORANGE, "recall: of what there is"), (GREEN, "F1: both")]
        {
            canvas.draw(&Rectangle::new([(x, key - 6), (x + 12, key + 6)], colour.filled()))?;
            write(canvas, text.to_owned(), (x + 18, key), words(TEXT, INK, HPos::Left))?;
            x += 34 + width_of(text, TEXT);
        }
        for percent in (0..=100).step_by(20) {
            let x = left + percent * SCALE / 100;
            canvas.draw(&PathElement::new([(x, HEAD), (x, bottom)], GRID.stroke_width(1)))?;
            write(canvas, percent.to_string(), (x, bottom + 14), words(TEXT, INK, HPos::Center))?;
        }
        for ((index, genre), name) in (0_i32..).zip(&report.genres).zip(names) {
            let top = HEAD + index * ROW;
            let middle = top + ROW / 2;
            write(canvas, name, (left - 10, middle - 7), words(TEXT, INK, HPos::Right))?;
            let tracks = format!("{} {}", genre.support, if genre.support == 1 { "track" } else { "tracks" });
            write(canvas, tracks, (left - 10, middle + 9), words(NUMBER, SOFT_INK, HPos::Right))?;
            for (bar, (share, colour)) in
                (0_i32..).zip([(genre.precision, BLUE), (genre.recall, ORANGE), (genre.f1, GREEN)])
            {
                let top = top + 8 + bar * BAR;
                let end = left + (share.unwrap_or(0.0) * f64::from(SCALE)).round() as i32;
                canvas.draw(&Rectangle::new([(left, top + 1), (end, top + BAR - 1)], colour.filled()))?;
                let number = share.map_or("–".to_owned(), |share| format!("{:.0}", share * 100.0));
                write(canvas, number, (end + 6, top + BAR / 2), words(NUMBER, INK, HPos::Left))?;
            }
        }
        write(canvas, "%".to_owned(), (left + SCALE / 2, bottom + 36), words(TEXT, SOFT_INK, HPos::Center))
    })
}
