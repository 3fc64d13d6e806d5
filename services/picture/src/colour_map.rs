//! Levels as colours. Equal steps of level are equal steps of lightness, so that a reader sees no edge where there is none, and
//! a print without colours says the same.

use plotters::prelude::RGBColor;

use crate::{look::Theme, oklab::Oklab};

/// The hue of the colours, in degrees, from the darkest to the lightest at equal distances: from indigo through purple, red and
/// orange to yellow.
const HUES: [f64; 5] = [278.0, 312.0, 362.0, 408.0, 455.0];
/// How colourful they are.
const CHROMAS: [f64; 5] = [0.05, 0.14, 0.185, 0.15, 0.05];

/// The colours of all levels, from the quietest to the loudest: away from the paper, which is dark in the one theme and light
/// in the other.
pub(crate) fn colour_map(theme: Theme) -> [RGBColor; 256] {
    std::array::from_fn(|level| {
        let level = level as f64 / 255.0;
        match theme {
            Theme::Dark => colour(level, 0.19 + 0.77 * level),
            Theme::Light => colour(1.0 - level, 0.985 - 0.785 * level),
        }
    })
}

fn colour(position: f64, lightness: f64) -> RGBColor {
    Oklab::polar(lightness, between(&CHROMAS, position), between(&HUES, position)).on_screen()
}

/// The value at `position`, from 0 to 1, of a line through points at equal distances.
fn between(points: &[f64; 5], position: f64) -> f64 {
    let place = position.clamp(0.0, 1.0) * (points.len() - 1) as f64;
    let index = (place as usize).min(points.len() - 2);
    let share = place - index as f64;
    points.get(index..).map_or(0.0, |points| match points {
        [from, to, ..] => from + share * (to - from),
        _ => 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oklab::{light, of_linear};

    #[test]
    fn lightness_rises_or_falls_evenly() {
        for (theme, step) in [(Theme::Dark, 0.77 / 255.0), (Theme::Light, -0.785 / 255.0)] {
            let lightness =
                colour_map(theme).map(|RGBColor(red, green, blue)| of_linear([red, green, blue].map(light)).lightness);
            for pair in lightness.windows(9) {
                assert!((pair[8] - pair[0] - 8.0 * step).abs() < 0.006, "{theme:?} {pair:?}");
            }
        }
    }
}
