//! From the published weights of MusiCNN to what an ensemble starts from: its front end, and the layers of a member.

use crate::{
    Adapter, Array, EMBEDDING_FEATURES, EnsembleShape, Manifest, Member, ModelError, ModelFolder, Result, Weights,
    architecture::{
        FRONT_CHANNELS, FrontPart, MID_CHANNELS, MID_LAYERS, POOLED_FEATURES, TimeKernel, mid_inputs, mid_layers,
    },
    ensemble::member_tensor,
    front::filters,
    import::{insert_adapter, original_musicnn, resample},
};

/// What an ensemble starts from.
#[derive(Clone, Debug)]
pub struct EnsembleStart {
    /// Everything before the members, for [`EnsembleFront`](crate::EnsembleFront).
    pub front: Weights,
    /// Filters of the front end.
    pub channels: usize,
    /// The first twelve tensors of a [`Member`](crate::Member): its layers in the middle.
    pub mid: Vec<Array>,
    /// What BatchNorm makes of the pooled features.
    pub pool_norm: Norm,
    /// The dense layer's weight, `[EMBEDDING_FEATURES, pooled features]`, for pooled features after BatchNorm.
    pub dense_weight: Array,
    /// Its bias.
    pub dense_bias: Array,
    /// What BatchNorm makes of the dense layer's answer.
    pub dense_norm: Norm,
    /// Which of the pooled features of what it starts from every pooled feature stands for.
    pub features: Vec<usize>,
}

/// A normalisation of features.
#[derive(Clone, Debug, PartialEq)]
pub enum Norm {
    /// Feature by feature, the standard deviation and the mean that come out, whatever goes in. MusiCNN has learnt which
    /// features matter by how large it makes them.
    Outcome {
        /// Standard deviations.
        gain: Vec<f32>,
        /// Means.
        offset: Vec<f32>,
    },
    /// `x · scale + shift`, feature by feature.
    Affine {
        /// What features are multiplied by.
        scale: Vec<f32>,
        /// What is added.
        shift: Vec<f32>,
    },
}

impl EnsembleStart {
    /// Goes on from the first member of an ensemble: of this shape, or of one whose kernels reach further, which are then
    /// brought to this shape, without the filters that have too little gain for it.
    ///
    /// # Errors
    /// Where the model is of a shape that this one cannot be made of.
    pub fn of_model(model: &ModelFolder, shape: EnsembleShape) -> Result<Self> {
        let (weights, manifest) = (model.weights(), model.manifest());
        let known = manifest.network()?.ensemble().ok_or_else(|| another_shape(manifest))?;
        let least_gain = if known == shape { 0.0 } else { shape.least_gain };
        let mut front = Weights::default();
        // What tells music belongs to the features that the members had, not to those that they will come to.
        for (name, array) in weights.iter().filter(|(name, _)| name.starts_with("adapter.") || is_input_norm(name)) {
            front.insert(name, array.clone());
        }
        let mut channels = Channels::default();
        for (from, to) in known.front.parts().zip(shape.front.parts()) {
            let bring = |kernels: &Array| cut(kernels, from.time, to.time);
            channels.add(weights, from, from.time.taps, least_gain, bring, &mut front)?;
        }

        let tensors = Member::tensors(known, channels.count(), manifest.labels.len());
        let tensor = |wanted: &str| -> Result<Array> {
            let shape = tensors.iter().find(|(name, _)| *name == wanted).map(|(_, shape)| shape.as_slice());
            Ok(weights.get(&member_tensor(0, wanted), shape.unwrap_or_default())?.clone())
        };
        let mut mid = Vec::new();
        for (layer, name) in mid_layers().iter().enumerate() {
            let kernels = tensor(&format!("{name}.weight"))?;
            let kernels = match (known.middle, shape.middle) {
                (from, to) if from == to => kernels,
                (from, to) if from.taps == to.original_taps => resample_columns(&kernels, to)?,
                _ => return Err(another_shape(manifest)),
            };
            mid.push(if layer == 0 { channels.only_live(&kernels)? } else { kernels });
            for part in ["bias", "norm.scale", "norm.shift"] {
                mid.push(tensor(&format!("{name}.{part}"))?);
            }
        }

        let half = channels.count() + MID_LAYERS * MID_CHANNELS;
        let kept = || channels.live.iter().copied().chain(channels.count()..half);
        let features: Vec<usize> = kept().chain(kept().map(|feature| half + feature)).collect();
        let norm = |name: &str, features: Option<&[usize]>| -> Result<Norm> {
            let values = |part: &str| -> Result<Vec<f32>> {
                let array = tensor(&format!("{name}.{part}"))?;
                Ok(features.map_or_else(|| array.values().to_vec(), |features| select(array.values(), features)))
            };
            Ok(Norm::Affine { scale: values("scale")?, shift: values("shift")? })
        };
        Ok(Self {
            front,
            channels: channels.live.len(),
            mid,
            pool_norm: norm("pool", Some(&features))?,
            dense_weight: columns(&tensor("dense.weight")?, &features)?,
            dense_bias: tensor("dense.bias")?,
            dense_norm: norm("dense_norm", None)?,
            features,
        })
    }

