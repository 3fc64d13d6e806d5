//! The convolutional network that Chorale's predecessor published: ten 3×3 convolutions in pairs, and two dense layers.

use candle_core::{Device, Tensor};

use crate::{
    Result, Weights,
    contract::{CHUNK_FRAMES, FLOOR_DB, MEL_BANDS},
    convolution::convolve,
    heard::Heard,
    image::{halve, rectify},
};

/// Filters of every pair of convolutions. After each pair, the image is half as high and half as wide.
const PAIRS: [usize; 5] = [32, 64, 128, 256, 512];
const KERNEL: usize = 3;
/// Cells of the image that the dense layers see.
const FLAT: usize = 512 * (MEL_BANDS >> PAIRS.len()) * (CHUNK_FRAMES >> PAIRS.len());
/// Numbers that come out of the dense layer.
pub(crate) const DENSE: usize = 1_200;
/// The share of cells that is silenced in training after the last pool.
const POOL_DROPOUT: f32 = 0.3;
/// The share of cells that is silenced in training after the dense layer.
const DENSE_DROPOUT: f32 = 0.45;

/// The network `seed-cnn`, to listen with or to train.
pub struct SeedCnn {
    convolutions: Vec<Layer>,
    dense: Layer,
    genres: Layer,
}

struct Layer {
    weight: Tensor,
    bias: Tensor,
}

impl SeedCnn {
    /// Puts `weights`, with `labels` outputs, onto `device`.
    ///
    /// # Errors
    /// Where a tensor is missing or has a wrong shape, or the device is out of memory.
    pub fn new(weights: &Weights, labels: usize, device: &Device) -> Result<Self> {
        let tensors = Self::tensors(labels).into_iter().map(|(name, shape)| {
            let array = weights.get(&name, &shape)?;
            Ok(Tensor::from_slice(array.values(), shape, device)?)
        });
        Self::from_tensors(&tensors.collect::<Result<Vec<_>>>()?)
    }

    /// The network of these tensors, which must be those of [`SeedCnn::tensors`]. Variables stay variables.
    ///
    /// # Errors
    /// Where their number is another one.
    pub fn from_tensors(tensors: &[Tensor]) -> Result<Self> {
        let mut layers: Vec<Layer> = (tensors.as_chunks::<2>().0.iter())
            .map(|[weight, bias]| Layer { weight: weight.clone(), bias: bias.clone() })
            .collect();
        match (layers.pop(), layers.pop()) {
            (Some(genres), Some(dense)) if layers.len() == 2 * PAIRS.len() => {
                Ok(Self { convolutions: layers, dense, genres })
            }
            _ => Err(candle_core::Error::msg("seed-cnn: another number of tensors is needed").into()),
        }
    }

    /// The name and shape of every tensor of a network with `labels` labels, in order: weights `[outputs, inputs, …]`, and
    /// then biases `[outputs]`, layer by layer.
    #[must_use]
    pub fn tensors(labels: usize) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Vec::new();
        let mut inputs = 1;
        for (index, outputs) in PAIRS.into_iter().flat_map(|filters| [filters, filters]).enumerate() {
            shapes.push((format!("conv.{index}"), vec![outputs, inputs, KERNEL, KERNEL]));
            inputs = outputs;
        }
        shapes.push(("dense".to_owned(), vec![DENSE, FLAT]));
        shapes.push(("genres".to_owned(), vec![labels, DENSE]));
        let layer = |(name, shape): (String, Vec<usize>)| {
            let outputs = shape.first().copied().unwrap_or(0);
            [(format!("{name}.weight"), shape), (format!("{name}.bias"), vec![outputs])]
        };
        shapes.into_iter().flat_map(layer).collect()
    }

    /// Multiplications with an addition that one chunk takes.
    pub(crate) fn multiply_accumulates(labels: usize) -> usize {
        let (mut cells, mut sum) = (MEL_BANDS * CHUNK_FRAMES, 0);
        for (index, (_, shape)) in Self::tensors(labels).iter().filter(|(_, shape)| shape.len() > 1).enumerate() {
            if index == 2 * PAIRS.len() {
                cells = 1;
            }
            sum += shape.iter().product::<usize>() * cells;
            if index < 2 * PAIRS.len() && index % 2 == 1 {
                cells /= 4;
            }
        }
        sum
    }

    /// The logits `[batch, labels]` of chunks `[batch, MEL_BANDS, CHUNK_FRAMES]` in dB below the loudest cell.
    ///
    /// `silence` is given a tensor and the share of its cells that training silences; to listen, it gives the tensor back.
    ///
    /// # Errors
    /// Where the shape is another one, or the device fails.
    pub fn logits(
        &self,
        chunks: &Tensor,
        mut silence: impl FnMut(Tensor, f32) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let hidden = self.hidden(chunks, &mut silence)?;
        self.genres.forward(&silence(hidden, DENSE_DROPOUT)?)
    }

    /// What comes out of the dense layer, `[batch, DENSE]`: see [`SeedCnn::logits`].
    fn hidden(
        &self,
        chunks: &Tensor,
        silence: &mut impl FnMut(Tensor, f32) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let mut image = chunks.affine(1.0 / f64::from(-FLOOR_DB), 1.0)?.unsqueeze(1)?;
        for pair in self.convolutions.chunks(2) {
            for layer in pair {
                image = rectify(&convolve(&image, &layer.weight)?, &layer.bias)?;
            }
            image = halve(&image)?;
        }
        let flat = silence(image.flatten_from(1)?, POOL_DROPOUT)?;
        Ok(self.dense.forward(&flat)?.relu()?)
    }

    /// What it makes of each chunk of `[MEL_BANDS, batch · frames]` dB below the loudest cell. The embedding is what comes out of
    /// the dense layer.
    pub(crate) fn listen(&self, decibels: &Tensor, want_embeddings: bool) -> Result<Vec<Heard>> {
        let chunks = decibels.reshape((MEL_BANDS, (), CHUNK_FRAMES))?.transpose(0, 1)?.contiguous()?;
        let hidden = self.hidden(&chunks, &mut |tensor, _| Ok(tensor))?;
        Heard::of_batch(&self.genres.forward(&hidden)?, want_embeddings.then_some(&hidden))
    }
}

