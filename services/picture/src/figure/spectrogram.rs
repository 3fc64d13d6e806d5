//! The log-mel spectrogram with its frequencies, and a bar that says which colour is how loud.

use chorale_feature::hz_to_mel;
use chorale_model::contract::{FLOOR_DB, MEL_BANDS, SAMPLE_RATE};

use crate::{
    colour_map::colour_map,
    error::Result,
    figure::{Figure, SMALL},
    raster::indexed,
    scene::{Anchor, Area, Scene, Words},
    sound::frame_start_seconds,
};

/// Frequencies that have a mark, in Hz, the most wanted numbers first.
const FREQUENCIES: [(f64, &str); 7] = [
    (1_000.0, "1k"),
    (100.0, "100"),
    (10_000.0, "10k"),
    (500.0, "500"),
    (2_000.0, "2k"),
    (5_000.0, "5k"),
    (200.0, "200"),
];
/// Between the middles of two numbers at least, in pixels.
const BETWEEN_NUMBERS: f64 = 11.0;
/// The width of the colour bar, and how far it is from the spectrogram.
const BAR: f64 = 10.0;
const BAR_GAP: f64 = 12.0;

pub(super) fn paint(figure: &Figure<'_>, area: Area, scene: &mut Scene) -> Result<()> {
    let Some(sound) = &figure.track.sound else { return Ok(()) };
    let (time, palette) = (&figure.time, &figure.palette);
    let colours = colour_map(figure.look.theme);
    let width = sound.spectrogram.width();
    let frames = sound.spectrogram.frames_per_column();
    let start = |column: usize| time.x(frame_start_seconds(sound.first_frame + column as u64 * frames));
    let image = if width > 0 {
        // Up to half a frame of the end is nearer to no other frame than to the last one.
        let cells: Vec<u8> = sound
            .spectrogram
            .cells()
            .chunks_exact(width)
            .flat_map(|row| row.iter().copied().chain(row.last().copied()))
            .collect();
        Some(indexed(&cells, width + 1, &colours)?)
    } else {
        None
    };
    let bar: Vec<u8> = (0..=u8::MAX).rev().collect();
    let bar = indexed(&bar, 1, &colours)?;

    figure.caption("Log-mel spectrogram (Hz), in dB below its loudest cell", area, scene);
    scene.group("spectrogram", "", |scene| {
        scene.rectangle(area, colours[0]);
        scene.window(area, |scene| {
            let left = start(0);
            if let Some(image) = &image {
                scene.image(Area { left, width: start(width + 1) - left, ..area }, image);
            }
        });
        let mut numbers: Vec<f64> = Vec::new();
        for (hz, number) in FREQUENCIES {
            let y = area.bottom() - position(hz) * area.height;
            scene.line([(area.left - 5.0, y), (area.left, y)], palette.soft_ink, 1.0);
            if numbers.iter().all(|other| (other - y).abs() >= BETWEEN_NUMBERS) {
                numbers.push(y);
                scene.text(number, (area.left - 8.0, y), Words::new(SMALL, palette.soft_ink, Anchor::End));
            }
        }
        let place = Area { left: area.right() + BAR_GAP, width: BAR, ..area };
        scene.image(place, &bar);
        for step in 0..=4_i8 {
            let decibels = f64::from(FLOOR_DB) * f64::from(step) / 4.0;
            let y = place.top + place.height * f64::from(step) / 4.0;
            let inside = y.clamp(place.top + SMALL * 0.4, place.bottom() - SMALL * 0.4);
            let number = if step == 0 { "0 dB".to_owned() } else { format!("−{}", -decibels) };
            scene.text(&number, (place.right() + 6.0, inside), Words::new(SMALL, palette.soft_ink, Anchor::Start));
        }
    });
    Ok(())
}

/// Where a frequency is, from 0 at the bottom to 1 at the top. Bands are equally high; band `b` is highest in the middle, at
/// `b + 1` of the 129 steps that the mel scale is cut into.
fn position(hz: f64) -> f64 {
    let highest = hz_to_mel(f64::from(SAMPLE_RATE) / 2.0);
    let bands = MEL_BANDS as f64;
    (hz_to_mel(hz) / highest * (bands + 1.0) - 0.5) / bands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_where_librosas_bands_are() {
        // librosa.mel_frequencies(130, fmin=0, fmax=11025)[1:-1]: the centres of bands 0, 38, 100 and 127.
        for (band, hz) in [(0, 25.793_588_9), (38, 1_006.154_925_5), (100, 5_234.944_733_3), (127, 10_735.597_567_3)] {
            let expected = (f64::from(band) + 0.5) / 128.0;
            assert!((position(hz) - expected).abs() < 1e-6, "{hz} Hz: {} {expected}", position(hz));
        }
    }
}
