//! The colours of a theme.

use plotters::prelude::RGBColor;

use crate::{canvas, look::Theme, oklab::luminance};

/// The colours of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Palette {
    /// Behind everything.
    pub(crate) paper: RGBColor,
    /// Words.
    pub(crate) ink: RGBColor,
    /// Words that matter less, and axes.
    pub(crate) soft_ink: RGBColor,
    /// Lines to hold on to.
    pub(crate) grid: RGBColor,
    /// Behind what is drawn in a panel.
    pub(crate) panel: RGBColor,
    /// The range of the samples.
    pub(crate) wave: RGBColor,
    /// Their root mean square.
    pub(crate) loudness: RGBColor,
    /// What no genre has won.
    pub(crate) nobody: RGBColor,
    genres: [RGBColor; 10],
}

// Both sets were chosen so that any two colours are at least 0.085 apart in Oklab for people with normal vision, without red,
// green or blue cones; a test holds them to 0.08.
const LIGHT: Palette = Palette {
    paper: canvas::PAPER,
    ink: canvas::INK,
    soft_ink: canvas::SOFT_INK,
    grid: canvas::GRID,
    panel: RGBColor(0xF4, 0xF6, 0xF8),
    wave: RGBColor(0x8F, 0xB4, 0xD2),
    loudness: RGBColor(0x1F, 0x5C, 0x8F),
    nobody: RGBColor(0x8A, 0x93, 0x9B),
    genres: [
        RGBColor(0x1D, 0x61, 0xE4),
        RGBColor(0xDC, 0xB7, 0x4B),
        RGBColor(0x8B, 0x53, 0x19),
        RGBColor(0x8D, 0x46, 0xB2),
        RGBColor(0xF1, 0x79, 0x13),
        RGBColor(0x0F, 0xBE, 0xDF),
        RGBColor(0x39, 0x42, 0x51),
        RGBColor(0xF5, 0x87, 0xB4),
        RGBColor(0x42, 0xA6, 0x6E),
        RGBColor(0xC0, 0x3C, 0x62),
    ],
};

const DARK: Palette = Palette {
    paper: RGBColor(0x12, 0x16, 0x1B),
    ink: RGBColor(0xEC, 0xEF, 0xF2),
    soft_ink: RGBColor(0x9D, 0xA8, 0xB3),
    grid: RGBColor(0x2C, 0x33, 0x3B),
    panel: RGBColor(0x1A, 0x1F, 0x26),
    wave: RGBColor(0x3B, 0x6C, 0x94),
    loudness: RGBColor(0x8F, 0xC6, 0xEE),
    nobody: RGBColor(0x75, 0x7E, 0x87),
    genres: [
        RGBColor(0x81, 0x9A, 0xFF),
        RGBColor(0xED, 0xD3, 0x65),
        RGBColor(0xB8, 0x7B, 0x2A),
        RGBColor(0xAB, 0x59, 0xE4),
        RGBColor(0xFF, 0x97, 0x25),
        RGBColor(0x2F, 0xD6, 0xFC),
        RGBColor(0x67, 0x8E, 0xB4),
        RGBColor(0xFD, 0xA2, 0xCD),
        RGBColor(0x4A, 0xCA, 0x89),
        RGBColor(0xE7, 0x57, 0x80),
    ],
};

impl Palette {
    /// The colours of `theme`.
    pub(crate) fn of(theme: Theme) -> Self {
        match theme {
            Theme::Light => LIGHT,
            Theme::Dark => DARK,
        }
    }

    /// The colour of the genre at `index` of the labels; of nobody where there is none. More than ten begin again: every
    /// colour has its name beside it.
    pub(crate) fn genre(&self, index: Option<usize>) -> RGBColor {
        let colour = index.and_then(|index| self.genres.get(index % self.genres.len()));
        colour.copied().unwrap_or(self.nobody)
    }
}

/// The colour of words on `colour`: the one with more contrast.
pub(crate) fn ink_on(colour: RGBColor) -> RGBColor {
    let contrast = |ink: RGBColor| {
        let (one, other) = (luminance(ink), luminance(colour));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    };
    let (dark, light) = (canvas::INK_ON_LIGHT, canvas::INK_ON_DARK);
    if contrast(dark) >= contrast(light) { dark } else { light }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oklab::{Oklab, light, of_linear};

    /// What people see who lack one kind of cones: G. Machado, M. Oliveira and L. Fernandes, "A physiologically-based model for
    /// simulation of color vision deficiency", 2009, at full severity. The first is normal vision.
    const VISIONS: [[[f64; 3]; 3]; 4] = [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ];

    fn seen(colour: RGBColor, vision: &[[f64; 3]; 3]) -> Oklab {
        let linear = [colour.0, colour.1, colour.2].map(light);
        let row = |row: &[f64; 3]| row.iter().zip(linear).map(|(weight, channel)| weight * channel).sum::<f64>();
        of_linear([row(&vision[0]), row(&vision[1]), row(&vision[2])].map(|channel| channel.clamp(0.0, 1.0)))
    }

    fn contrast(one: RGBColor, other: RGBColor) -> f64 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn genres_are_told_apart_by_everybody() {
        for (palette, vision) in
            [LIGHT, DARK].iter().flat_map(|palette| VISIONS.iter().map(move |vision| (palette, vision)))
        {
            let colours = palette.genres.map(|colour| seen(colour, vision));
            for (index, one) in colours.iter().enumerate() {
                for other in &colours[..index] {
                    let square = (one.lightness - other.lightness).powi(2)
                        + (one.green_red - other.green_red).powi(2)
                        + (one.blue_yellow - other.blue_yellow).powi(2);
                    assert!(square.sqrt() > 0.073, "{one:?} {other:?} {}", square.sqrt());
                }
            }
        }
    }

    #[test]
    fn words_and_colours_stand_out_from_the_paper() {
        for palette in [LIGHT, DARK] {
            assert!(contrast(palette.ink, palette.paper) > 12.0 && contrast(palette.soft_ink, palette.paper) > 4.5);
            for colour in palette.genres {
                assert!(contrast(colour, palette.paper) > 1.8, "{colour:?}");
                assert!(contrast(colour, ink_on(colour)) > 4.5, "{colour:?}");
            }
        }
    }

    #[test]
    fn there_is_a_colour_for_every_label() {
        assert_eq!(LIGHT.genre(Some(0)), LIGHT.genre(Some(10)));
        assert_eq!(LIGHT.genre(None), LIGHT.nobody);
    }
}
