//! MusiCNN's mel bands from ours: each is a mean of the few that lie around it.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};

use crate::{
    Weights,
    architecture::BANDS,
    contract::{CHUNK_FRAMES, MEL_BANDS},
    unfold::contiguous,
};

/// What every band of the network's is made of.
pub(crate) struct Bands {
    rows: Vec<Row>,
    /// `[BANDS, MEL_BANDS]` and `[BANDS, 1]`, where a matrix product is quicker: not on the CPU.
    dense: Option<(Tensor, Tensor)>,
}

/// A row of the matrix, without the zeros at its ends.
struct Row {
    first: usize,
    weights: Vec<f32>,
    bias: f32,
}

impl Bands {
    pub(crate) fn new(weights: &Weights, device: &Device) -> crate::Result<Self> {
        let weight = weights.get("adapter.weight", &[BANDS, MEL_BANDS])?.values();
        let bias = weights.get("adapter.bias", &[BANDS])?.values();
        let dense = match device {
            Device::Cpu => None,
            _ => Some((
                Tensor::from_slice(weight, (BANDS, MEL_BANDS), device)?,
                Tensor::from_slice(bias, (BANDS, 1), device)?,
            )),
        };
        let rows = weight.chunks_exact(MEL_BANDS).zip(bias).map(|(row, bias)| {
            let first = row.iter().position(|weight| *weight != 0.0).unwrap_or(0);
            let end = row.iter().rposition(|weight| *weight != 0.0).map_or(first, |last| last + 1);
            Row { first, weights: row[first..end].to_vec(), bias: *bias }
        });
        Ok(Self { rows: rows.collect(), dense })
    }

    /// Multiplications with an addition in a chunk.
    pub(crate) fn multiply_accumulates(&self) -> usize {
        CHUNK_FRAMES * self.rows.iter().map(|row| row.weights.len()).sum::<usize>()
    }

    /// The network's bands `[BANDS, columns]` of ours, `[MEL_BANDS, columns]`, both in dB. No gradients are known.
    pub(crate) fn forward(&self, decibels: &Tensor) -> Result<Tensor> {
        match &self.dense {
            Some((weight, bias)) => weight.matmul(decibels)?.broadcast_add(bias),
            None => decibels.contiguous()?.apply_op1_no_bwd(self),
        }
    }

    /// The same of cells in memory.
    pub(crate) fn mix(&self, decibels: &[f32], columns: usize) -> Vec<f32> {
        let mut mixed = Vec::with_capacity(self.rows.len() * columns);
        for row in &self.rows {
            let start = mixed.len();
            mixed.resize(start + columns, row.bias);
            let seen = decibels.chunks_exact(columns.max(1)).skip(row.first);
            for (weight, seen) in row.weights.iter().zip(seen) {
                for (sum, cell) in mixed[start..].iter_mut().zip(seen) {
                    *sum += weight * cell;
                }
            }
        }
        mixed
    }
}

impl CustomOp1 for Bands {
    fn name(&self) -> &'static str {
        "bands"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (bands, columns) = layout.shape().dims2()?;
        if bands != MEL_BANDS {
            bail!("bands: expected {MEL_BANDS} bands, found {bands}");
        }
        let mixed = self.mix(contiguous(storage, layout, self.name())?, columns);
        Ok((CpuStorage::F32(mixed), Shape::from((self.rows.len(), columns))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, ModelFolder};

    #[test]
    fn bands_are_those_of_the_whole_matrix() {
        let shipped = ModelFolder::embedded().unwrap().weights().clone();
        let mut other = shipped.clone();
        // Rows of every length, with zeros in between, and one of nothing but zeros.
        let weight = (0..BANDS * MEL_BANDS).map(|cell| {
            let (row, column) = (cell / MEL_BANDS, cell % MEL_BANDS);
            if column >= row && column < 2 * row && cell % 3 > 0 { (cell % 17) as f32 / 17.0 - 0.5 } else { 0.0 }
        });
        other.insert("adapter.weight", Array::new(&[BANDS, MEL_BANDS], weight.collect()).unwrap());
        for weights in [shipped, other] {
            let cells = (0..MEL_BANDS * 7).map(|cell| -((cell * 31 % 79) as f32)).collect();
            let decibels = Tensor::from_vec(cells, (MEL_BANDS, 7), &Device::Cpu).unwrap();
            let values = |name: &str, shape: &[usize]| {
                Tensor::from_slice(weights.get(name, shape).unwrap().values(), shape, &Device::Cpu).unwrap()
            };
            let whole = values("adapter.weight", &[BANDS, MEL_BANDS]).matmul(&decibels).unwrap();
            let whole = whole.broadcast_add(&values("adapter.bias", &[BANDS]).unsqueeze(1).unwrap()).unwrap();
            let ours = Bands::new(&weights, &Device::Cpu).unwrap().forward(&decibels).unwrap();
            let distance = (ours - whole).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(distance.to_scalar::<f32>().unwrap() < 1e-4);
        }
    }

    #[test]
    fn another_shape_is_an_error() {
        let bands = Bands::new(ModelFolder::embedded().unwrap().weights(), &Device::Cpu).unwrap();
        let cells = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(bands.forward(&cells(&[MEL_BANDS - 1, 7])).is_err());
        assert!(bands.forward(&cells(&[MEL_BANDS])).is_err());
    }
}
