//! A front end whose filters can learn.
//!
//! A filter's answer is its greatest response at any place along the bands, so that its gradient comes from the place that
//! won and no other. Where that is, is found first, without anything remembered for gradients; what the winner saw is then
//! gathered, and multiplied with the kernel once more.

use candle_core::Tensor;

use crate::{
    Result, Weights,
    architecture::{EnsembleShape, FrontPart, FrontShape},
    ensemble::EnsembleFront,
    front::{TIMBRAL_SPAN, longest_time, unfold},
};

/// The filters of a front end, of which kernels and biases are variables.
pub struct LearningFront {
    front: EnsembleFront,
    parts: Vec<Part>,
}

/// The filters of one part.
struct Part {
    shape: FrontPart,
    /// `[filters, 1, taps, bands]`
    kernel: Tensor,
    /// `[filters]`
    bias: Tensor,
    /// `[filters, 1]`
    scale: Tensor,
    /// `[filters, 1]`
    shift: Tensor,
    /// `[filters, 1]`: −1 where the least product is the greatest response, else 1.
    sign: Tensor,
}

impl LearningFront {
    /// The names of what can learn, and its shape: the kernel and the bias of every part.
    ///
    /// # Errors
    /// Where a tensor is missing.
    pub fn tensors(weights: &Weights, shape: EnsembleShape) -> Result<Vec<(String, Vec<usize>)>> {
        let mut tensors = Vec::new();
        for part in shape.front.parts() {
            let name = format!("front.{}.conv", part.name);
            let filters = weights.length(&format!("{name}.bias"))?;
            tensors.push((format!("{name}.weight"), vec![filters, 1, part.time.taps, part.bands]));
            tensors.push((format!("{name}.bias"), vec![filters]));
        }
        Ok(tensors)
    }

    /// The front end `front` of `weights` with these tensors, in the order of [`tensors`](Self::tensors), in place of its
    /// own.
    ///
    /// # Errors
    /// Where there is another number of them, one has a wrong shape, or the device is out of memory.
    pub fn new(front: EnsembleFront, weights: &Weights, tensors: &[Tensor]) -> Result<Self> {
        let pairs = tensors.as_chunks::<2>().0;
        let shape = front.front.shape;
        if tensors.len() != 2 * shape.parts().count() {
            return Err(candle_core::Error::msg("a front end needs another number of tensors").into());
        }
        let device = front.front.device().clone();
        let mut parts = Vec::new();
        for (part, [kernel, bias]) in shape.parts().zip(pairs) {
            let filters = bias.dim(0)?;
            let (scale, shift) = weights.normalization(&format!("front.{}.norm", part.name), filters)?;
            let sign: Vec<f32> = scale.iter().map(|scale| if *scale < 0.0 { -1.0 } else { 1.0 }).collect();
            let column = |values: Vec<f32>| Tensor::from_vec(values, (filters, 1), &device);
            parts.push(Part {
                shape: part,
                kernel: kernel.clone(),
                bias: bias.clone(),
                scale: column(scale)?,
                shift: column(shift)?,
                sign: column(sign)?,
            });
        }
        Ok(Self { front, parts })
    }

    /// See [`EnsembleFront::hear`]; the filters' gradients are remembered.
    ///
    /// # Errors
    /// Where the shape is another one, or the device fails.
    pub fn hear(&self, chunks: &Tensor) -> Result<Tensor> {
        self.front.hear_through(chunks, |decibels| self.channels(decibels))
    }

