//! Convolutions that can be trained on the CPU.
//!
//! candle's own convolution is quick enough to listen with, but its gradient is not: here all three products go through
//! the matrix multiplication.

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Storage, Tensor, bail};

use crate::unfold::{Fold, Patch, Unfold};

/// Unfolded cells of the samples that share one matrix product: 8 MiB, as much as the caches can carry. Small images come
/// together, because a product with few columns reads more weights than it multiplies.
const GROUP_CELLS: usize = 2 << 20;

/// The convolution of `[batch, channels, rows, columns]` with `weight`, `[outputs, channels, height, width]`, padded with
/// zeros to the size of the input: `[batch, outputs, rows, columns]`. Both gradients are known.
///
/// # Errors
/// Where shapes do not fit each other, the tensors are not 32-bit floats, or the device fails.
pub fn convolve(input: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (_, channels, height, width) = weight.dims4()?;
    if input.dim(1)? != channels {
        bail!("convolution: expected {channels} channels, found {:?}", input.dims());
    }
    if !matches!(input.device(), Device::Cpu) {
        let (top, left) = ((height - 1) / 2, (width - 1) / 2);
        let padded = input.pad_with_zeros(2, top, height - 1 - top)?.pad_with_zeros(3, left, width - 1 - left)?;
        return padded.conv2d(weight, 0, 1, 1, 1);
    }
    let (input, weight) = (input.contiguous()?, weight.contiguous()?);
    let output = respond(&input.detach(), &weight.detach())?;
    if input.track_op() || weight.track_op() { input.apply_op2(&weight, Convolution { output }) } else { Ok(output) }
}

/// What has been computed already, with its gradients: no unfolded patches are kept until then.
struct Convolution {
    output: Tensor,
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(
        &self,
        _input: &CpuStorage,
        _input_layout: &Layout,
        _weight: &CpuStorage,
        _weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (storage, layout) = self.output.storage_and_layout();
        match &*storage {
            Storage::Cpu(cells) => Ok((cells.clone(), layout.shape().clone())),
            _ => bail!("convolution: expected a tensor on the CPU"),
        }
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let wanted = (input.track_op(), weight.track_op());
        let (input, weight, gradient) = (input.detach(), weight.detach(), gradient.detach().contiguous()?);
        let (outputs, channels, height, width) = weight.dims4()?;
        let (batch, _, rows, columns) = input.dims4()?;
        let patch = Patch { height, width };
        let transposed = weight.reshape((outputs, ()))?.t()?;
        let (mut input_gradient, mut weight_gradient): (Vec<Tensor>, Option<Tensor>) = (Vec::new(), None);
        for (start, samples) in groups(batch, channels * height * width * rows * columns) {
            let given = gradient.narrow(0, start, samples)?.transpose(0, 1)?.reshape((outputs, ()))?;
            if wanted.1 {
                let seen = input.narrow(0, start, samples)?.apply_op1_no_bwd(&Unfold(patch))?;
                let product = given.matmul(&seen.t()?)?;
                weight_gradient = Some(match weight_gradient {
                    Some(sum) => (sum + product)?,
                    None => product,
                });
            }
            if wanted.0 {
                let fold = Fold { patch, image: [samples, channels, rows, columns] };
                input_gradient.push(transposed.matmul(&given)?.apply_op1_no_bwd(&fold)?);
            }
        }
        let input_gradient = if wanted.0 { Some(Tensor::cat(&input_gradient, 0)?) } else { None };
        let weight_gradient = weight_gradient.map(|sum| sum.reshape(weight.shape())).transpose()?;
        Ok((input_gradient, weight_gradient))
    }
}

fn respond(input: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (outputs, channels, height, width) = weight.dims4()?;
    let (batch, _, rows, columns) = input.dims4()?;
    let matrix = weight.reshape((outputs, ()))?;
    let unfold = Unfold(Patch { height, width });
    let parts = groups(batch, channels * height * width * rows * columns).map(|(start, samples)| {
        let seen = input.narrow(0, start, samples)?.apply_op1_no_bwd(&unfold)?;
        matrix.matmul(&seen)?.reshape((outputs, samples, rows, columns))?.transpose(0, 1)?.contiguous()
    });
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
}

/// The first sample of every group, and how many there are.
fn groups(batch: usize, unfolded_cells: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = (GROUP_CELLS / unfolded_cells.max(1)).max(1);
    (0..batch).step_by(size).map(move |start| (start, size.min(batch - start)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    fn random(shape: (usize, usize, usize, usize)) -> Var {
        Var::from_tensor(&Tensor::rand(-1_f32, 1.0, shape, &Device::Cpu).unwrap()).unwrap()
    }

    fn distance(left: &Tensor, right: &Tensor) -> f32 {
        let difference = (left - right).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn outputs_and_gradients_are_those_of_candle() {
        // The second is so large that samples are taken one by one.
        for (input, weight) in
            [((5, 3, 8, 6), (4, 3, 3, 3)), ((2, 32, 96, 96), (2, 32, 3, 3)), ((1, 1, 2, 3), (1, 1, 3, 3))]
        {
            let (input, weight) = (random(input), random(weight));
            let ours = convolve(&input, &weight).unwrap();
            let theirs = input.conv2d(&weight, 1, 1, 1, 1).unwrap();
            assert!(distance(&ours, &theirs) < 1e-4, "output");
            let importance = random(ours.dims4().unwrap());
            let gradients = |output: &Tensor| (output * importance.as_tensor()).unwrap().backward().unwrap();
            let (ours, theirs) = (gradients(&ours), gradients(&theirs));
            // A sum over many places is rounded more coarsely.
            let places = (input.elem_count() as f32).sqrt();
            for (name, variable) in [("input", &input), ("weight", &weight)] {
                let (ours, theirs) = (ours.get(variable).unwrap(), theirs.get(variable).unwrap());
                assert!(distance(ours, theirs) < 1e-4_f32.max(1e-6 * places), "{name}");
            }
        }
    }

    #[test]
    fn without_variables_nothing_is_remembered() {
        let (input, weight) = (random((1, 2, 4, 4)).detach(), random((3, 2, 3, 3)).detach());
        assert!(!convolve(&input, &weight).unwrap().track_op());
        assert!(convolve(&input, &random((3, 1, 3, 3))).is_err());
    }
}