impl Layer {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        // The product is this way round so that the weight's gradient needs no transposition.
        Ok(self.weight.matmul(&input.t()?)?.t()?.broadcast_add(&self.bias)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Architecture, Array, Classifier, DeviceSpec, Manifest, ModelFolder, contract::CHUNK_CELLS};

    fn folder() -> ModelFolder {
        let mut weights = Weights::default();
        for (name, shape) in SeedCnn::tensors(10) {
            let cells: usize = shape.iter().product();
            let reach = (6.0 / shape.iter().skip(1).product::<usize>() as f32).sqrt();
            let values = (0..cells).map(|cell| reach * (((cell * 7_919) % 1_009) as f32 / 504.5 - 1.0)).collect();
            weights.insert(&name, Array::new(&shape, values).unwrap());
        }
        let manifest = Manifest {
            architecture: Architecture::SeedCnn.name().to_owned(),
            ..ModelFolder::embedded().unwrap().manifest().clone()
        };
        ModelFolder::new(manifest, weights, String::new()).unwrap()
    }

    #[test]
    fn it_has_the_published_size() {
        let cells = SeedCnn::tensors(10).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>();
        assert_eq!(cells, 12_097_658);
    }

    #[test]
    fn a_model_is_saved_loaded_and_heard_and_does_not_depend_on_the_batch() {
        let place = tempfile::tempdir().unwrap();
        folder().save(place.path()).unwrap();
        let model = ModelFolder::load(place.path()).unwrap();
        assert_eq!(model, folder());
        let classifier = Classifier::load(&model, DeviceSpec::Cpu).unwrap();
        let chunks: Vec<Vec<u8>> =
            (1..=3).map(|seed| (0..CHUNK_CELLS).map(|cell| (cell * seed * 31 % 251) as u8).collect()).collect();
        let batch: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let together = classifier.answers(&batch, true).unwrap();
        let close = |one: &[f32], other: &[f32]| one.iter().zip(other).all(|(one, other)| (one - other).abs() < 1e-5);
        for (chunk, expected) in batch.iter().zip(&together) {
            let alone = classifier.answers(&[chunk], true).unwrap().remove(0);
            assert!(close(&alone.probabilities, &expected.probabilities));
            assert!(close(&alone.embedding, &expected.embedding));
            assert_eq!(alone.embedding.len(), model.embedding_length().unwrap());
            assert!(alone.embedding.iter().any(|value| *value > 0.0));
        }
        assert_ne!(together[0], together[1]);
        assert!(classifier.classify(&[&[0; 5]]).is_err());
    }

    #[test]
    fn weights_of_the_other_network_are_refused() {
        let (seed, musicnn) = (folder(), ModelFolder::embedded().unwrap());
        let error = ModelFolder::new(seed.manifest().clone(), musicnn.weights().clone(), String::new()).unwrap_err();
        assert_eq!(error.to_string(), "the weights have no tensor `conv.0.bias`");
        assert!(ModelFolder::new(musicnn.manifest().clone(), seed.weights().clone(), String::new()).is_err());
        assert!(SeedCnn::from_tensors(&[]).is_err());
    }
}
