//! The confusion matrix as a heat map.

use plotters::{
    prelude::{Color, PathElement, Rectangle},
    style::{FontTransform, text_anchor::HPos},
};

use super::{
    BLUE, GRID, HEADING, INK, INK_ON_DARK, INK_ON_LIGHT, RED, SOFT_INK, TEXT, draw, heading, shorten, tint, width_of,
    words, write,
};
use crate::{Report, Result};

const MARGIN: i32 = 20;
/// The height of the heading and what stands under it.
const HEAD: i32 = 78;
/// The side of the matrix, as long as its cells stay within their bounds.
const SIDE: i32 = 640;
const LEAST_CELL: i32 = 10;
const GREATEST_CELL: i32 = 64;
/// From this size on, a cell has room for a count, and for the percentage under it.
const CELL_WITH_COUNT: i32 = 24;
const CELL_WITH_SHARE: i32 = 46;
/// Letters of a genre.
const LETTERS: usize = 16;
/// From this share on, a cell is too dark for dark words.
const DARK: f64 = 0.55;

/// Genres by what the model says of them. Cells on the diagonal are right and blue, the others are wrong and red, and all
/// are as dark as their share of the tracks of the genre.
pub(crate) fn confusion(report: &Report) -> Result<String> {
    let names: Vec<String> = report.genres.iter().map(|genre| shorten(&genre.genre, LETTERS)).collect();
    let count = i32::try_from(names.len()).unwrap_or(i32::MAX).max(1);
    let cell = (SIDE / count).clamp(LEAST_CELL, GREATEST_CELL);
    let side = cell * count;
    let size = TEXT.min(f64::from(cell) * 0.8);
    let longest = names.iter().map(|name| width_of(name, size)).max().unwrap_or(0);
    let upright = longest > cell;
    let rows: Vec<String> =
        names.iter().zip(&report.genres).map(|(name, genre)| format!("{name} ({})", genre.support)).collect();
    let left = MARGIN + 30 + rows.iter().map(|row| width_of(row, size)).max().unwrap_or(0);
    let bottom = if upright { longest + 16 } else { 28 } + 40;
    // The words of the head need some width whatever the matrix does.
    let width = (left + side + MARGIN).max(600);
    let right = report.genres.iter().zip(&report.confusion).enumerate();
    let right: usize = right.filter_map(|(index, (_, row))| row.get(index)).sum();
    let description = format!(
        "Heat map with a row for what a track is and a column for what the model says: {right} of {} tracks are on the \
         diagonal, where both agree.",
        report.tracks
    );
    let pixels = (width.unsigned_abs(), (HEAD + side + bottom).unsigned_abs());
    draw(pixels, "Confusion matrix", &description, |canvas| {
        write(canvas, "What the tracks are, and what the model says".to_owned(), (MARGIN, 26), heading())?;
        let key = 54;
        let mut x = MARGIN;
        for (colour, text) in [(BLUE, "right"), (RED, "wrong")] {
            canvas.draw(&Rectangle::new([(x, key - 6), (x + 12, key + 6)], colour.filled()))?;
            write(canvas, text.to_owned(), (x + 18, key), words(TEXT, INK, HPos::Left))?;
            x += 34 + width_of(text, TEXT);
        }
        let note = "tracks, and their share of the row: the more, the darker";
        write(canvas, note.to_owned(), (x, key), words(TEXT, SOFT_INK, HPos::Left))?;

        let place = |index: usize| i32::try_from(index).unwrap_or(i32::MAX).saturating_mul(cell);
        for index in 0..=names.len() {
            let (x, y) = (left + place(index), HEAD + place(index));
            canvas.draw(&PathElement::new([(left, y), (left + side, y)], GRID.stroke_width(1)))?;
            canvas.draw(&PathElement::new([(x, HEAD), (x, HEAD + side)], GRID.stroke_width(1)))?;
        }
        for (index, (genre, row)) in report.genres.iter().zip(&report.confusion).enumerate() {
            for (said, tracks) in row.iter().enumerate() {
                let (x, y) = (left + place(said), HEAD + place(index));
                let corners = [(x + 1, y + 1), (x + cell - 1, y + cell - 1)];
                let right = index == said;
                if *tracks > 0 {
                    let share = *tracks as f64 / genre.support.max(1) as f64;
                    let colour = if right { BLUE } else { RED };
                    canvas.draw(&Rectangle::new(corners, tint(colour, 0.08 + 0.92 * share).filled()))?;
                    let ink = if share > DARK { INK_ON_DARK } else { INK_ON_LIGHT };
                    let middle = (x + cell / 2, y + cell / 2);
                    if cell >= CELL_WITH_SHARE {
                        let percent = format!("{:.0} %", share * 100.0);
                        write(canvas, tracks.to_string(), (middle.0, middle.1 - 8), words(HEADING, ink, HPos::Center))?;
                        write(canvas, percent, (middle.0, middle.1 + 12), words(11.0, ink, HPos::Center))?;
                    } else if cell >= CELL_WITH_COUNT {
                        write(canvas, tracks.to_string(), middle, words(TEXT, ink, HPos::Center))?;
                    }
                }
                if right {
                    canvas.draw(&Rectangle::new(corners, INK.stroke_width(2)))?;
                }
            }
        }

        for (index, (name, row)) in names.into_iter().zip(rows).enumerate() {
            let middle = place(index) + cell / 2;
            write(canvas, row, (left - 8, HEAD + middle), words(size, INK, HPos::Right))?;
            if upright {
                let style = words(size, INK, HPos::Right).transform(FontTransform::Rotate270);
                write(canvas, name, (left + middle, HEAD + side + 8), style)?;
            } else {
                write(canvas, name, (left + middle, HEAD + side + 16), words(size, INK, HPos::Center))?;
            }
        }
        let title = words(TEXT, SOFT_INK, HPos::Center);
        let below = (left + side / 2, HEAD + side + bottom - 18);
        write(canvas, "what the model says".to_owned(), below, title.clone())?;
        let beside = (MARGIN, HEAD + side / 2);
        write(canvas, "what it is (tracks)".to_owned(), beside, title.transform(FontTransform::Rotate270))
    })
}
