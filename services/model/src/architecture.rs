//! The networks that there are, and the shape of the default one, which starts from MusiCNN.
//!
//! MusiCNN (musicnn 0.1.0) looks at 96 mel bands of 16 kHz audio, 62.5 frames a second. An adapter computes those bands
//! from ours, and the kernels of the front end are resampled to our frames, so that the filters answer to the same music.

use std::collections::BTreeMap;

use crate::{
    Ensemble, Result, SeedCnn, Weights,
    ensemble::{EMBEDDED_MEMBERS, members},
    seed_cnn::DENSE,
};

/// A network that weights can be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Several networks that share MusiCNN's front end.
    Ensemble,
    /// The same with one frame of the front end in two and at a lower frame rate, for a fraction of the cost.
    Small,
    /// The convolutional network that Chorale's predecessor published.
    SeedCnn,
}

/// The shape of an [`Ensemble`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnsembleShape {
    pub(crate) front: FrontShape,
    /// Frames of a chunk that the members hear.
    pub(crate) frames: usize,
    pub(crate) frames_per_second: f64,
    /// The kernel over time of the members' layers.
    pub(crate) middle: TimeKernel,
    /// What a filter of the front end has to make of its inputs to be imported: see `Filter::gain`.
    pub(crate) least_gain: f32,
}

/// The shape of a front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrontShape {
    /// Frames from one answer to the next.
    pub(crate) step: usize,
    /// How far timbral filters reach in time.
    pub(crate) short: TimeKernel,
}

