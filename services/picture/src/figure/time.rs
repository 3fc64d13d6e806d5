//! The time axis.

use crate::{
    error::{PictureError, Result},
    figure::SMALL,
    look::Stretch,
    scene::{Anchor, Area, Scene, Words},
    theme::Palette,
    track::Track,
    words::clock,
};

/// Between two numbers at least, in pixels.
const BETWEEN_NUMBERS: f64 = 64.0;
/// What people count time in, in seconds.
const STEPS: [f64; 18] = [
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0,
    14_400.0,
];
/// The shortest stretch that is drawn, in seconds.
const SHORTEST: f64 = 1e-3;

/// From seconds to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeScale {
    /// Where the figure begins, in seconds.
    pub(super) from: f64,
    /// Where it ends, in seconds.
    pub(super) to: f64,
    left: f64,
    width: f64,
}

impl TimeScale {
    /// A scale for the `stretch` of `track`.
    pub(super) fn new(track: &Track, stretch: Stretch, left: f64, width: f64) -> Result<Self> {
        let Stretch { from_seconds: from, to_seconds } = stretch;
        let duration = track.duration_seconds();
        if from > 0.0 && from >= duration {
            return Err(PictureError::Stretch { from, duration });
        }
        let to = to_seconds.map_or(duration, |to| to.min(duration));
        Ok(Self { from, to: to.max(from + SHORTEST), left, width })
    }

    /// Where `seconds` is, in pixels.
    pub(super) fn x(&self, seconds: f64) -> f64 {
        self.left + (seconds - self.from) / (self.to - self.from) * self.width
    }

    /// From one time to another as pixels, where both are cut to what the figure shows: left and width. `None` if nothing of
    /// it is shown.
    pub(super) fn span(&self, from: f64, to: f64) -> Option<(f64, f64)> {
        let (from, to) = (from.max(self.from), to.min(self.to));
        (from < to).then(|| (self.x(from), self.x(to) - self.x(from)))
    }

    /// Times that have a number.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let step = self.step();
        let first = (self.from / step - 1e-6).ceil() as u64;
        (first..first + 1_000).map(|count| count as f64 * step).take_while(|time| *time <= self.to + 1e-6).collect()
    }

    fn step(&self) -> f64 {
        let least = (self.to - self.from) * BETWEEN_NUMBERS / self.width.max(1.0);
        STEPS.into_iter().find(|step| *step >= least).unwrap_or(least)
    }

    /// Lines to hold on to, from top to bottom of `area`.
    pub(super) fn grid(&self, area: Area, palette: &Palette, scene: &mut Scene) {
        for time in self.ticks() {
            let x = self.x(time);
            scene.line([(x, area.top), (x, area.bottom())], palette.grid, 1.0);
        }
    }

    /// The axis with its numbers.
    pub(super) fn paint(&self, top: f64, palette: &Palette, scene: &mut Scene) {
        scene.group("time", "", |scene| {
            for time in self.ticks() {
                let x = self.x(time);
                scene.line([(x, top + 2.0), (x, top + 7.0)], palette.soft_ink, 1.0);
                let words = Words::new(SMALL, palette.soft_ink, Anchor::Middle);
                scene.text(&self.number(time), (x, top + 16.0), words);
            }
        });
    }

    fn number(&self, time: f64) -> String {
        if self.step() >= 1.0 {
            return clock(time);
        }
        let tenths = (time * 10.0).round();
        format!("{}.{:.0}", clock((tenths / 10.0).floor()), tenths % 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(from: f64, to: f64) -> TimeScale {
        TimeScale { from, to, left: 100.0, width: 800.0 }
    }

    #[test]
    fn numbers_are_round_and_far_enough_apart() {
        let numbers = |scale: TimeScale| scale.ticks().into_iter().map(|time| scale.number(time)).collect::<Vec<_>>();
        assert_eq!(numbers(scale(0.0, 14.2)), ["0:00", "0:02", "0:04", "0:06", "0:08", "0:10", "0:12", "0:14"]);
        assert_eq!(numbers(scale(61.0, 62.0)).first().unwrap(), "1:01.0");
        assert_eq!(numbers(scale(0.0, 6.0 * 3_600.0)).last().unwrap(), "6:00:00");
        for (from, to) in [(0.0, 0.001), (0.0, 1.0), (3.3, 31.0), (0.0, 1e9), (5e6, 5e6 + 0.5)] {
            let ticks = scale(from, to).ticks();
            assert!(ticks.len() <= 13, "{from} {to}: {ticks:?}");
        }
    }

    #[test]
    fn what_is_outside_is_cut_off() {
        assert_eq!(scale(10.0, 20.0).span(5.0, 15.0), Some((100.0, 400.0)));
        assert_eq!(scale(10.0, 20.0).span(15.0, 99.0), Some((500.0, 400.0)));
        assert_eq!(scale(10.0, 20.0).span(20.0, 30.0), None);
        assert_eq!(scale(10.0, 20.0).span(f64::NAN, f64::NAN).map(|(left, _)| left), Some(100.0));
    }
}