    /// Reads the published weights of MusiCNN (a safetensors file), and leaves the filters out that answer with a constant,
    /// or nearly so.
    ///
    /// # Errors
    /// Where the file is not one of MusiCNN's weights.
    pub fn import(safetensors: &[u8], adapter: &Adapter, shape: EnsembleShape) -> Result<Self> {
        let original = original_musicnn(safetensors)?;
        let mut front = Weights::default();
        insert_adapter(&mut front, adapter)?;
        for (name, array) in original.iter().filter(|(name, _)| is_input_norm(name)) {
            front.insert(name, array.clone());
        }
        let mut channels = Channels::default();
        for part in shape.front.parts() {
            let bring = |kernels: &Array| resample(kernels, part.time);
            channels.add(&original, part, part.time.original_taps, shape.least_gain, bring, &mut front)?;
        }

        let mut mid = Vec::new();
        for (layer, name) in mid_layers().iter().enumerate() {
            let kernels = original.get(&format!("{name}.conv.weight"), &[MID_CHANNELS, 1, 7, mid_inputs(layer)])?;
            let kernels = columns_first(kernels)?;
            let time = shape.middle;
            let kernels = if time.taps == time.original_taps { kernels } else { resample_columns(&kernels, time)? };
            mid.push(if layer == 0 { channels.only_live(&kernels)? } else { kernels });
            mid.push(original.get(&format!("{name}.conv.bias"), &[MID_CHANNELS])?.clone());
            let (scale, shift) = original.normalization(&format!("{name}.norm"), MID_CHANNELS)?;
            mid.extend([Array::new(&[MID_CHANNELS], scale)?, Array::new(&[MID_CHANNELS], shift)?]);
        }

        // MusiCNN interleaves the maximum and the mean of every channel; a member has all maxima first.
        let kept = || channels.live.iter().copied().chain(FRONT_CHANNELS..POOLED_FEATURES / 2);
        let features: Vec<usize> =
            kept().map(|channel| 2 * channel).chain(kept().map(|channel| 2 * channel + 1)).collect();
        let values = |name: &str, length| original.get(name, &[length]).map(Array::values);
        let pool = |name: &str| Ok::<_, ModelError>(select(values(name, POOLED_FEATURES)?, &features));
        Ok(Self {
            front,
            channels: channels.live.len(),
            mid,
            pool_norm: Norm::Outcome { gain: pool("pool_norm.weight")?, offset: pool("pool_norm.bias")? },
            dense_weight: columns(original.get("dense.weight", &[EMBEDDING_FEATURES, POOLED_FEATURES])?, &features)?,
            dense_bias: original.get("dense.bias", &[EMBEDDING_FEATURES])?.clone(),
            dense_norm: Norm::Outcome {
                gain: values("dense_norm.weight", EMBEDDING_FEATURES)?.to_vec(),
                offset: values("dense_norm.bias", EMBEDDING_FEATURES)?.to_vec(),
            },
            features,
        })
    }
}

