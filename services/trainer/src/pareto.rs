//! What models are worth against what they cost, as a picture.

use std::path::Path;

use plotters::{
    prelude::{ChartBuilder, Circle, Color, IntoLogRange, LabelAreaPosition, LineSeries, PathElement, Rectangle},
    style::text_anchor::HPos,
};

use crate::{
    Result, file,
    picture::{self, BLUE, GRID, INK, PAPER, RED, SOFT_INK, TEXT, heading, mesh, shorten, width_of, words, write},
};

const MARGIN: i32 = 20;
const SIZE: (u32, u32) = (860, 560);
/// The height of the heading and what stands under it.
const HEAD: u32 = 80;
/// Letters of a model's name.
const LETTERS: usize = 32;
/// The height of a name, in pixels.
const NAME_HEIGHT: i32 = 16;
/// The half of a point, in pixels.
const POINT: i32 = 5;

/// One model.
#[derive(Clone, Debug, PartialEq)]
pub struct ParetoPoint {
    /// What it is called.
    pub name: String,
    /// What a chunk costs: see [`ModelFolder::multiply_accumulates`](chorale_model::ModelFolder::multiply_accumulates).
    pub multiply_accumulates: u64,
    /// The share of tracks that are right.
    pub accuracy: f64,
    /// The 95 % interval of `accuracy`: low, high.
    pub interval: [f64; 2],
    /// Whether it is the model that is embedded in the binary.
    pub shipped: bool,
}

/// Writes a picture of models by cost and accuracy, with a line through those that no other one beats: a model is on it
/// if every better one costs more.
///
/// # Errors
/// [`TrainerError::Write`](crate::TrainerError::Write).
pub fn draw(points: &[ParetoPoint], path: &Path) -> Result<()> {
    file::write(path, svg(points)?.as_bytes())
}

/// The same as a table in Markdown, the cheapest first.
#[must_use]
pub fn table(points: &[ParetoPoint]) -> String {
    let front = front(points);
    let mut ordered: Vec<&ParetoPoint> = points.iter().collect();
    ordered.sort_by_key(|point| point.multiply_accumulates);
    let mut table = "| model | multiply-accumulates a chunk | accuracy on `valid` | 95 % interval | beaten |\n|---|---|---|---|---|\n".to_owned();
    for point in ordered {
        let [low, high] = point.interval.map(percent);
        let beaten = if front.contains(&point) { "by none" } else { "by one that costs no more" };
        let row = format!(
            "| `{}` | {:.1} M | {:.1} % | {low:.1} to {high:.1} % | {beaten} |\n",
            point.name,
            cost(point) / 1e6,
            percent(point.accuracy)
        );
        table.push_str(&row);
    }
    table
}

/// The points that no other one beats, the cheapest first.
fn front(points: &[ParetoPoint]) -> Vec<&ParetoPoint> {
    let mut ordered: Vec<&ParetoPoint> = points.iter().collect();
    ordered.sort_by(|left, right| {
        let by_cost = left.multiply_accumulates.cmp(&right.multiply_accumulates);
        by_cost.then_with(|| right.accuracy.total_cmp(&left.accuracy))
    });
    let mut best = f64::NEG_INFINITY;
    ordered.retain(|point| {
        let is_better = point.accuracy > best;
        best = best.max(point.accuracy);
        is_better
    });
    ordered
}

