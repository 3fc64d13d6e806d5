//! Named arrays of 32-bit floats in host memory, and the safetensors files that they come from.

use std::collections::{BTreeMap, HashMap};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Architecture, ModelError, Result, architecture};

/// One array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Array {
    /// An array of `shape` that holds `values`, row-major.
    ///
    /// # Errors
    /// [`ModelError::ArraySize`] where their numbers differ.
    pub fn new(shape: &[usize], values: Vec<f32>) -> Result<Self> {
        if shape.iter().product::<usize>() != values.len() {
            return Err(ModelError::ArraySize { shape: shape.to_vec(), values: values.len() });
        }
        Ok(Self { shape: shape.to_vec(), values })
    }

    /// The length of every dimension, the slowest first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, row-major.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// The arrays of a network by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    arrays: BTreeMap<String, Array>,
}

impl Weights {
    /// Reads a safetensors file that holds nothing but finite 32-bit floats, and its metadata.
    ///
    /// # Errors
    /// [`ModelError::Safetensors`], [`ModelError::TensorType`] or [`ModelError::NotFinite`].
    pub fn from_safetensors(bytes: &[u8]) -> Result<(Self, HashMap<String, String>)> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let mut weights = Self::default();
        for (name, view) in SafeTensors::deserialize(bytes)?.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(ModelError::TensorType { name: name.to_owned(), found: format!("{:?}", view.dtype()) });
            }
            let (cells, _) = view.data().as_chunks::<4>();
            let values: Vec<f32> = cells.iter().map(|cell| f32::from_le_bytes(*cell)).collect();
            if !values.iter().all(|value| value.is_finite()) {
                return Err(ModelError::NotFinite(name.to_owned()));
            }
            weights.insert(name, Array { shape: view.shape().to_vec(), values });
        }
        Ok((weights, metadata))
    }

    /// Writes a safetensors file with `metadata`. Equal weights and metadata give equal bytes.
    ///
    /// # Errors
    /// [`ModelError::Safetensors`], for names or shapes that the format cannot hold.
    pub fn to_safetensors(&self, metadata: (&str, String)) -> Result<Vec<u8>> {
        let bytes: BTreeMap<&str, Vec<u8>> = (self.arrays.iter())
            .map(|(name, array)| (name.as_str(), array.values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            .collect();
        let views = (self.arrays.values().zip(&bytes))
            .map(|(array, (name, data))| Ok((*name, TensorView::new(Dtype::F32, array.shape.clone(), data)?)))
            .collect::<Result<Vec<_>>>()?;
        // One entry only: a `HashMap` of several would be written in another order every time.
        let (key, value) = metadata;
        Ok(safetensors::serialize(views, Some(HashMap::from([(key.to_owned(), value)])))?)
    }

    /// Adds an array, or replaces the one of this name.
    pub fn insert(&mut self, name: &str, array: Array) {
        self.arrays.insert(name.to_owned(), array);
    }

    /// Removes and returns the array of this name.
    pub fn remove(&mut self, name: &str) -> Option<Array> {
        self.arrays.remove(name)
    }

    /// The arrays and their names, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Array)> {
        self.arrays.iter().map(|(name, array)| (name.as_str(), array))
    }

    /// The array of this name, which must have this shape.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] or [`ModelError::Shape`].
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<&Array> {
        let array = self.arrays.get(name).ok_or_else(|| ModelError::MissingTensor(name.to_owned()))?;
        if array.shape != shape {
            return Err(ModelError::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: array.shape.clone(),
            });
        }
        Ok(array)
    }

    /// The first dimension of the array of this name.
    pub(crate) fn length(&self, name: &str) -> Result<usize> {
        let array = self.arrays.get(name).ok_or_else(|| ModelError::MissingTensor(name.to_owned()))?;
        Ok(array.shape.first().copied().unwrap_or(0))
    }

    /// Checks that the arrays are those of `architecture` with `labels` labels, no more and no fewer.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::Shape`] or [`ModelError::UnknownTensor`].
    pub fn check(&self, architecture: Architecture, labels: usize) -> Result<()> {
        let expected = architecture.tensors(self, labels)?;
        for (name, shape) in &expected {
            self.get(name, shape)?;
        }
        match self.arrays.keys().find(|name| !expected.contains_key(*name)) {
            Some(name) => Err(ModelError::UnknownTensor(name.clone())),
            None => Ok(()),
        }
    }

    /// The weight and bias that replace the normalisation `name` over `channels` channels:
    /// `x · scale + shift` is `(x − mean) / √(variance + ε) · weight + bias`.
    ///
    /// # Errors
    /// Where a part is missing or has a wrong shape, or a variance is negative.
    pub fn normalization(&self, name: &str, channels: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let part = |part: &str| self.get(&format!("{name}.{part}"), &[channels]).map(Array::values);
        let (weight, bias, mean, variance) =
            (part("weight")?, part("bias")?, part("running_mean")?, part("running_var")?);
        if variance.iter().any(|variance| *variance < 0.0) {
            return Err(ModelError::NegativeVariance(format!("{name}.running_var")));
        }
        let scale: Vec<f32> = (weight.iter().zip(variance))
            .map(|(weight, variance)| weight / (variance + architecture::NORM_EPSILON).sqrt())
            .collect();
        let shift = (bias.iter().zip(mean).zip(&scale)).map(|((bias, mean), scale)| bias - mean * scale).collect();
        Ok((scale, shift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Weights {
        let mut weights = Weights::default();
        weights.insert("b", Array::new(&[2, 3], vec![1.0, -2.0, 3.5, 0.0, 1e-20, 6.0]).unwrap());
        weights.insert("a", Array::new(&[1], vec![7.0]).unwrap());
        weights
    }

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let bytes = sample().to_safetensors(("key", "value".to_owned())).unwrap();
        let (weights, metadata) = Weights::from_safetensors(&bytes).unwrap();
        assert_eq!(weights, sample());
        assert_eq!(metadata["key"], "value");
        assert_eq!(bytes, weights.to_safetensors(("key", "value".to_owned())).unwrap());
    }

    #[test]
    fn a_value_that_is_not_finite_is_an_error() {
        for value in [f32::NAN, f32::INFINITY] {
            let mut weights = sample();
            weights.insert("c", Array::new(&[1], vec![value]).unwrap());
            let bytes = weights.to_safetensors(("key", String::new())).unwrap();
            assert!(matches!(Weights::from_safetensors(&bytes), Err(ModelError::NotFinite(name)) if name == "c"));
        }
    }

    #[test]
    fn another_type_is_an_error() {
        let view = TensorView::new(Dtype::F16, vec![1], &[0, 0]).unwrap();
        let bytes = safetensors::serialize([("half", view)], None).unwrap();
        assert!(matches!(Weights::from_safetensors(&bytes), Err(ModelError::TensorType { .. })));
    }

    #[test]
    fn no_prefix_of_a_file_and_no_flipped_byte_panics() {
        let bytes = sample().to_safetensors(("key", "value".to_owned())).unwrap();
        for length in 0..bytes.len() {
            assert!(Weights::from_safetensors(&bytes[..length]).is_err(), "{length} bytes");
        }
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0xff;
            let _ = Weights::from_safetensors(&damaged);
        }
    }

    #[test]
    fn a_wrong_shape_names_both() {
        let error = sample().get("b", &[3, 2]).unwrap_err().to_string();
        assert_eq!(error, "tensor `b`: expected shape [3, 2], found [2, 3]");
        assert_eq!(sample().get("z", &[1]).unwrap_err().to_string(), "the weights have no tensor `z`");
        assert!(Array::new(&[2, 2], vec![0.0; 3]).is_err());
    }
}
