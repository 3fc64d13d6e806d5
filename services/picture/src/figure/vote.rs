//! The vote: how probable each genre is for the whole track, how much chunks differ, and how many it won.

use crate::{
    figure::{Figure, SMALL, TEXT, plan},
    scene::{Anchor, Area, Scene, Words},
};

/// The widths of the columns of numbers, from left to right.
const PROBABILITY: f64 = 64.0;
const DISPERSION: f64 = 56.0;
const VOTES: f64 = 50.0;
/// Ends of the axis.
const RANGES: [f64; 5] = [0.2, 0.4, 0.6, 0.8, 1.0];

pub(super) fn paint(figure: &Figure<'_>, area: Area, scene: &mut Scene) {
    let palette = &figure.palette;
    let rows = &figure.rows.vote;
    figure.caption("The vote: probability, and its standard deviation over chunks", area, scene);
    let [probability, dispersion, votes] = [DISPERSION + VOTES, VOTES, 0.0].map(|from_right| area.right() - from_right);
    scene.group("vote", "", |scene| {
        if rows.is_empty() {
            let words = Words::new(TEXT, palette.soft_ink, Anchor::Start);
            scene.text("nothing but silence: nobody voted", (area.left, area.middle()), words);
            return;
        }
        let end = |text: &str, x: f64, y: f64, size: f64, colour, scene: &mut Scene| {
            scene.text(text, (x, y), Words::new(size, colour, Anchor::End));
        };
        for (head, x) in [("%", probability), ("±", dispersion), ("votes", votes)] {
            end(head, x, area.top - plan::CAPTION / 2.0 + 1.0, SMALL, palette.soft_ink, scene);
        }
        let row_height = area.height / rows.len() as f64;
        let bars = Area { width: area.width - PROBABILITY - DISPERSION - VOTES, ..area };
        let greatest = rows.iter().map(|row| row.score.probability + row.score.dispersion).fold(0.0, f64::max);
        let range = RANGES.into_iter().find(|range| *range >= greatest).unwrap_or(1.0);
        let x = |share: f64| bars.left + (share / range).clamp(0.0, 1.0) * bars.width;
        for (index, row) in rows.iter().enumerate() {
            let place = Area { top: area.top + index as f64 * row_height, height: (row_height - 4.0).max(1.0), ..bars };
            let score = &row.score;
            let said = format!("{}: {:.1} %, {} votes", row.name, score.probability * 100.0, score.votes);
            scene.group("", &said, |scene| {
                scene.rectangle(place, palette.panel);
                figure.row_name(&row.name, place, place.middle(), scene);
                let width = x(score.probability) - bars.left;
                scene.rectangle(Area { width: width.max(1.0), ..place }, palette.genre(row.label));
                let reach = [score.probability - score.dispersion, score.probability + score.dispersion].map(x);
                let [low, high] = reach.map(|x| (x, place.middle()));
                scene.line([low, high], palette.ink, 1.25);
                for (x, y) in [low, high] {
                    scene.line([(x, y - 3.5), (x, y + 3.5)], palette.ink, 1.25);
                }
                let y = place.middle();
                end(&format!("{:.1}", score.probability * 100.0), probability, y, TEXT, palette.ink, scene);
                end(&format!("{:.1}", score.dispersion * 100.0), dispersion, y, TEXT, palette.soft_ink, scene);
                end(&score.votes.to_string(), votes, y, TEXT, palette.ink, scene);
            });
        }
    });
}