/// Which channels of a front end are kept.
#[derive(Default)]
struct Channels {
    /// What every channel answers with where it is left out; 0 where it is kept.
    constants: Vec<f32>,
    /// The channels that are kept: at least one of each part.
    live: Vec<usize>,
}

impl Channels {
    /// The channels that there were.
    fn count(&self) -> usize {
        self.constants.len()
    }

    /// Adds a part of `known`, whose kernels have `taps` taps, and puts the filters of it that have enough gain into
    /// `front`, with the kernels that `bring` makes of theirs.
    fn add(
        &mut self,
        known: &Weights,
        part: FrontPart,
        taps: usize,
        least_gain: f32,
        bring: impl Fn(&Array) -> Result<Array>,
        front: &mut Weights,
    ) -> Result<()> {
        let name = format!("front.{}", part.name);
        let filters = filters(known, &name, [taps, part.bands], <[f32]>::to_vec)?;
        let mut live: Vec<usize> = (0_usize..)
            .zip(&filters)
            .filter(|(_, filter)| filter.gain() >= least_gain)
            .map(|(index, _)| index)
            .collect();
        if live.is_empty() {
            live.push(0);
        }
        let first = self.count();
        self.constants.extend(filters.iter().enumerate().map(|(index, filter)| {
            if live.contains(&index) { 0.0 } else { filter.bias.max(0.0) * filter.scale + filter.shift }
        }));
        self.live.extend(live.iter().map(|filter| first + filter));

        let rows = |array: &Array, width: usize| {
            let rows = live.iter().filter_map(|index| array.values().chunks_exact(width).nth(*index));
            rows.flatten().copied().collect::<Vec<f32>>()
        };
        let kernel = format!("{name}.conv.weight");
        let kernels = bring(known.get(&kernel, &[filters.len(), 1, taps, part.bands])?)?;
        let shape = [live.len(), 1, kernels.shape().get(2).copied().unwrap_or(0), part.bands];
        front.insert(&kernel, Array::new(&shape, rows(&kernels, shape[2] * part.bands))?);
        for tensor in ["conv.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"] {
            let tensor = format!("{name}.{tensor}");
            let values = rows(known.get(&tensor, &[filters.len()])?, 1);
            front.insert(&tensor, Array::new(&[live.len()], values)?);
        }
        Ok(())
    }

    /// Kernels `[outputs, live channels + 1, 1, taps]` of `[outputs, channels, 1, taps]`, or of `[outputs, channels + 1, 1,
    /// taps]`: the last input is 1 everywhere, and stands for the channels that are left out.
    fn only_live(&self, kernels: &Array) -> Result<Array> {
        let [outputs, inputs, taps] = [0, 1, 3].map(|axis| kernels.shape().get(axis).copied().unwrap_or(0));
        let constants = || self.constants.iter().copied().chain([1.0]);
        let mut values = Vec::new();
        for kernel in kernels.values().chunks_exact(taps * inputs) {
            values.extend(self.live.iter().filter_map(|input| kernel.chunks_exact(taps).nth(*input)).flatten());
            let rest = |tap| {
                let column = kernel.iter().skip(tap).step_by(taps);
                column.zip(constants()).map(|(weight, constant)| weight * constant).sum::<f32>()
            };
            values.extend((0..taps).map(rest));
        }
        Array::new(&[outputs, self.live.len() + 1, 1, taps], values)
    }
}

fn another_shape(manifest: &Manifest) -> ModelError {
    ModelError::Field {
        field: "architecture",
        expected: "one that the new model can go on from".to_owned(),
        found: manifest.architecture.clone(),
    }
}

fn is_input_norm(name: &str) -> bool {
    name.starts_with("input_norm.")
}

