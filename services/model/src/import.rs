//! How the published weights of MusiCNN are read, and moved to our bands and our frame rate.

use serde::Deserialize;

use crate::{
    Array, ModelError, Result, Weights,
    architecture::{self, BANDS, FRAMES_PER_1000_TAPS, TimeKernel},
    contract::{MEL_BANDS, SAMPLE_RATE},
};

const TAGS: usize = 50;

/// How our mel bands become MusiCNN's: interpolation on the mel scale, a level, and a level a band.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// What the values are, in words.
    #[serde(default)]
    pub about: String,
    /// Our scale. It must be that of the feature contract.
    pub source_bands: MelScale,
    /// MusiCNN's scale. It must have 96 bands.
    pub target_bands: MelScale,
    /// Added to every band, in dB.
    pub level_db: f32,
    /// Added to each band of the target, in dB.
    pub band_offset_db: Vec<f32>,
}

/// A mel filter bank, as librosa names its parameters.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelScale {
    /// Bands.
    pub n_mels: usize,
    /// Lower end, in Hz.
    pub fmin: f64,
    /// Upper end, in Hz.
    pub fmax: f64,
    /// Samples a second.
    pub sample_rate: u32,
    /// Points of the FFT.
    pub n_fft: usize,
    /// Samples from one frame to the next.
    pub hop: Option<usize>,
}

impl Adapter {
    /// Reads an adapter from JSON.
    ///
    /// # Errors
    /// [`ModelError::Json`], or [`ModelError::Field`] for scales that do not fit the contract and the network.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let adapter: Self = serde_json::from_slice(json)
            .map_err(|source| ModelError::Json { file: "adapter.json".to_owned(), source })?;
        let check = |field, expected: usize, found: usize| {
            if expected == found {
                return Ok(());
            }
            Err(ModelError::Field { field, expected: expected.to_string(), found: found.to_string() })
        };
        check("source_bands.n_mels", MEL_BANDS, adapter.source_bands.n_mels)?;
        check("source_bands.sample_rate", SAMPLE_RATE as usize, adapter.source_bands.sample_rate as usize)?;
        check("target_bands.n_mels", BANDS, adapter.target_bands.n_mels)?;
        check("number of band_offset_db", BANDS, adapter.band_offset_db.len())?;
        Ok(adapter)
    }

    /// `[BANDS, MEL_BANDS]`: the weight of each of our bands in each of the network's.
    fn weight(&self) -> Vec<f32> {
        let source = self.source_bands.centres();
        let mut matrix = Vec::with_capacity(BANDS * MEL_BANDS);
        for centre in self.target_bands.centres() {
            let above = source.partition_point(|band| *band < centre).clamp(1, source.len().max(2) - 1);
            let (low, high) =
                (source.get(above - 1).copied().unwrap_or(0.0), source.get(above).copied().unwrap_or(1.0));
            let share = ((centre - low) / (high - low)).clamp(0.0, 1.0);
            matrix.extend((0..MEL_BANDS).map(|band| match band {
                band if band == above => share as f32,
                band if band + 1 == above => (1.0 - share) as f32,
                _ => 0.0,
            }));
        }
        matrix
    }
}

impl MelScale {
    /// The centre of every band, in mel.
    fn centres(&self) -> Vec<f64> {
        let (low, high) = (mel(self.fmin), mel(self.fmax));
        (1..=self.n_mels).map(|band| low + (high - low) * band as f64 / (self.n_mels + 1) as f64).collect()
    }
}

/// Slaney's mel scale: linear up to 1 kHz, logarithmic above.
fn mel(hertz: f64) -> f64 {
    const LINEAR_HERTZ_PER_MEL: f64 = 200.0 / 3.0;
    const KNEE_HERTZ: f64 = 1_000.0;
    let log_step = 6.4_f64.ln() / 27.0;
    if hertz < KNEE_HERTZ {
        hertz / LINEAR_HERTZ_PER_MEL
    } else {
        KNEE_HERTZ / LINEAR_HERTZ_PER_MEL + (hertz / KNEE_HERTZ).ln() / log_step
    }
}

/// The published weights of MusiCNN as they are.
pub(crate) fn original_musicnn(safetensors: &[u8]) -> Result<Weights> {
    let (weights, _) = Weights::from_safetensors(safetensors)?;
    for (name, shape) in architecture::original_tensors(TAGS) {
        weights.get(&name, &shape)?;
    }
    Ok(weights)
}

/// Adds the adapter's tensors.
pub(crate) fn insert_adapter(weights: &mut Weights, adapter: &Adapter) -> Result<()> {
    let bias: Vec<f32> = adapter.band_offset_db.iter().map(|offset| offset + adapter.level_db).collect();
    weights.insert("adapter.weight", Array::new(&[BANDS, MEL_BANDS], adapter.weight())?);
    weights.insert("adapter.bias", Array::new(&[BANDS], bias)?);
    Ok(())
}

