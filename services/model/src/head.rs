//! From pooled features to genres: two dense layers.

use candle_core::{Device, Tensor};

use crate::{EMBEDDING_FEATURES, POOLED_FEATURES, Result, Weights};

/// The trained part of the network, on one device.
pub struct Head {
    /// BatchNorm of the pooled features: `[POOLED_FEATURES]`.
    pool_norm: Affine,
    dense: Dense,
    /// BatchNorm of the embedding: `[EMBEDDING_FEATURES]`.
    dense_norm: Affine,
    genres: Dense,
}

impl Head {
    /// Puts the head of `weights`, with `labels` outputs, onto `device`.
    ///
    /// # Errors
    /// Where a tensor is missing or has a wrong shape, or the device is out of memory.
    pub fn new(weights: &Weights, labels: usize, device: &Device) -> Result<Self> {
        Ok(Self {
            pool_norm: Affine::normalization(weights, "pool_norm", POOLED_FEATURES, device)?,
            dense: Dense::new(weights, "dense", POOLED_FEATURES, EMBEDDING_FEATURES, device)?,
            dense_norm: Affine::normalization(weights, "dense_norm", EMBEDDING_FEATURES, device)?,
            genres: Dense::new(weights, "genres", EMBEDDING_FEATURES, labels, device)?,
        })
    }

    /// The embedding `[batch, EMBEDDING_FEATURES]` of pooled features `[batch, POOLED_FEATURES]`.
    ///
    /// # Errors
    /// Where the device fails, or the shape is another one.
    pub fn embedding(&self, pooled: &Tensor) -> Result<Tensor> {
        self.dense_norm.forward(&self.dense.forward(&self.pool_norm.forward(pooled)?)?.relu()?)
    }

    /// The logits `[batch, labels]` of pooled features `[batch, POOLED_FEATURES]`.
    ///
    /// # Errors
    /// Where the device fails, or the shape is another one.
    pub fn logits(&self, pooled: &Tensor) -> Result<Tensor> {
        self.genres.forward(&self.embedding(pooled)?)
    }
}

/// The softmax of `logits / temperature`: probabilities that sum to 1.
#[must_use]
pub fn probabilities(logits: &[f32], temperature: f64) -> Vec<f32> {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (f64::from(logit - greatest) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

/// `x · scale + shift`, both `[1, features]`.
struct Affine {
    scale: Tensor,
    shift: Tensor,
}

impl Affine {
    fn normalization(weights: &Weights, name: &str, features: usize, device: &Device) -> Result<Self> {
        let (scale, shift) = weights.normalization(name, features)?;
        Ok(Self {
            scale: Tensor::from_vec(scale, (1, features), device)?,
            shift: Tensor::from_vec(shift, (1, features), device)?,
        })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        Ok(input.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)?)
    }
}

/// A fully connected layer.
struct Dense {
    /// `[inputs, outputs]`
    weight: Tensor,
    /// `[1, outputs]`
    bias: Tensor,
}

impl Dense {
    fn new(weights: &Weights, name: &str, inputs: usize, outputs: usize, device: &Device) -> Result<Self> {
        let weight = weights.get(&format!("{name}.weight"), &[outputs, inputs])?.values();
        let bias = weights.get(&format!("{name}.bias"), &[outputs])?.values();
        Ok(Self {
            weight: Tensor::from_slice(weight, (outputs, inputs), device)?.t()?.contiguous()?,
            bias: Tensor::from_slice(bias, (1, outputs), device)?,
        })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        Ok(input.matmul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_flatten_with_temperature() {
        let logits = [2.0, -1.0, 0.5];
        let sharp = probabilities(&logits, 0.5);
        let flat = probabilities(&logits, 4.0);
        for probabilities in [&sharp, &flat] {
            assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
        assert!(sharp[0] > flat[0] && sharp[1] < flat[1]);
        assert_eq!(probabilities(&[1e30, 0.0], 1.0), [1.0, 0.0]);
    }
}