/// Kernels `[filters, 1, taps, width]` of another reach at the same frame rate: what a tap beyond the ends had goes to the
/// last one.
fn cut(kernels: &Array, from: TimeKernel, to: TimeKernel) -> Result<Array> {
    let [filters, width] = [0, 3].map(|axis| kernels.shape().get(axis).copied().unwrap_or(0));
    let mut values = vec![0.0_f32; filters * to.taps * width];
    for (kernel, short) in
        kernels.values().chunks_exact(from.taps * width).zip(values.chunks_exact_mut(to.taps * width))
    {
        for (tap, row) in kernel.chunks_exact(width).enumerate() {
            let place = (tap + to.before).saturating_sub(from.before).min(to.taps - 1);
            for (cell, value) in short.iter_mut().skip(place * width).zip(row) {
                *cell += value;
            }
        }
    }
    Array::new(&[filters, 1, to.taps, width], values)
}

/// [`resample`] for kernels `[outputs, inputs, 1, taps]`.
fn resample_columns(kernels: &Array, time: TimeKernel) -> Result<Array> {
    let [outputs, inputs, taps] = [0, 1, 3].map(|axis| kernels.shape().get(axis).copied().unwrap_or(0));
    let columns = Array::new(&[outputs * inputs, 1, taps, 1], kernels.values().to_vec())?;
    Array::new(&[outputs, inputs, 1, time.taps], resample(&columns, time)?.values().to_vec())
}

/// Kernels `[outputs, inputs, 1, taps]` from `[outputs, 1, taps, inputs]`.
fn columns_first(kernels: &Array) -> Result<Array> {
    let [outputs, taps, inputs] = [0, 2, 3].map(|axis| kernels.shape().get(axis).copied().unwrap_or(0));
    let kernels = kernels.values().chunks_exact(taps * inputs);
    let values =
        kernels.flat_map(|kernel| (0..inputs).flat_map(move |input| kernel.iter().skip(input).step_by(inputs)));
    Array::new(&[outputs, inputs, 1, taps], values.copied().collect())
}

/// The columns `chosen` of a matrix.
fn columns(matrix: &Array, chosen: &[usize]) -> Result<Array> {
    let [rows, width] = [0, 1].map(|axis| matrix.shape().get(axis).copied().unwrap_or(0));
    let values = matrix.values().chunks_exact(width).flat_map(|row| select(row, chosen)).collect();
    Array::new(&[rows, chosen.len()], values)
}

