//! From the published weights of MusiCNN to what an ensemble starts from: its front end, and the layers of a member.

use crate::{
    Adapter, Array, EMBEDDING_FEATURES, EnsembleShape, Member, ModelFolder, Result, Weights,
    architecture::{FRONT_CHANNELS, FrontPart, MID_CHANNELS, POOLED_FEATURES, mid_inputs, mid_layers},
    ensemble::{MEMBERS, MUSIC_BIAS, MUSIC_WEIGHT, front_channels, member_tensor},
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
    /// Goes on from the first member of a model of this shape.
    ///
    /// # Errors
    /// Where the model is of another shape.
    pub fn of_model(model: &ModelFolder, shape: EnsembleShape) -> Result<Self> {
        let weights = model.weights();
        let mut front = Weights::default();
        // What tells music belongs to the features that the members had, not to those that they will come to.
        let stays = |name: &str| !(name.starts_with(MEMBERS) || [MUSIC_WEIGHT, MUSIC_BIAS].contains(&name));
        for (name, array) in weights.iter().filter(|(name, _)| stays(name)) {
            front.insert(name, array.clone());
        }
        let channels = front_channels(&front)?;
        let tensors = Member::tensors(shape, channels, model.manifest().labels.len());
        let tensor = |wanted: &str| -> Result<Array> {
            let shape = tensors.iter().find(|(name, _)| *name == wanted).map(|(_, shape)| shape.as_slice());
            Ok(weights.get(&member_tensor(0, wanted), shape.unwrap_or_default())?.clone())
        };
        let mid = tensors.iter().filter(|(name, _)| name.starts_with("mid.")).map(|(name, _)| tensor(name));
        let values = |wanted: &str| Ok::<_, crate::ModelError>(tensor(wanted)?.values().to_vec());
        let norm = |name: &str| -> Result<Norm> {
            Ok(Norm::Affine { scale: values(&format!("{name}.scale"))?, shift: values(&format!("{name}.shift"))? })
        };
        Ok(Self {
            front,
            channels,
            mid: mid.collect::<Result<_>>()?,
            pool_norm: norm("pool")?,
            dense_weight: tensor("dense.weight")?,
            dense_bias: tensor("dense.bias")?,
            dense_norm: norm("dense_norm")?,
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
        for part in ["weight", "bias", "running_mean", "running_var"] {
            let name = format!("input_norm.{part}");
            front.insert(&name, original.get(&name, &[1])?.clone());
        }
        let (mut live, mut constants) = (Vec::new(), vec![0.0_f32; FRONT_CHANNELS]);
        let mut first_channel = 0;
        for part in shape.front.parts() {
            let kept = prune(
                &original,
                part,
                shape.least_gain,
                &mut front,
                constants.get_mut(first_channel..).unwrap_or_default(),
            )?;
            live.extend(kept.iter().map(|filter| first_channel + filter));
            first_channel += part.filters;
        }

        let mut mid = Vec::new();
        for (layer, name) in mid_layers().iter().enumerate() {
            let inputs = mid_inputs(layer);
            let kernels = original.get(&format!("{name}.conv.weight"), &[MID_CHANNELS, 1, 7, inputs])?;
            let time = shape.middle;
            let kernels = if time.taps == time.original_taps { kernels.clone() } else { resample(kernels, time)? };
            let (live, constants) = if layer == 0 { (Some(live.as_slice()), &*constants) } else { (None, &[][..]) };
            mid.push(columns_first(&kernels, time.taps, live, constants)?);
            mid.push(original.get(&format!("{name}.conv.bias"), &[MID_CHANNELS])?.clone());
            let (scale, shift) = original.normalization(&format!("{name}.norm"), MID_CHANNELS)?;
            mid.extend([Array::new(&[MID_CHANNELS], scale)?, Array::new(&[MID_CHANNELS], shift)?]);
        }

        // MusiCNN interleaves the maximum and the mean of every channel; a member has all maxima first.
        let channels = || live.iter().copied().chain(FRONT_CHANNELS..POOLED_FEATURES / 2);
        let features: Vec<usize> =
            channels().map(|channel| 2 * channel).chain(channels().map(|channel| 2 * channel + 1)).collect();
        let select = |row: &[f32]| features.iter().filter_map(|feature| row.get(*feature).copied()).collect::<Vec<_>>();
        let values = |name: &str, length| original.get(name, &[length]).map(Array::values);
        let dense = original.get("dense.weight", &[EMBEDDING_FEATURES, POOLED_FEATURES])?;
        let dense = dense.values().chunks_exact(POOLED_FEATURES).flat_map(select).collect();
        Ok(Self {
            front,
            channels: live.len(),
            mid,
            pool_norm: Norm::Outcome {
                gain: select(values("pool_norm.weight", POOLED_FEATURES)?),
                offset: select(values("pool_norm.bias", POOLED_FEATURES)?),
            },
            dense_weight: Array::new(&[EMBEDDING_FEATURES, features.len()], dense)?,
            dense_bias: original.get("dense.bias", &[EMBEDDING_FEATURES])?.clone(),
            dense_norm: Norm::Outcome {
                gain: values("dense_norm.weight", EMBEDDING_FEATURES)?.to_vec(),
                offset: values("dense_norm.bias", EMBEDDING_FEATURES)?.to_vec(),
            },
        })
    }
}

/// Adds the live filters of a part to `front`, at our frame rate, and the answers of the others to `constants`. Returns
/// which ones are live: at least one.
fn prune(
    original: &Weights,
    part: FrontPart,
    least_gain: f32,
    front: &mut Weights,
    constants: &mut [f32],
) -> Result<Vec<usize>> {
    let name = format!("front.{}", part.name);
    let known = filters(original, &name, [part.time.original_taps, part.bands], <[f32]>::to_vec)?;
    let mut live: Vec<usize> =
        (0_usize..).zip(&known).filter(|(_, filter)| filter.gain() >= least_gain).map(|(index, _)| index).collect();
    if live.is_empty() {
        live.push(0);
    }
    for ((index, filter), constant) in known.iter().enumerate().zip(constants) {
        *constant = if live.contains(&index) { 0.0 } else { filter.bias.max(0.0) * filter.scale + filter.shift };
    }
    let rows = |array: &Array, width: usize| {
        let rows = live.iter().filter_map(|index| array.values().chunks_exact(width).nth(*index));
        rows.flatten().copied().collect::<Vec<f32>>()
    };
    let kernel = format!("{name}.conv.weight");
    let kernels = original.get(&kernel, &[part.filters, 1, part.time.original_taps, part.bands])?;
    let kernels = rows(&resample(kernels, part.time)?, part.time.taps * part.bands);
    front.insert(&kernel, Array::new(&[live.len(), 1, part.time.taps, part.bands], kernels)?);
    for tensor in ["conv.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"] {
        let tensor = format!("{name}.{tensor}");
        let values = rows(original.get(&tensor, &[part.filters])?, 1);
        front.insert(&tensor, Array::new(&[live.len()], values)?);
    }
    Ok(live)
}

/// Kernels `[outputs, inputs, 1, taps]` from `[outputs, 1, taps, inputs]`. Where only some inputs are `live`, one more
/// input stands for all others: it is 1 everywhere, and they are `constants`.
fn columns_first(kernels: &Array, taps: usize, live: Option<&[usize]>, constants: &[f32]) -> Result<Array> {
    let inputs = kernels.shape().last().copied().unwrap_or(0);
    let all: Vec<usize> = (0..inputs).collect();
    let kept = live.unwrap_or(&all);
    let mut values = Vec::new();
    for kernel in kernels.values().chunks_exact(taps * inputs) {
        for input in kept {
            values.extend(kernel.iter().skip(*input).step_by(inputs));
        }
        if live.is_some() {
            let rest = |row: &[f32]| row.iter().zip(constants).map(|(tap, constant)| tap * constant).sum::<f32>();
            values.extend(kernel.chunks_exact(inputs).map(rest));
        }
    }
    let inputs = kept.len() + usize::from(live.is_some());
    Array::new(&[MID_CHANNELS, inputs, 1, taps], values)
}

#[cfg(test)]
pub(crate) mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::{
        Architecture, EnsembleFront,
        architecture::{NEGLIGIBLE_GAIN, original_tensors},
        contract::CHUNK_CELLS,
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

    /// What the layers in the middle make of a chunk: the maxima and means of their channels.
    fn middle(start: &EnsembleStart, architecture: Architecture) -> Vec<f32> {
        let shape = architecture.ensemble().unwrap();
        let device = Device::Cpu;
        let tensors = Member::tensors(shape, start.channels, 2);
        let tensors: Vec<Tensor> = (tensors.iter().enumerate())
            .map(|(index, (_, shape))| match start.mid.get(index) {
                Some(array) => Tensor::from_slice(array.values(), array.shape(), &device).unwrap(),
                None => Tensor::zeros(shape.as_slice(), candle_core::DType::F32, &device).unwrap(),
            })
            .collect();
        let cells: Vec<f32> = (0..CHUNK_CELLS).map(|cell| -((cell * 31 % 79) as f32)).collect();
        let chunk = Tensor::from_vec(cells, (1, 128, 96), &device).unwrap();
        let channels = EnsembleFront::new(&start.front, shape, &device).unwrap().hear(&chunk).unwrap();
        let pooled = Member::from_tensors(&tensors).unwrap().pooled(&channels).unwrap();
        let features = pooled.squeeze(0).unwrap().to_vec1::<f32>().unwrap();
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
