//! How a training went, epoch by epoch, as a picture.

use std::path::Path;

use plotters::{
    prelude::{ChartBuilder, Circle, Color, LineSeries, PathElement, RGBColor},
    style::text_anchor::HPos,
};

use crate::{
    EpochScores, Result, file,
    picture::{self, BLUE, Canvas, Drawn, INK, RED, TEXT, heading, mesh, width_of, words, write},
};

const MARGIN: i32 = 20;
const SIZE: (u32, u32) = (960, 440);
/// The height of the heading.
const HEAD: u32 = 44;
/// The height of a panel's legend.
const LEGEND: u32 = 34;

/// One line of a panel: its name, its colour and its points. Values that are not finite leave a gap.
struct Line {
    name: &'static str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

impl Line {
    fn new(
        name: &'static str,
        colour: RGBColor,
        history: &[EpochScores],
        value: impl Fn(&EpochScores) -> Option<f64>,
    ) -> Self {
        let point =
            |scores: &EpochScores| Some((scores.epoch as f64, value(scores).filter(|value| value.is_finite())?));
        Self { name, colour, points: history.iter().filter_map(point).collect() }
    }
}

/// Writes a picture of a training with two panels, loss and accuracy by epoch.
///
/// # Errors
/// [`TrainerError::Write`](crate::TrainerError::Write).
pub(crate) fn draw(history: &[EpochScores], path: &Path) -> Result<()> {
    file::write(path, svg(history)?.as_bytes())
}

fn svg(history: &[EpochScores]) -> Result<String> {
    let percent = |share: Option<f64>| Some(share? * 100.0);
    let loss = [
        Line::new("training chunks", BLUE, history, |scores| Some(scores.train_loss)),
        Line::new("validation tracks", RED, history, |scores| scores.valid_loss),
    ];
    let accuracy = [
        Line::new("training chunks", BLUE, history, |scores| percent(Some(scores.train_accuracy))),
        Line::new("validation tracks", RED, history, |scores| percent(scores.valid_accuracy)),
    ];
    let best = history.iter().filter_map(|scores| scores.valid_accuracy).filter(|share| share.is_finite());
    let best = best.fold(None, |best: Option<f64>, share| Some(best.map_or(share, |best| best.max(share))));
    let best = best.map_or(String::new(), |best| format!(" The best validation accuracy is {:.1} %.", best * 100.0));
    let description = format!("Loss and accuracy over {} epochs.{best}", history.len());
    let last = history.iter().map(|scores| scores.epoch).max().unwrap_or(1);
    picture::draw(SIZE, "Training curves", &description, |canvas| {
        write(canvas, "How the training went".to_owned(), (MARGIN, 24), heading())?;
        let (_, below) = canvas.split_vertically(HEAD);
        let (left, right) = below.split_horizontally(SIZE.0 / 2);
        panel(&left, "loss (nats)", &loss, last, None)?;
        panel(&right, "accuracy (%)", &accuracy, last, Some(100.0))
    })
}

/// One panel with its legend above. `most` is the greatest value that makes sense.
fn panel(canvas: &Canvas<'_>, title: &str, lines: &[Line], last_epoch: usize, most: Option<f64>) -> Drawn {
    let (legend, below) = canvas.split_vertically(LEGEND);
    let mut x = 66;
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        let y = 14;
        legend.draw(&PathElement::new([(x, y), (x + 18, y)], line.colour.stroke_width(3)))?;
        write(&legend, line.name.to_owned(), (x + 24, y), words(TEXT, INK, HPos::Left))?;
        x += 40 + width_of(line.name, TEXT);
    }
    let values = || lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let space = ((high - low) * 0.08).max(1e-3 * high.abs()).max(1e-6);
    let range = (low - space).max(0.0)..most.unwrap_or(f64::INFINITY).min(high + space).max(low + space);
    let decimals = if most.is_some() { 0 } else { 2 };
    let mut chart = ChartBuilder::on(&below)
        .margin_right(24)
        .margin_bottom(8)
        .margin_left(8)
        .x_label_area_size(50)
        .y_label_area_size(60)
        .build_cartesian_2d(1.0..last_epoch.max(2) as f64, range)?;
    mesh(&mut chart)
        .x_labels(last_epoch.clamp(2, 9))
        .y_labels(7)
        .x_desc("epoch")
        .y_desc(title)
        .y_label_formatter(&|value| format!("{value:.decimals$}"))
        .x_label_formatter(&|epoch| if epoch.fract() == 0.0 { format!("{epoch:.0}") } else { String::new() })
        .draw()?;
    for line in lines {
        chart.draw_series(LineSeries::new(line.points.iter().copied(), line.colour.stroke_width(2)))?;
        // A line through one point is nothing to look at.
        if let [point] = line.points[..] {
            chart.draw_series([Circle::new(point, 3, line.colour.filled())])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: usize) -> EpochScores {
        let share = epoch as f64 / 40.0;
        EpochScores {
            epoch,
            learning_rate: 1e-3 * (1.0 - share),
            train_loss: 2.3 * (-2.0 * share).exp(),
            train_accuracy: 0.2 + 0.75 * share.sqrt(),
            valid_loss: Some(1.0 + (-3.0 * share).exp()),
            valid_accuracy: Some(0.2 + 0.5 * share.sqrt()),
        }
    }

    #[test]
    fn a_training_becomes_a_picture_with_two_panels() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("curves.svg");
        draw(&(1..=40).map(epoch).collect::<Vec<_>>(), &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        for words in ["loss (nats)", "accuracy (%)", "epoch", "training chunks", "validation tracks"] {
            assert!(document.descendants().any(|node| node.text().is_some_and(|text| text.trim() == words)), "{words}");
        }
    }

    #[test]
    fn no_epoch_one_epoch_and_values_that_are_not_finite_are_drawn() {
        let odd =
            EpochScores { train_loss: f64::NAN, valid_accuracy: Some(f64::INFINITY), valid_loss: None, ..epoch(2) };
        let flat = EpochScores { train_loss: 0.0, train_accuracy: 1.0, ..epoch(1) };
        for history in [vec![], vec![epoch(1)], vec![flat.clone(), flat], vec![epoch(1), odd, epoch(3)]] {
            roxmltree::Document::parse(&svg(&history).unwrap()).unwrap();
        }
    }
}
