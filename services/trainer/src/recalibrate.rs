//! Fitting the normalisations of the head to other music than the backbone was trained on.

use candle_core::{Device, Tensor};
use chorale_model::{Array, EMBEDDING_FEATURES, POOLED_FEATURES, Weights};

use crate::{Result, pooled::PooledTrack};

/// A feature with less variance than this only differs by rounding.
const LEAST_VARIANCE: f64 = 1e-9;

/// Takes the means and variances of both BatchNorms of the head from `tracks`, and moves what dense inputs that never
/// change say into the bias: most of MusiCNN's filters answer with a constant.
///
/// Returns the indices of the inputs that do change.
pub(crate) fn recalibrate(weights: &mut Weights, tracks: &[PooledTrack<'_>]) -> Result<Vec<u32>> {
    let rows: Vec<(&[f32], f64)> = (tracks.iter())
        .flat_map(|track| {
            let weight = 1.0 / (track.chunks() * tracks.len()) as f64;
            track.features.chunks_exact(POOLED_FEATURES).map(move |row| (row, weight))
        })
        .collect();
    let (mean, variance) = moments(&rows, POOLED_FEATURES);
    set_moments(weights, "pool_norm", &mean, &variance)?;

    let changing: Vec<bool> = variance.iter().map(|variance| *variance > LEAST_VARIANCE).collect();
    let (scale, shift) = weights.normalization("pool_norm", POOLED_FEATURES)?;
    let dense = weights.get("dense.weight", &[EMBEDDING_FEATURES, POOLED_FEATURES])?;
    let bias = weights.get("dense.bias", &[EMBEDDING_FEATURES])?;
    let mut dense = dense.values().to_vec();
    let mut bias = bias.values().to_vec();
    for (row, bias) in dense.chunks_exact_mut(POOLED_FEATURES).zip(&mut bias) {
        let inputs = changing.iter().zip(&mean).zip(scale.iter().zip(&shift));
        for (weight, ((changes, mean), (scale, shift))) in row.iter_mut().zip(inputs) {
            if !changes {
                *bias += *weight * (*mean as f32 * scale + shift);
                *weight = 0.0;
            }
        }
    }
    weights.insert("dense.weight", Array::new(&[EMBEDDING_FEATURES, POOLED_FEATURES], dense.clone())?);
    weights.insert("dense.bias", Array::new(&[EMBEDDING_FEATURES], bias.clone())?);

    let normalized = normalize(weights, tracks)?;
    let dense = Tensor::from_vec(dense, (EMBEDDING_FEATURES, POOLED_FEATURES), &Device::Cpu)?;
    let bias = Tensor::from_vec(bias, EMBEDDING_FEATURES, &Device::Cpu)?;
    let hidden = normalized.matmul(&dense.t()?)?.broadcast_add(&bias)?.relu()?.to_vec2::<f32>()?;
    let hidden: Vec<(&[f32], f64)> =
        hidden.iter().zip(&rows).map(|(hidden, (_, weight))| (hidden.as_slice(), *weight)).collect();
    let (mean, variance) = moments(&hidden, EMBEDDING_FEATURES);
    set_moments(weights, "dense_norm", &mean, &variance)?;
    Ok((0_u32..).zip(changing).filter_map(|(index, changes)| changes.then_some(index)).collect())
}

/// The normalised features of all chunks of `tracks`, `[chunks, POOLED_FEATURES]`.
pub(crate) fn normalize(weights: &Weights, tracks: &[PooledTrack<'_>]) -> Result<Tensor> {
    let (scale, shift) = weights.normalization("pool_norm", POOLED_FEATURES)?;
    let normalized: Vec<f32> = (tracks.iter())
        .flat_map(|track| track.features.chunks_exact(POOLED_FEATURES))
        .flat_map(|row| row.iter().zip(scale.iter().zip(&shift)).map(|(cell, (scale, shift))| cell * scale + shift))
        .collect();
    let chunks = normalized.len() / POOLED_FEATURES;
    Ok(Tensor::from_vec(normalized, (chunks, POOLED_FEATURES), &Device::Cpu)?)
}

/// The mean and variance of every column of rows with weights that sum to 1.
fn moments(rows: &[(&[f32], f64)], columns: usize) -> (Vec<f64>, Vec<f64>) {
    let weighted_sum = |value: &dyn Fn(usize, f64) -> f64| {
        let mut sums = vec![0.0; columns];
        for (row, weight) in rows {
            for (column, (sum, cell)) in sums.iter_mut().zip(*row).enumerate() {
                *sum += weight * value(column, f64::from(*cell));
            }
        }
        sums
    };
    let mean = weighted_sum(&|_, cell| cell);
    let variance = weighted_sum(&|column, cell| mean.get(column).map_or(0.0, |mean| (cell - mean).powi(2)));
    (mean, variance)
}

fn set_moments(weights: &mut Weights, norm: &str, mean: &[f64], variance: &[f64]) -> Result<()> {
    for (part, values) in [("running_mean", mean), ("running_var", variance)] {
        let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        weights.insert(&format!("{norm}.{part}"), Array::new(&[values.len()], values)?);
    }
    Ok(())
}