fn select(values: &[f32], chosen: &[usize]) -> Vec<f32> {
    chosen.iter().filter_map(|index| values.get(*index).copied()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::{
        Architecture, Ensemble, EnsembleFront,
        architecture::{NEGLIGIBLE_GAIN, original_tensors},
        contract::{CHUNK_CELLS, dequantize},
        ensemble::{MUSIC_BIAS, front_channels},
        import::tests::adapter,
    };

    /// Made-up weights of MusiCNN whose every third front filter has a kernel of `rest` of its strength.
    fn safetensors(rest: f32) -> Vec<u8> {
        let mut weights = Weights::default();
        let mut state = 7_u64;
        for (name, shape) in original_tensors(50) {
            let width = shape.iter().skip(1).product::<usize>();
            let values = (0..shape.iter().product::<usize>()).map(|cell| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let value = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
                let kernel = name.starts_with("front.") && name.ends_with("conv.weight");
                match name.rsplit('.').next() {
                    Some("running_var") => value.abs() + 0.5,
                    Some("weight") if width > 1 => {
                        let strength = if kernel && (cell / width) % 3 == 0 { rest } else { 1.0 };
                        strength * value / (width as f32).sqrt()
                    }
                    _ => value,
                }
            });
            let values = values.collect();
            weights.insert(&name, Array::new(&shape, values).unwrap());
        }
        weights.to_safetensors(("made", "up".to_owned())).unwrap()
    }

    /// All filters that do not answer with a constant.
    pub(crate) fn start(rest: f32, architecture: Architecture) -> EnsembleStart {
        let shape = EnsembleShape { least_gain: NEGLIGIBLE_GAIN, ..architecture.ensemble().unwrap() };
        EnsembleStart::import(&safetensors(rest), &adapter(), shape).unwrap()
    }

    /// The pooled features, before they are normalised, of a chunk in dB.
    fn pooled(start: &EnsembleStart, architecture: Architecture, chunk: Vec<f32>) -> Vec<f32> {
        let (shape, device) = (architecture.ensemble().unwrap(), Device::Cpu);
        let tensors = Member::tensors(shape, start.channels, 2);
        let tensors: Vec<Tensor> = (tensors.iter().enumerate())
            .map(|(index, (_, shape))| match start.mid.get(index) {
                Some(array) => Tensor::from_slice(array.values(), array.shape(), &device).unwrap(),
                None => Tensor::zeros(shape.as_slice(), candle_core::DType::F32, &device).unwrap(),
            })
            .collect();
        let chunk = Tensor::from_vec(chunk, (1, 128, 96), &device).unwrap();
        let channels = EnsembleFront::new(&start.front, shape, &device).unwrap().hear(&chunk).unwrap();
        let pooled = Member::from_tensors(&tensors).unwrap().pooled(&channels).unwrap();
        pooled.squeeze(0).unwrap().to_vec1().unwrap()
    }

    /// What the layers in the middle make of a chunk: the maxima and means of their channels.
    fn middle(start: &EnsembleStart, architecture: Architecture) -> Vec<f32> {
        let cells: Vec<f32> = (0..CHUNK_CELLS).map(|cell| -((cell * 31 % 79) as f32)).collect();
        let features = pooled(start, architecture, cells);
        let half = features.len() / 2;
        [&features[start.channels..half], &features[half + start.channels..]].concat()
    }

    #[test]
    fn what_constant_filters_said_is_still_heard_without_them() {
        for architecture in [Architecture::Ensemble, Architecture::Small] {
            let (all, pruned) = (start(1e-4, architecture), start(0.0, architecture));
            assert_eq!((all.channels, pruned.channels), (561, 561 - 187));
            let (all, pruned) = (middle(&all, architecture), middle(&pruned, architecture));
            assert_eq!((all.len(), pruned.len()), (384, 384));
            for (all, pruned) in all.iter().zip(&pruned) {
                assert!((all - pruned).abs() < 2e-2 * all.abs().max(1.0), "{all} {pruned}");
            }
        }
    }

    #[test]
    fn filters_with_little_gain_are_left_out_where_the_shape_says_so() {
        let shape = Architecture::Ensemble.ensemble().unwrap();
        let channels = |least_gain| {
            let shape = EnsembleShape { least_gain, ..shape };
            EnsembleStart::import(&safetensors(0.01), &adapter(), shape).unwrap().channels
        };
        assert_eq!(channels(NEGLIGIBLE_GAIN), 561);
        // Those of a hundredth of the strength, and few others.
        assert!((300..=374).contains(&channels(0.2)), "{}", channels(0.2));
        // A part keeps one filter.
        assert_eq!(channels(1e9), 5);
    }

    #[test]
    fn a_part_of_nothing_but_constants_keeps_one_filter() {
        let mut weights = original_musicnn(&safetensors(1.0)).unwrap();
        let name = "front.temporal_long.conv.weight";
        weights.insert(name, Array::new(&[51, 1, 128, 1], vec![0.0; 51 * 128]).unwrap());
        let bytes = weights.to_safetensors(("made", "up".to_owned())).unwrap();
        let shape = Architecture::Ensemble.ensemble().unwrap();
        let start = EnsembleStart::import(&bytes, &adapter(), shape).unwrap();
        assert_eq!(start.front.length("front.temporal_long.conv.bias").unwrap(), 1);
        assert_eq!(start.channels, 561 - 50);
    }

    #[test]
    fn going_on_from_a_model_forgets_what_it_took_for_music() {
        let small = ModelFolder::embedded_small().unwrap();
        assert!(small.weights().length(MUSIC_BIAS).is_ok());
        let start = EnsembleStart::of_model(&small, Architecture::Small.ensemble().unwrap()).unwrap();
        assert!(start.front.length(MUSIC_BIAS).is_err() && start.front.length("adapter.bias").is_ok());
        // Everything else is as it was.
        assert_eq!(start.features, (0..start.features.len()).collect::<Vec<_>>());
        for (name, array) in start.front.iter() {
            assert_eq!(Some(array), small.weights().iter().find(|(known, _)| *known == name).map(|(_, array)| array));
        }
        let names = Member::tensors(Architecture::Small.ensemble().unwrap(), start.channels, 10);
        for ((name, shape), array) in names.iter().zip(&start.mid) {
            assert_eq!(small.weights().get(&member_tensor(0, name), shape).unwrap(), array, "{name}");
        }
    }

    #[test]
    fn a_small_start_has_nearly_the_features_of_the_model_that_it_goes_on_from() {
        let model = ModelFolder::embedded().unwrap();
        let shape = Architecture::Small.ensemble().unwrap();
        let start = EnsembleStart::of_model(&model, shape).unwrap();
        let filters = front_channels(model.weights()).unwrap();
        assert!(start.channels < filters, "those of little gain are left out");
        assert_eq!(start.features.len(), 2 * (start.channels + 192));

        // Chords that change once a second.
        let cell = |band: usize, frame: usize| (250 - 9 * ((band * (1 + frame / 24)) % 24)) as u8;
        let chunk: Vec<u8> = (0..128).flat_map(|band| (0..96).map(move |frame| cell(band, frame))).collect();
        let known = model.manifest().network().unwrap().ensemble().unwrap();
        let expected = Ensemble::new(model.weights(), known, 10, &Device::Cpu).unwrap().features(&[&chunk]).unwrap();
        let expected = expected[0].squeeze(0).unwrap().to_vec1::<f32>().unwrap();

        let Norm::Affine { scale, shift } = &start.pool_norm else { panic!("a model's norm is applied as it is") };
        let pooled = pooled(&start, Architecture::Small, chunk.iter().map(|cell| dequantize(*cell)).collect());
        let found: Vec<f32> =
            pooled.iter().zip(scale.iter().zip(shift)).map(|(cell, (scale, shift))| cell * scale + shift).collect();
        let expected: Vec<f32> = start.features.iter().map(|feature| expected[*feature]).collect();
        let apart: f32 = found.iter().zip(&expected).map(|(found, expected)| (found - expected).powi(2)).sum();
        let all: f32 = expected.iter().map(|expected| expected.powi(2)).sum();
        assert!(apart < 0.1 * all, "{apart} of {all}");
    }

    #[test]
    fn a_kernel_that_is_cut_answers_a_steady_signal_as_before() {
        let (from, to) = (TimeKernel::resampled(7), TimeKernel::narrow(7));
        let kernels = Array::new(&[1, 1, 5, 2], (1..=10).map(|cell| cell as f32).collect()).unwrap();
        let short = cut(&kernels, from, to).unwrap();
        assert_eq!(short.shape(), [1, 1, 3, 2]);
        assert_eq!(short.values(), [1.0 + 3.0, 2.0 + 4.0, 5.0, 6.0, 7.0 + 9.0, 8.0 + 10.0]);
        assert_eq!(cut(&kernels, from, from).unwrap(), kernels);
    }

    #[test]
    fn another_file_is_an_error() {
        let shape = Architecture::Ensemble.ensemble().unwrap();
        let bytes = Weights::default().to_safetensors(("made", "up".to_owned())).unwrap();
        assert!(EnsembleStart::import(&bytes, &adapter(), shape).is_err());
        let small = ModelFolder::embedded_small().unwrap();
        assert!(EnsembleStart::of_model(&small, shape).is_err());
    }
}
