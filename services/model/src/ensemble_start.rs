//! From the published weights of MusiCNN to what an ensemble starts from: its front end, and the layers of a member.

use crate::{
    Adapter, Array, EMBEDDING_FEATURES, EnsembleShape, Member, ModelFolder, Result, Weights,
    architecture::{
        FRONT_CHANNELS, FrontPart, MID_CHANNELS, POOLED_FEATURES, SHORT_TIME, TEMPORAL, TIMBRAL, mid_inputs, mid_layers,
    },
    ensemble::{MEMBERS, front_channels, member_tensor},
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
    /// What BatchNorm makes of a pooled feature of mean 0 and variance 1: times the first, plus the second.
    pub pool_norm: [Vec<f32>; 2],
    /// The dense layer's weight, `[EMBEDDING_FEATURES, pooled features]`, for pooled features after BatchNorm.
    pub dense_weight: Array,
    /// Its bias.
    pub dense_bias: Array,
    /// As `pool_norm`, for the dense layer's answer.
    pub dense_norm: [Vec<f32>; 2],
}

impl EnsembleStart {
    /// Goes on from the first member of a model of this shape.
    ///
    /// # Errors
    /// Where the model is of another shape.
    pub fn of_model(model: &ModelFolder, shape: EnsembleShape) -> Result<Self> {
        let weights = model.weights();
        let mut front = Weights::default();
        for (name, array) in weights.iter().filter(|(name, _)| !name.starts_with(MEMBERS)) {
            front.insert(name, array.clone());
        }
        let channels = front_channels(&front)?;
        let tensors = Member::tensors(shape, channels, model.manifest().labels.len());
        let tensor = |wanted: &str| -> Result<Array> {
            let shape = tensors.iter().find(|(name, _)| *name == wanted).map(|(_, shape)| shape.as_slice());
            Ok(weights.get(&member_tensor(0, wanted), shape.unwrap_or_default())?.clone())
        };
        let mid = tensors.iter().filter(|(name, _)| name.starts_with("mid.")).map(|(name, _)| tensor(name));
        let dense_weight = tensor("dense.weight")?;
        let neutral = |features: usize| [vec![1.0; features], vec![0.0; features]];
        Ok(Self {
            front,
            channels,
            mid: mid.collect::<Result<_>>()?,
            pool_norm: neutral(dense_weight.shape().last().copied().unwrap_or(0)),
            dense_weight,
            dense_bias: tensor("dense.bias")?,
            dense_norm: neutral(EMBEDDING_FEATURES),
        })
    }

    /// Reads the published weights of MusiCNN (a safetensors file), and leaves the filters out that answer with a constant.
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
        for part in TIMBRAL.into_iter().chain(TEMPORAL) {
            let kept = prune(&original, part, &mut front, constants.get_mut(first_channel..).unwrap_or_default())?;
            live.extend(kept.iter().map(|filter| first_channel + filter));
            first_channel += part.filters;
        }

        let mut mid = Vec::new();
        for (layer, name) in mid_layers().iter().enumerate() {
            let inputs = mid_inputs(layer);
            let kernels = original.get(&format!("{name}.conv.weight"), &[MID_CHANNELS, 1, 7, inputs])?;
            let kernels = if shape.taps == SHORT_TIME.taps { resample(kernels, SHORT_TIME)? } else { kernels.clone() };
            let (live, constants) = if layer == 0 { (Some(live.as_slice()), &*constants) } else { (None, &[][..]) };
            mid.push(columns_first(&kernels, shape.taps, live, constants)?);
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
            pool_norm: [
                select(values("pool_norm.weight", POOLED_FEATURES)?),
                select(values("pool_norm.bias", POOLED_FEATURES)?),
            ],
            dense_weight: Array::new(&[EMBEDDING_FEATURES, features.len()], dense)?,
            dense_bias: original.get("dense.bias", &[EMBEDDING_FEATURES])?.clone(),
            dense_norm: [
                values("dense_norm.weight", EMBEDDING_FEATURES)?.to_vec(),
                values("dense_norm.bias", EMBEDDING_FEATURES)?.to_vec(),
            ],
        })
    }
}

/// Adds the live filters of a part to `front`, at our frame rate, and the answers of the others to `constants`. Returns
/// which ones are live: at least one.
fn prune(original: &Weights, part: FrontPart, front: &mut Weights, constants: &mut [f32]) -> Result<Vec<usize>> {
    let name = format!("front.{}", part.name);
    let known = filters(original, &name, [part.time.original_taps, part.bands], <[f32]>::to_vec)?;
    let mut live: Vec<usize> =
        (0_usize..).zip(&known).filter(|(_, filter)| !filter.is_constant()).map(|(index, _)| index).collect();
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
