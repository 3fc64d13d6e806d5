//! Batches of chunks on their way to a device, and back.
//!
//! A GPU has batches of a few sizes, so that every buffer and every shape is one that it has had before: a batch of another
//! size is filled up with silence, whose answers are dropped. It travels in one piece, as bytes; what comes back is one tensor,
//! and to read it is all that anybody waits for.

use candle_core::{DType, Device, Tensor};

use crate::{
    Result,
    contract::{CHUNK_CELLS, CHUNK_FRAMES, MEL_BANDS, dequantize},
    heard::Heard,
};

/// The sizes on a GPU: a batch of another one is filled up by less than half of itself. The largest bounds memory, of which a
/// chunk takes some 15 MB.
const SIZES: [usize; 15] = [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];
const LARGEST: usize = 256;

/// The way of batches to a device.
pub(crate) struct Batches {
    device: Device,
    #[cfg(feature = "cuda")]
    gpu: Option<chorale_cuda::Gpu>,
}

impl Batches {
    /// The way to `device`.
    ///
    /// # Errors
    /// Where memory runs out.
    pub(crate) fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            device: device.clone(),
            #[cfg(feature = "cuda")]
            gpu: match device {
                Device::Cuda(_) => Some(chorale_cuda::Gpu::new(device, SIZES.map(|size| size * CHUNK_CELLS))?),
                _ => None,
            },
        })
    }

    /// Whether the device is the processor.
    pub(crate) fn on_cpu(&self) -> bool {
        matches!(self.device, Device::Cpu)
    }

    /// The sizes of all batches of up to `most` chunks: on the CPU, where every number is one, the smallest and the largest.
    pub(crate) fn sizes(&self, most: usize) -> Vec<usize> {
        if self.on_cpu() { vec![1, most] } else { sizes_on_gpu(most) }
    }

    /// What `network` makes of each of these chunks, at least one. It is given [`decibels`](Self::decibels).
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn listen(
        &self,
        chunks: &[&[u8]],
        network: impl Fn(&Tensor) -> Result<Vec<Heard>>,
    ) -> Result<Vec<Heard>> {
        let mut heard = Vec::with_capacity(chunks.len());
        for batch in chunks.chunks(LARGEST) {
            let size = if self.on_cpu() { batch.len() } else { size_on_gpu(batch.len()) };
            let all = self.keep_shapes(|| network(&self.upload(batch, size)?))?;
            heard.extend(all.into_iter().take(batch.len()));
        }
        Ok(heard)
    }

    /// Chunks of the feature contract in dB below their loudest cell, `[MEL_BANDS, chunks · frames]`.
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn decibels(&self, chunks: &[&[u8]]) -> Result<Tensor> {
        self.upload(chunks, chunks.len())
    }

    /// The same, with silence after the chunks to a batch of `size`.
    fn upload(&self, chunks: &[&[u8]], size: usize) -> Result<Tensor> {
        let cells = self.cells(size * CHUNK_CELLS, |cells| {
            for (band, row) in cells.chunks_exact_mut(size * CHUNK_FRAMES).enumerate() {
                let frames = band * CHUNK_FRAMES..(band + 1) * CHUNK_FRAMES;
                let mut chunks = chunks.iter().filter_map(|chunk| chunk.get(frames.clone()));
                for cells in row.chunks_exact_mut(CHUNK_FRAMES) {
                    match chunks.next() {
                        Some(chunk) => cells.copy_from_slice(chunk),
                        None => cells.fill(0),
                    }
                }
            }
        })?;
        let (silence, step) = (dequantize(0), dequantize(1) - dequantize(0));
        let cells = cells.reshape((MEL_BANDS, size * CHUNK_FRAMES))?.to_dtype(DType::F32)?;
        Ok(cells.affine(f64::from(step), f64::from(silence))?)
    }

    /// So many bytes that `fill` writes, on the device.
    fn cells(&self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = self.gpu.as_ref().filter(|gpu| gpu.takes(bytes)) {
            return Ok(gpu.upload(bytes, fill)?);
        }
        let mut cells = vec![0; bytes];
        fill(&mut cells);
        Ok(Tensor::from_vec(cells, bytes, &self.device)?)
    }

    fn keep_shapes<T>(&self, work: impl FnOnce() -> T) -> T {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = &self.gpu {
            return gpu.keep_shapes(work);
        }
        work()
    }
}

/// The size that a batch of `chunks` has on a GPU.
fn size_on_gpu(chunks: usize) -> usize {
    SIZES.into_iter().find(|size| *size >= chunks).unwrap_or(chunks)
}

/// The sizes that batches of up to `most` chunks have on a GPU.
fn sizes_on_gpu(most: usize) -> Vec<usize> {
    let largest = size_on_gpu(most.min(LARGEST));
    SIZES.into_iter().filter(|size| *size <= largest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_has_one_of_the_sizes_that_are_run_first() {
        for most in [1, 7, 32, 256, 500] {
            let sizes = sizes_on_gpu(most);
            assert!((1..=most.min(LARGEST)).all(|chunks| sizes.contains(&size_on_gpu(chunks))), "{most}: {sizes:?}");
        }
        assert_eq!(sizes_on_gpu(5), [1, 2, 4, 6]);
        assert_eq!(Batches::new(&Device::Cpu).unwrap().sizes(5), [1, 5]);
    }

    #[test]
    fn a_batch_is_filled_up_by_less_than_half_of_itself() {
        for chunks in 1..=LARGEST {
            let size = size_on_gpu(chunks);
            assert!(size >= chunks && 2 * size < 3 * chunks + 1, "{chunks} become {size}");
        }
        assert_eq!(SIZES.last(), Some(&LARGEST));
    }

    #[test]
    fn chunks_lie_beside_each_other_in_every_band_and_silence_fills_up() {
        let batches = Batches::new(&Device::Cpu).unwrap();
        let chunks: Vec<Vec<u8>> =
            (1..=2).map(|chunk| (0..CHUNK_CELLS).map(|cell| (cell / CHUNK_FRAMES + chunk) as u8).collect()).collect();
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let rows = batches.upload(&chunks, 3).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows.len(), MEL_BANDS);
        for (band, row) in rows.iter().enumerate() {
            for (cells, expected) in row.chunks(CHUNK_FRAMES).zip([band + 1, band + 2, 0]) {
                assert!(cells.iter().all(|cell| (cell - dequantize(expected as u8)).abs() < 1e-4), "band {band}");
            }
        }
    }
}
