//! Colours as the eye orders them: the Oklab space of B. Ottosson, in which equal distances look equally far.

use plotters::prelude::RGBColor;

/// A colour: lightness from 0 to 1, and the position between green and red, and between blue and yellow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Oklab {
    pub(crate) lightness: f64,
    pub(crate) green_red: f64,
    pub(crate) blue_yellow: f64,
}

impl Oklab {
    /// From lightness, chroma and hue, the last in degrees.
    pub(crate) fn polar(lightness: f64, chroma: f64, hue: f64) -> Self {
        let (sin, cos) = hue.to_radians().sin_cos();
        Self { lightness, green_red: chroma * cos, blue_yellow: chroma * sin }
    }

    /// The nearest colour of the same lightness and hue that a screen can show.
    pub(crate) fn on_screen(self) -> RGBColor {
        const STEPS: i32 = 64;
        let paler = |step: i32| {
            let share = 1.0 - f64::from(step) / f64::from(STEPS);
            Self { green_red: self.green_red * share, blue_yellow: self.blue_yellow * share, ..self }.linear()
        };
        let shown = |linear: &[f64; 3]| linear.iter().all(|channel| (-1e-4..=1.0001).contains(channel));
        let [red, green, blue] = (0..=STEPS).map(paler).find(shown).unwrap_or_else(|| paler(STEPS)).map(byte);
        RGBColor(red, green, blue)
    }

    /// Linear red, green and blue; from 0 to 1 where a screen can show it.
    fn linear(self) -> [f64; 3] {
        let Self { lightness, green_red: a, blue_yellow: b } = self;
        let long = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
        let middle = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
        let short = (lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
        [
            4.076_741_662_1 * long - 3.307_711_591_3 * middle + 0.230_969_929_2 * short,
            -1.268_438_004_6 * long + 2.609_757_401_1 * middle - 0.341_319_396_5 * short,
            -0.004_196_086_3 * long - 0.703_418_614_7 * middle + 1.707_614_701_0 * short,
        ]
    }
}

/// A linear channel as the byte of sRGB.
fn byte(linear: f64) -> u8 {
    let linear = linear.clamp(0.0, 1.0);
    let curved = if linear <= 0.003_130_8 { linear * 12.92 } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
    (curved * 255.0).round() as u8
}

/// A channel of sRGB as linear light, 0 to 1.
pub(crate) fn light(channel: u8) -> f64 {
    let curved = f64::from(channel) / 255.0;
    if curved <= 0.040_45 { curved / 12.92 } else { ((curved + 0.055) / 1.055).powf(2.4) }
}

/// How much light a colour gives, 0 to 1, as contrast is measured by the Web Content Accessibility Guidelines.
pub(crate) fn luminance(colour: RGBColor) -> f64 {
    0.2126 * light(colour.0) + 0.7152 * light(colour.1) + 0.0722 * light(colour.2)
}

/// A colour in Oklab, from its linear channels.
#[cfg(test)]
pub(crate) fn of_linear([red, green, blue]: [f64; 3]) -> Oklab {
    let long = (0.412_221_470_8 * red + 0.536_332_536_3 * green + 0.051_445_992_9 * blue).cbrt();
    let middle = (0.211_903_498_2 * red + 0.680_699_545_1 * green + 0.107_396_956_6 * blue).cbrt();
    let short = (0.088_302_461_9 * red + 0.281_718_837_6 * green + 0.629_978_700_5 * blue).cbrt();
    Oklab {
        lightness: 0.210_454_255_3 * long + 0.793_617_785_0 * middle - 0.004_072_046_8 * short,
        green_red: 1.977_998_495_1 * long - 2.428_592_205_0 * middle + 0.450_593_709_9 * short,
        blue_yellow: 0.025_904_037_1 * long + 0.782_771_766_2 * middle - 0.808_675_766_0 * short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_there_and_back() {
        for colour in [RGBColor(0, 0, 0), RGBColor(255, 255, 255), RGBColor(29, 97, 228), RGBColor(241, 121, 19)] {
            let there = of_linear([colour.0, colour.1, colour.2].map(light));
            assert_eq!(there.on_screen(), colour);
        }
        let white = of_linear([1.0; 3]);
        assert!((white.lightness - 1.0).abs() < 1e-6 && white.green_red.abs() < 1e-6);
    }

    #[test]
    fn what_no_screen_can_show_becomes_paler() {
        let RGBColor(red, green, blue) = Oklab::polar(0.95, 0.5, 30.0).on_screen();
        assert!(red > 230 && green > 200 && blue > 200);
    }
}