fn svg(points: &[ParetoPoint]) -> Result<String> {
    let front = front(points);
    let names: Vec<String> = front.iter().map(|point| shorten(&point.name, LETTERS)).collect();
    let description = format!(
        "{} models by multiply-accumulates a chunk and accuracy. No other one beats these, the cheapest first: {}.",
        points.len(),
        names.join(", ")
    );
    let place = |point: &ParetoPoint| (cost(point), percent(point.accuracy));
    let costs = || points.iter().map(cost);
    let (cheapest, dearest) = (costs().fold(f64::INFINITY, f64::min), costs().fold(1.0, f64::max));
    let cheapest = cheapest.min(dearest);
    let interval = |point: &ParetoPoint| {
        let [low, high] = point.interval.map(percent);
        (low.min(percent(point.accuracy)), high.max(percent(point.accuracy)))
    };
    let least = points.iter().map(|point| interval(point).0).fold(100.0, f64::min);
    let most = points.iter().map(|point| interval(point).1).fold(0.0, f64::max);
    let bottom = ((least - 2.0) / 5.0).floor() * 5.0;
    let top = (((most + 2.0) / 5.0).ceil() * 5.0).max(bottom + 5.0);

    picture::draw(SIZE, "Accuracy against cost", &description, |canvas| {
        write(canvas, "What models are worth, and what they cost".to_owned(), (MARGIN, 26), heading())?;
        let key = 54;
        canvas.draw(&PathElement::new([(MARGIN, key), (MARGIN + 20, key)], BLUE.stroke_width(2)))?;
        write(canvas, "no other model beats these".to_owned(), (MARGIN + 26, key), words(TEXT, INK, HPos::Left))?;
        canvas.draw(&Rectangle::new([(MARGIN + 236, key - 5), (MARGIN + 246, key + 5)], RED.filled()))?;
        write(canvas, "shipped".to_owned(), (MARGIN + 252, key), words(TEXT, INK, HPos::Left))?;
        write(canvas, "bars: 95 % intervals".to_owned(), (MARGIN + 330, key), words(TEXT, SOFT_INK, HPos::Left))?;

        let (_, below) = canvas.split_vertically(HEAD);
        let mut chart = ChartBuilder::on(&below)
            .margin_right(24)
            .margin_top(8)
            .margin_bottom(8)
            .margin_left(8)
            .x_label_area_size(52)
            .y_label_area_size(60)
            .build_cartesian_2d((cheapest / 1.6..dearest * 1.6).log_scale(), bottom.max(0.0)..top.min(100.0))?;
        mesh(&mut chart)
            .disable_x_mesh()
            .x_label_formatter(&|_| String::new())
            .set_tick_mark_size(LabelAreaPosition::Bottom, 0)
            .y_labels(8)
            .x_desc("multiply-accumulates a chunk of 4 s (logarithmic)")
            .y_desc("track accuracy (%)")
            .y_label_formatter(&|percent| format!("{percent:.0}"))
            .draw()?;
        let (left, lowest) = chart.backend_coord(&(cheapest / 1.6, bottom.max(0.0)));
        let (right, highest) = chart.backend_coord(&(dearest * 1.6, top.min(100.0)));
        for tick in ticks(cheapest / 1.6, dearest * 1.6) {
            let (x, _) = chart.backend_coord(&(tick, bottom));
            canvas.draw(&PathElement::new([(x, highest), (x, lowest)], GRID.stroke_width(1)))?;
            write(canvas, amount(tick), (x, lowest + 16), words(TEXT, INK, HPos::Center))?;
        }

        let mut occupied = Vec::new();
        for point in points {
            let (x, y) = chart.backend_coord(&place(point));
            let (low, high) = interval(point);
            let [low, high] = [low, high].map(|percent| chart.backend_coord(&(cost(point), percent)).1);
            canvas.draw(&PathElement::new([(x, low), (x, high)], SOFT_INK.stroke_width(1)))?;
            for end in [low, high] {
                canvas.draw(&PathElement::new([(x - 4, end), (x + 4, end)], SOFT_INK.stroke_width(1)))?;
            }
            occupied.push([x - POINT, y - POINT, x + POINT, y + POINT]);
            occupied.push([x - 2, high, x + 2, low]);
        }
        chart.draw_series(LineSeries::new(front.iter().map(|point| place(point)), BLUE.stroke_width(2)))?;
        for pair in front.windows(2) {
            let ends: Vec<(i32, i32)> = pair.iter().map(|point| chart.backend_coord(&place(point))).collect();
            if let [from, to] = ends[..] {
                occupied.extend(along(from, to));
            }
        }
        for point in points {
            let (x, y) = chart.backend_coord(&place(point));
            if point.shipped {
                canvas.draw(&Rectangle::new([(x - POINT, y - POINT), (x + POINT, y + POINT)], RED.filled()))?;
            } else if front.iter().any(|other| std::ptr::eq(*other, point)) {
                canvas.draw(&Circle::new((x, y), POINT, BLUE.filled()))?;
            } else {
                canvas.draw(&Circle::new((x, y), POINT, PAPER.filled()))?;
                canvas.draw(&Circle::new((x, y), POINT, SOFT_INK.stroke_width(2)))?;
            }
        }
        let bounds = [left, highest, right, lowest];
        for point in points {
            let name = shorten(&point.name, LETTERS);
            let (x, y) = chart.backend_coord(&place(point));
            let space = free_space((x, y), width_of(&name, TEXT), bounds, &occupied);
            let [start, upper, _, lower] = space;
            occupied.push(space);
            write(canvas, name, (start, (upper + lower) / 2), words(TEXT, INK, HPos::Left))?;
        }
        Ok(())
    })
}