impl Architecture {
    /// All of them, and their names in `model.json`.
    pub const TABLE: [(Self, &'static str); 3] =
        [(Self::Ensemble, "musicnn-ensemble"), (Self::Small, "musicnn-small"), (Self::SeedCnn, "seed-cnn")];

    /// The architecture of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::TABLE.into_iter().find(|(_, known)| *known == name).map(|(architecture, _)| architecture)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::TABLE.into_iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }

    /// The shape of the ensemble, where it is one.
    #[must_use]
    pub const fn ensemble(self) -> Option<EnsembleShape> {
        match self {
            Self::Ensemble => Some(EnsembleShape {
                front: FrontShape { step: 1, short: TimeKernel::resampled(SHORT_TAPS) },
                frames: 248,
                frames_per_second: 62.5,
                middle: TimeKernel::original(SHORT_TAPS),
                least_gain: NEGLIGIBLE_GAIN,
            }),
            Self::Small => Some(EnsembleShape {
                front: FrontShape { step: 2, short: TimeKernel::narrow(SHORT_TAPS) },
                frames: 96,
                frames_per_second: 24.0,
                middle: TimeKernel::narrow(SHORT_TAPS),
                least_gain: 1.0,
            }),
            Self::SeedCnn => None,
        }
    }

    /// Every tensor of a model with `labels` labels, and with as many filters and members as `weights` have where that is
    /// not fixed: its name and shape.
    pub(crate) fn tensors(self, weights: &Weights, labels: usize) -> Result<BTreeMap<String, Vec<usize>>> {
        match self.ensemble() {
            Some(shape) => Ensemble::tensors(shape, weights, labels),
            None => Ok(SeedCnn::tensors(labels).into_iter().collect()),
        }
    }

    /// Numbers in the embedding that a network of these `weights` makes.
    pub(crate) fn embedding_length(self, weights: &Weights) -> Result<usize> {
        match self.ensemble() {
            Some(_) => Ok(EMBEDDING_FEATURES * members(weights)?.min(EMBEDDED_MEMBERS)),
            None => Ok(DENSE),
        }
    }
}

/// MusiCNN's features of a chunk after pooling over time: the maximum and the mean of 753 channels, interleaved.
pub(crate) const POOLED_FEATURES: usize = 2 * (FRONT_CHANNELS + MID_LAYERS * MID_CHANNELS);
/// Features of a chunk after a member's dense layer.
pub const EMBEDDING_FEATURES: usize = 200;

/// Bands of the network's own mel scale.
pub(crate) const BANDS: usize = 96;
/// Added to every variance before its root is taken.
pub(crate) const NORM_EPSILON: f32 = 1e-3;
/// Channels of the front end.
pub(crate) const FRONT_CHANNELS: usize = 2 * TIMBRAL_FILTERS + 3 * TEMPORAL_FILTERS;
/// Layers between the front end and the pooling.
pub(crate) const MID_LAYERS: usize = 3;
/// Channels of each of those layers.
pub(crate) const MID_CHANNELS: usize = 64;

/// A filter with less gain than this answers with a constant: see `Filter::gain`.
///
/// Weight decay has driven most of MusiCNN's filters to nothing: 497 of the 561 in the front end have a gain under 2e-9.
/// Leaving them out saves six sevenths of the multiplications. Of the others, three are under 0.2, and all under 4 are
/// those.
pub(crate) const NEGLIGIBLE_GAIN: f32 = 1e-7;

/// MusiCNN's taps of the timbral filters and of the layers in the middle.
const SHORT_TAPS: usize = 7;
const TIMBRAL_FILTERS: usize = 204;
const TEMPORAL_FILTERS: usize = 51;

/// The parts of the front end whose filters span one band and a long time, in the order of the channels.
pub(crate) const TEMPORAL: [FrontPart; 3] = [
    FrontPart { name: FRONT_PARTS[2], filters: TEMPORAL_FILTERS, time: TimeKernel::resampled(128), bands: 1 },
    FrontPart { name: FRONT_PARTS[3], filters: TEMPORAL_FILTERS, time: TimeKernel::resampled(64), bands: 1 },
    FrontPart { name: FRONT_PARTS[4], filters: TEMPORAL_FILTERS, time: TimeKernel::resampled(32), bands: 1 },
];

impl FrontShape {
    /// The parts whose filters span several bands and a short time, in the order of the channels.
    pub(crate) fn timbral(self) -> [FrontPart; 2] {
        let part = |name, bands| FrontPart { name, filters: TIMBRAL_FILTERS, time: self.short, bands };
        let [low, high, ..] = FRONT_PARTS;
        [part(low, 38), part(high, 67)]
    }

    /// All parts, in the order of the channels.
    pub(crate) fn parts(self) -> impl Iterator<Item = FrontPart> {
        self.timbral().into_iter().chain(TEMPORAL)
    }
}

/// The names of the parts of a front end, in the order of the channels.
pub(crate) const FRONT_PARTS: [&str; 5] =
    ["timbral_low", "timbral_high", "temporal_long", "temporal_medium", "temporal_short"];

/// Filters of one shape in the front end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrontPart {
    pub(crate) name: &'static str,
    pub(crate) filters: usize,
    pub(crate) time: TimeKernel,
    /// Neighbouring bands under one filter.
    pub(crate) bands: usize,
}

/// How far a kernel reaches in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeKernel {
    /// Taps of the original kernel, 16 ms each.
    pub(crate) original_taps: usize,
    /// Taps before the one at the frame itself.
    pub(crate) before: usize,
    /// All taps, one a frame.
    pub(crate) taps: usize,
}

impl TimeKernel {
    /// A kernel at MusiCNN's frame rate.
    const fn original(original_taps: usize) -> Self {
        Self { original_taps, before: Self::original_reach(original_taps).0, taps: original_taps }
    }

    /// The reach of a kernel of `original_taps` after resampling to our frames, rounded outwards.
    pub(crate) const fn resampled(original_taps: usize) -> Self {
        let (left, right) = Self::original_reach(original_taps);
        let before = (left * FRAMES_PER_1000_TAPS).div_ceil(1_000);
        let after = (right * FRAMES_PER_1000_TAPS).div_ceil(1_000);
        Self { original_taps, before, taps: before + 1 + after }
    }

    /// The same rounded to the nearest frame: the outermost taps of [`resampled`](Self::resampled) hold next to nothing.
    pub(crate) const fn narrow(original_taps: usize) -> Self {
        let (left, right) = Self::original_reach(original_taps);
        let before = (left * FRAMES_PER_1000_TAPS + 500) / 1_000;
        let after = (right * FRAMES_PER_1000_TAPS + 500) / 1_000;
        Self { original_taps, before, taps: before + 1 + after }
    }

