//! The mean of the channels.

/// Beyond this a sample is damage, whatever the scale of its file; its power still fits a float.
const MAX_MAGNITUDE: f32 = 1e6;

/// One sample, made safe: a value that is not finite, or absurd, counts as `damaged` and becomes silence.
pub(crate) fn sanitize(sample: f32, damaged: &mut u64) -> f32 {
    *damaged += u64::from(!is_sound(sample));
    if is_sound(sample) { sample } else { 0.0 }
}

fn is_sound(sample: f32) -> bool {
    sample.abs() <= MAX_MAGNITUDE
}

/// Writes the mean over `planes`, one per channel, to `mono`. Returns the number of damaged samples.
pub(crate) fn downmix(planes: &[Vec<f32>], mono: &mut Vec<f32>) -> u64 {
    mono.clear();
    mono.resize(planes.first().map_or(0, Vec::len), 0.0);
    let mut damaged = 0;
    for plane in planes {
        // Counted apart, so that the compiler finds vectors for both.
        let unsound: u32 = plane.iter().map(|sample| u32::from(!is_sound(*sample))).sum();
        damaged += u64::from(unsound);
        for (sum, sample) in mono.iter_mut().zip(plane) {
            *sum += if is_sound(*sample) { *sample } else { 0.0 };
        }
    }
    if planes.len() > 1 {
        let channels = planes.len() as f32;
        for sum in mono {
            *sum /= channels;
        }
    }
    damaged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_ignores_what_is_no_number() {
        let mut mono = Vec::new();
        let planes = [vec![0.5, f32::NAN, 1.0], vec![-0.25, 0.5, f32::INFINITY]];
        assert_eq!(downmix(&planes, &mut mono), 2);
        assert_eq!(mono, [0.125, 0.25, 0.5]);
        assert_eq!(downmix(&[], &mut mono), 0);
        assert!(mono.is_empty());
    }
}