fn cost(point: &ParetoPoint) -> f64 {
    point.multiply_accumulates.max(1) as f64
}

fn percent(share: f64) -> f64 {
    if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) * 100.0 }
}

/// An amount in three digits at most.
fn amount(value: f64) -> String {
    let (unit, divisor) = match value {
        _ if value >= 1e12 => ("T", 1e12),
        _ if value >= 1e9 => ("G", 1e9),
        _ if value >= 1e6 => ("M", 1e6),
        _ if value >= 1e3 => ("k", 1e3),
        _ => ("", 1.0),
    };
    format!("{} {unit}", value / divisor).trim_end().to_owned()
}

/// The values 1, 2 and 5 times powers of ten from `low` to `high`; over more than three powers, the powers alone.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let steps: &[f64] = if high / low > 1e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    powers
        .flat_map(|power| steps.iter().map(move |step| step * 10.0_f64.powi(power)))
        .filter(|tick| (low..=high).contains(tick))
        .collect()
}

/// Small boxes along a line.
fn along(from: (i32, i32), to: (i32, i32)) -> impl Iterator<Item = [i32; 4]> {
    const STEPS: i32 = 40;
    (0..=STEPS).map(move |step| {
        let between = |from: i32, to: i32| from + (to - from) * step / STEPS;
        let (x, y) = (between(from.0, to.0), between(from.1, to.1));
        [x - 2, y - 2, x + 2, y + 2]
    })
}

/// A box for a name near its point, where it hides the least. Boxes are left, top, right and bottom.
fn free_space(point: (i32, i32), width: i32, bounds: [i32; 4], occupied: &[[i32; 4]]) -> [i32; 4] {
    let (x, y) = point;
    let half = NAME_HEIGHT / 2;
    let beside = [10, 24, 44].into_iter().flat_map(|away| {
        let heights = [0, -12, 12, -24, 24, -40, 40, -60, 60];
        heights.into_iter().flat_map(move |lift| [(x + away, y + lift), (x - away - width, y + lift)])
    });
    let above = [16, -16, 28, -28].map(|lift| (x - width / 2, y + lift));
    let boxes = beside.chain(above).map(|(left, middle)| [left, middle - half, left + width, middle + half]);
    let hidden = |space: &[i32; 4]| {
        let covered: i64 = occupied.iter().map(|other| overlap(space, other)).sum();
        let outside = i64::from(width * NAME_HEIGHT) - overlap(space, &bounds);
        covered + 4 * outside
    };
    boxes.min_by_key(hidden).unwrap_or([x, y - half, x + width, y + half])
}