    /// Taps left and right of the centre. An even kernel reaches further right: TensorFlow's `same` padding.
    pub(crate) const fn original_reach(original_taps: usize) -> (usize, usize) {
        ((original_taps - 1) / 2, original_taps / 2)
    }
}

/// Frames of ours in 1000 taps of MusiCNN: 16 s.
pub(crate) const FRAMES_PER_1000_TAPS: usize = 16 * crate::contract::FRAMES_PER_SECOND as usize;

/// Every tensor of the original MusiCNN with `tags` tags.
pub(crate) fn original_tensors(tags: usize) -> BTreeMap<String, Vec<usize>> {
    let mut table = backbone_tensors();
    insert_head(&mut table, "tags", tags);
    table
}

fn backbone_tensors() -> BTreeMap<String, Vec<usize>> {
    let mut table = BTreeMap::new();
    insert_norm(&mut table, "input_norm", 1);
    // The taps that we make of them are not asked for.
    let shape = FrontShape { step: 1, short: TimeKernel::original(SHORT_TAPS) };
    for part in shape.parts() {
        let name = format!("front.{}", part.name);
        insert_convolution(&mut table, &name, [part.filters, 1, part.time.original_taps, part.bands]);
    }
    for (layer, name) in mid_layers().into_iter().enumerate() {
        insert_convolution(&mut table, &name, [MID_CHANNELS, 1, SHORT_TAPS, mid_inputs(layer)]);
    }
    table
}

/// The names of the layers in the middle, in order.
pub(crate) fn mid_layers() -> [String; MID_LAYERS] {
    std::array::from_fn(|layer| format!("mid.{layer}"))
}

/// Channels that go into a layer in the middle.
pub(crate) const fn mid_inputs(layer: usize) -> usize {
    if layer == 0 { FRONT_CHANNELS } else { MID_CHANNELS }
}

/// Adds the tensors of a convolution of `shape` and of the normalisation after it to a table.
pub(crate) fn insert_convolution(table: &mut BTreeMap<String, Vec<usize>>, name: &str, shape: [usize; 4]) {
    table.insert(format!("{name}.conv.weight"), shape.to_vec());
    table.insert(format!("{name}.conv.bias"), vec![shape[0]]);
    insert_norm(table, &format!("{name}.norm"), shape[0]);
}

/// Adds the tensors of a normalisation to a table.
pub(crate) fn insert_norm(table: &mut BTreeMap<String, Vec<usize>>, name: &str, channels: usize) {
    for part in ["weight", "bias", "running_mean", "running_var"] {
        table.insert(format!("{name}.{part}"), vec![channels]);
    }
}

fn insert_head(table: &mut BTreeMap<String, Vec<usize>>, output: &str, outputs: usize) {
    insert_norm(table, "pool_norm", POOLED_FEATURES);
    insert_norm(table, "dense_norm", EMBEDDING_FEATURES);
    for (name, outputs, inputs) in
        [("dense", EMBEDDING_FEATURES, POOLED_FEATURES), (output, outputs, EMBEDDING_FEATURES)]
    {
        table.insert(format!("{name}.weight"), vec![outputs, inputs]);
        table.insert(format!("{name}.bias"), vec![outputs]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_reach_as_far_as_the_original_rounded_outwards() {
        let reach = |taps| {
            let kernel = TimeKernel::resampled(taps);
            (kernel.taps, kernel.before)
        };
        assert_eq!(reach(7), (5, 2));
        assert_eq!(reach(32), (14, 6));
        assert_eq!(reach(64), (26, 12));
        assert_eq!(reach(128), (51, 25));
    }

    #[test]
    fn there_are_753_channels_before_the_pooling() {
        assert_eq!(FRONT_CHANNELS, 561);
        assert_eq!(POOLED_FEATURES, 1_506);
    }
}