/// Kernels `[filters, 1, taps, width]` on our frames: each original tap is shared between the two frames around it, by
/// how near they are, so that a sound interpolated between frames gets the original response. Beyond the ends, it goes to
/// the last frame.
pub(crate) fn resample(kernels: &Array, time: TimeKernel) -> Result<Array> {
    let width = kernels.shape().last().copied().unwrap_or(1);
    let filters = kernels.shape().first().copied().unwrap_or(0);
    let (left, _) = TimeKernel::original_reach(time.original_taps);
    let mut values = vec![0.0_f32; filters * time.taps * width];
    for (kernel, resampled) in
        kernels.values().chunks_exact(time.original_taps * width).zip(values.chunks_exact_mut(time.taps * width))
    {
        for (tap, row) in kernel.chunks_exact(width).enumerate() {
            let position = (tap as f64 - left as f64) * FRAMES_PER_1000_TAPS as f64 / 1_000.0 + time.before as f64;
            let position = position.clamp(0.0, (time.taps - 1) as f64);
            let after = position.fract() as f32;
            let frames = resampled.chunks_exact_mut(width).skip(position as usize);
            for (frame, share) in frames.zip([1.0 - after, after]) {
                for (cell, value) in frame.iter_mut().zip(row) {
                    *cell += value * share;
                }
            }
        }
    }
    Array::new(&[filters, 1, time.taps, width], values)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Architecture;

    #[test]
    fn a_resampled_kernel_answers_an_interpolated_signal_as_the_original_does() {
        let signal: Vec<f32> = (0..64).map(|frame| ((frame * frame) as f32 * 0.37).sin()).collect();
        let between = |position: f64| {
            let share = position.fract() as f32;
            let frame = position as usize;
            signal[frame] * (1.0 - share) + signal[frame + 1] * share
        };
        for part in Architecture::Ensemble.ensemble().unwrap().front.parts() {
            let time = part.time;
            let original: Vec<f32> = (0..time.original_taps).map(|tap| (tap as f32 * 0.9).cos()).collect();
            let kernel =
                resample(&Array::new(&[1, 1, time.original_taps, 1], original.clone()).unwrap(), time).unwrap();
            assert_eq!(kernel.shape(), [1, 1, time.taps, 1]);
            let centre = 30;
            let frames = &signal[centre - time.before..];
            let found: f32 = kernel.values().iter().zip(frames).map(|(tap, value)| tap * value).sum();
            let left = (time.original_taps - 1) / 2;
            let expected: f32 = (original.iter().enumerate())
                .map(|(tap, value)| value * between(centre as f64 + (tap as f64 - left as f64) * 0.016 * 24.0))
                .sum();
            assert!((found - expected).abs() < 1e-4, "{}: {found} {expected}", part.name);
        }
    }

    #[test]
    fn a_narrow_kernel_answers_a_steady_signal_as_the_original_does() {
        let time = Architecture::Small.ensemble().unwrap().middle;
        assert_eq!((time.before, time.taps, time.original_taps), (1, 3, 7));
        let kernel = |taps: Vec<f32>| resample(&Array::new(&[1, 1, 7, 1], taps).unwrap(), time).unwrap();
        // The outermost taps, 48 ms away, lie beyond the last frames, 42 ms away.
        assert_eq!(kernel(vec![5.0, 0.0, 0.0, 3.0, 0.0, 0.0, 7.0]).values(), [5.0, 3.0, 7.0]);
        let sum: f32 = kernel(vec![1.0, 2.0, -3.0, 4.0, 5.0, 6.0, -7.5]).values().iter().sum();
        assert!((sum - 7.5).abs() < 1e-5, "{sum}");
    }

    pub(crate) fn adapter() -> Adapter {
        let scale =
            |n_mels, fmax, sample_rate, n_fft| MelScale { n_mels, fmin: 0.0, fmax, sample_rate, n_fft, hop: None };
        Adapter {
            about: String::new(),
            source_bands: scale(MEL_BANDS, 11_025.0, SAMPLE_RATE, 2_048),
            target_bands: scale(BANDS, 8_000.0, 16_000, 512),
            level_db: 0.0,
            band_offset_db: vec![0.0; BANDS],
        }
    }

    #[test]
    fn the_adapter_interpolates_between_the_centres_of_bands() {
        let adapter = adapter();
        let source = adapter.source_bands.centres();
        let weight = adapter.weight();
        for (row, centre) in weight.chunks_exact(MEL_BANDS).zip(adapter.target_bands.centres()) {
            let interpolated: f64 = row.iter().zip(&source).map(|(share, band)| f64::from(*share) * band).sum();
            assert!((interpolated - centre).abs() < 1e-5, "{interpolated} {centre}");
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn slaney_mels_are_librosas() {
        for (hertz, expected) in [(0.0, 0.0), (500.0, 7.5), (1_000.0, 15.0), (8_000.0, 45.245_640_471_924_965)] {
            assert!((mel(hertz) - expected).abs() < 1e-9, "{hertz} Hz: {}", mel(hertz));
        }
    }

    #[test]
    fn an_adapter_for_other_bands_is_an_error() {
        let json = br#"{"source_bands": {"n_mels": 64, "fmin": 0, "fmax": 1, "sample_rate": 22050, "n_fft": 2048},
            "target_bands": {"n_mels": 96, "fmin": 0, "fmax": 8000, "sample_rate": 16000, "n_fft": 512, "hop": 256},
            "level_db": 1, "band_offset_db": []}"#;
        assert_eq!(Adapter::from_json(json).unwrap_err().to_string(), "source_bands.n_mels: expected 128, found 64");
    }
}