    /// The channels `[channels, batch, frames / frame step]` of `[MEL_BANDS, batch · frames]` dB.
    fn channels(&self, decibels: &Tensor) -> Result<Tensor> {
        let front = &self.front.front;
        let input = front.input(decibels)?;
        let (bands, batch, frames) = input.dims3()?;
        let FrontShape { step, .. } = front.shape;
        let answers = frames / step;
        let columns = batch * answers;
        let mut parts = Vec::with_capacity(self.parts.len());
        let (timbral, temporal) = self.parts.split_at(front.shape.timbral().len());
        for part in timbral {
            let taps = part.shape.time.taps;
            let seen = unfold(&input, part.shape.time, step)?;
            let seen = seen.transpose(0, 1)?.reshape((bands * taps, columns))?;
            parts.push(part.timbral(&seen)?);
        }
        let seen = unfold(&input, longest_time(), step)?;
        let seen = seen.reshape((longest_time().taps, bands, columns))?;
        for part in temporal {
            let (first, taps) = (longest_time().before - part.shape.time.before, part.shape.time.taps);
            parts.push(part.temporal(&seen.narrow(0, first, taps)?)?);
        }
        let channels = Tensor::cat(&parts, 0)?;
        Ok(channels.reshape((channels.dim(0)?, batch, answers))?)
    }
}

impl Part {
    /// The responses `[filters, columns]` of filters that span several bands, to `[bands · taps, columns]`.
    fn timbral(&self, seen: &Tensor) -> Result<Tensor> {
        let (filters, rows) = (self.bias.dim(0)?, self.shape.bands * self.shape.time.taps);
        let columns = seen.dim(1)?;
        let kernel = self.kernel.squeeze(1)?.transpose(1, 2)?.reshape((filters, rows))?;
        let row = Tensor::arange(0, rows as u32, seen.device())?.reshape((1, rows, 1))?;
        let index = self.first_row(&kernel, seen)?.broadcast_add(&row)?.reshape((filters * rows, columns))?;
        self.respond(&kernel, &seen.gather(&index, 0)?.reshape((filters, rows, columns))?)
    }