fn overlap(one: &[i32; 4], other: &[i32; 4]) -> i64 {
    let [left, top, right, bottom] = *one;
    let [other_left, other_top, other_right, other_bottom] = *other;
    let width = right.min(other_right) - left.max(other_left);
    let height = bottom.min(other_bottom) - top.max(other_top);
    i64::from(width.max(0)) * i64::from(height.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, multiply_accumulates: u64, accuracy: f64) -> ParetoPoint {
        let interval = [accuracy - 0.06, accuracy + 0.06];
        ParetoPoint { name: name.to_owned(), multiply_accumulates, accuracy, interval, shipped: name == "shipped" }
    }

    #[test]
    fn a_model_is_on_the_front_unless_one_that_costs_no_more_is_as_good() {
        let points = [
            point("dear", 900, 0.8),
            point("cheap", 10, 0.5),
            point("beaten", 500, 0.6),
            point("good", 100, 0.7),
            point("as good", 200, 0.7),
            point("as cheap", 10, 0.4),
        ];
        let names: Vec<&str> = front(&points).into_iter().map(|point| point.name.as_str()).collect();
        assert_eq!(names, ["cheap", "good", "dear"]);
    }

    #[test]
    fn the_table_begins_with_the_cheapest_and_names_what_is_beaten() {
        let table = table(&[point("dear", 900_000_000, 0.8), point("beaten", 25_740_000, 0.4), point("cheap", 1, 0.5)]);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows[1], "| `beaten` | 25.7 M | 40.0 % | 34.0 to 46.0 % | by one that costs no more |");
        assert!(rows[0].starts_with("| `cheap` | 0.0 M |") && rows[0].ends_with("| by none |"), "{table}");
        assert!(rows[2].starts_with("| `dear` | 900.0 M |") && rows[2].ends_with("| by none |"), "{table}");
    }

    #[test]
    fn models_become_a_picture_with_their_names() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pareto.svg");
        let points = [
            point("tiny", 3_100_000, 0.61),
            point("small", 12_000_000, 0.68),
            point("small without mixing", 12_500_000, 0.66),
            point("shipped", 63_000_000, 0.736),
            point("shipped twice over", 64_000_000, 0.731),
            point("<large> & dear", 410_000_000, 0.752),
            point("large, seed 2", 410_000_000, 0.739),
        ];
        draw(&points, &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        for point in &points {
            let is_name = |text: &str| text.trim() == point.name;
            assert!(document.descendants().any(|node| node.text().is_some_and(is_name)), "{}", point.name);
        }
    }

    #[test]
    fn odd_points_are_drawn() {
        let odd = ParetoPoint { interval: [f64::NAN, f64::INFINITY], ..point("odd", 0, f64::NAN) };
        let whole = ParetoPoint { interval: [1.0, 1.0], ..point("whole", u64::MAX, 1.0) };
        let none = ParetoPoint { interval: [0.0, 0.0], ..point("none", 1, 0.0) };
        for points in [vec![], vec![odd.clone()], vec![whole.clone()], vec![none.clone()], vec![odd, whole, none]] {
            roxmltree::Document::parse(&svg(&points).unwrap()).unwrap();
        }
    }

    #[test]
    fn names_keep_clear_of_points_and_of_each_other() {
        let bounds = [0, 0, 400, 400];
        let mut occupied = vec![[95, 195, 105, 205], [295, 195, 305, 205]];
        for (x, y) in [(100, 200), (300, 200), (100, 200), (390, 200)] {
            let space = free_space((x, y), 80, bounds, &occupied);
            assert!(occupied.iter().all(|other| overlap(&space, other) == 0), "{space:?}");
            assert_eq!(overlap(&space, &bounds), 80 * i64::from(NAME_HEIGHT), "{space:?}");
            occupied.push(space);
        }
    }

    #[test]
    fn ticks_are_few_and_read_well() {
        assert_eq!(ticks(8e6, 1.2e8), [1e7, 2e7, 5e7, 1e8]);
        assert_eq!(ticks(5e3, 2e8).len(), 5);
        assert_eq!([5e7, 1e9, 200.0, 2e3].map(amount), ["50 M", "1 G", "200", "2 k"]);
    }
}