    /// Where that begins which the winner among the places of every filter sees, `[filters, 1, columns]`, as a row of
    /// `[bands · taps, columns]`.
    fn first_row(&self, kernel: &Tensor, seen: &Tensor) -> Result<Tensor> {
        let ((filters, _), (rows, columns)) = (kernel.dims2()?, seen.dims2()?);
        let taps = self.shape.time.taps;
        // As in `Front`, a product has the filter at several places.
        let turned = kernel.detach().broadcast_mul(&self.sign)?;
        let shifted =
            (0..TIMBRAL_SPAN).map(|place| turned.pad_with_zeros(1, place * taps, (TIMBRAL_SPAN - 1 - place) * taps));
        let shifted = Tensor::cat(&shifted.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let last = rows / taps - self.shape.bands + 1 - TIMBRAL_SPAN;
        let starts: Vec<usize> = (0..last).step_by(TIMBRAL_SPAN).chain([last]).collect();
        let products = starts.iter().map(|start| shifted.matmul(&seen.narrow(0, start * taps, shifted.dim(1)?)?));
        let products = Tensor::cat(&products.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let winner = products.reshape((starts.len() * TIMBRAL_SPAN, filters * columns))?.argmax(0)?;
        let first_rows = starts.iter().flat_map(|start| (0..TIMBRAL_SPAN).map(move |place| (start + place) * taps));
        let first_rows: Vec<u32> = first_rows.map(|row| row as u32).collect();
        let first_rows = Tensor::from_vec(first_rows, starts.len() * TIMBRAL_SPAN, seen.device())?;
        Ok(first_rows.index_select(&winner, 0)?.reshape((filters, 1, columns))?)
    }

    /// The responses `[filters, columns]` of filters that span a single band, to `[taps, bands, columns]`.
    fn temporal(&self, seen: &Tensor) -> Result<Tensor> {
        let ((taps, bands, columns), filters) = (seen.dims3()?, self.bias.dim(0)?);
        let seen = seen.contiguous()?;
        let kernel = self.kernel.reshape((filters, taps))?;
        let turned = kernel.detach().broadcast_mul(&self.sign)?;
        let products = turned.matmul(&seen.reshape((taps, bands * columns))?)?;
        let winner = products.reshape((filters, bands, columns))?.argmax(1)?;
        let index = winner.unsqueeze(0)?.broadcast_as((taps, filters, columns))?.contiguous()?;
        self.respond(&kernel, &seen.gather(&index, 1)?.transpose(0, 1)?.contiguous()?)
    }

    /// The responses `[filters, columns]` of kernels `[filters, rows]` to what each saw, `[filters, rows, columns]`.
    fn respond(&self, kernel: &Tensor, seen: &Tensor) -> Result<Tensor> {
        let product = kernel.unsqueeze(1)?.matmul(seen)?.squeeze(1)?;
        let rectified = product.broadcast_add(&self.bias.unsqueeze(1)?)?.relu()?;
        Ok(rectified.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::{Architecture, EnsembleStart, ensemble_start::tests::start};

    const SHAPES: [Architecture; 2] = [Architecture::Ensemble, Architecture::Small];

    fn chunks(count: usize) -> Tensor {
        let cells: Vec<f32> = (0..count * 128 * 96).map(|cell| -((cell * 31 % 7_919 % 80) as f32)).collect();
        Tensor::from_vec(cells, (count, 128, 96), &Device::Cpu).unwrap()
    }

    fn variables(start: &EnsembleStart, architecture: Architecture) -> Vec<Var> {
        let tensor = |(name, shape): &(String, Vec<usize>)| {
            let values = start.front.get(name, shape).unwrap().values();
            Var::from_slice(values, shape.as_slice(), &Device::Cpu).unwrap()
        };
        LearningFront::tensors(&start.front, architecture.ensemble().unwrap()).unwrap().iter().map(tensor).collect()
    }

    fn learning(start: &EnsembleStart, architecture: Architecture, variables: &[Var]) -> LearningFront {
        let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let front = EnsembleFront::new(&start.front, architecture.ensemble().unwrap(), &Device::Cpu).unwrap();
        LearningFront::new(front, &start.front, &tensors).unwrap()
    }

    #[test]
    fn it_hears_what_the_front_end_that_does_not_learn_hears() {
        for architecture in SHAPES {
            let start = start(1e-4, architecture);
            let chunks = chunks(2);
            let shape = architecture.ensemble().unwrap();
            let expected = EnsembleFront::new(&start.front, shape, &Device::Cpu).unwrap().hear(&chunks).unwrap();
            let heard = learning(&start, architecture, &variables(&start, architecture)).hear(&chunks).unwrap();
            assert_eq!(heard.dims(), expected.dims());
            let (least, most) = (expected.min_all().unwrap(), expected.max_all().unwrap());
            let range = most.to_scalar::<f32>().unwrap() - least.to_scalar::<f32>().unwrap();
            let apart = (heard - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(apart < 1e-5 * range, "{apart} of {range}");
        }
    }

    #[test]
    fn its_gradients_are_those_of_what_it_hears() {
        for architecture in SHAPES {
            let start = start(1.0, architecture);
            let chunks = chunks(1);
            let variables = variables(&start, architecture);
            let loss = || {
                let heard = learning(&start, architecture, &variables).hear(&chunks).unwrap();
                heard.flatten_all().unwrap().mean(0).unwrap()
            };
            let gradients = loss().backward().unwrap();
            for variable in &variables {
                let gradient = gradients.get(variable).unwrap();
                let before = variable.as_tensor().copy().unwrap();
                // So far down the gradient, and so far up.
                let step = (1e-3
                    / gradient.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap())
                    as f64;
                let at = |reach: f64| {
                    variable.set(&(&before + (gradient * (reach * step)).unwrap()).unwrap()).unwrap();
                    f64::from(loss().to_scalar::<f32>().unwrap())
                };
                let slope = at(1.0) - at(-1.0);
                variable.set(&before).unwrap();
                let expected =
                    2.0 * step * f64::from(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
                assert!((slope / expected - 1.0).abs() < 0.05, "{:?}: {slope} {expected}", variable.dims());
            }
        }
    }
}
