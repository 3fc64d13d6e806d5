//! Convolutions that can be trained on the CPU.
//!
//! candle's own convolution is quick enough to listen with, but its gradient is not: here all three products go through
//! the matrix multiplication.

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Storage, Tensor, bail};

use crate::{
    unfold::{Fold, Patch, Unfold},
    winograd::{Join, PLACES, Part, Split},
};

/// Cells that the samples of one matrix product become: 8 MiB, as much as the caches can carry. Small images come
/// together, because a product with few columns reads more weights than it multiplies.
const GROUP_CELLS: usize = 2 << 20;
/// Channels from which on tiles pay: their transformation costs the same for any number of outputs.
const TILED_CHANNELS: usize = 8;
/// Cells of an image from which on tiles pay: transformed kernels are four times as large, and met once a tile.
const TILED_CELLS: usize = 128;

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
        if (height, width) == (2 * top + 1, 2 * top + 1) {
            return input.conv2d(weight, top, 1, 1, 1);
        }
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
        let (_, channels, rows, columns) = input.dims4()?;
        let way = Way::of(&input, &weight)?;
        let kernels = way.kernels(&weight)?.t()?;
        let (mut input_gradient, mut kernel_gradient): (Vec<Tensor>, Option<Tensor>) = (Vec::new(), None);
        for (start, samples) in way.groups(&input)? {
            let given = way.answers_adjoint(&gradient.narrow(0, start, samples)?)?;
            if wanted.1 {
                let product = given.matmul(&way.sees(&input.narrow(0, start, samples)?)?.t()?)?;
                kernel_gradient = Some(match kernel_gradient {
                    Some(sum) => (sum + product)?,
                    None => product,
                });
            }
            if wanted.0 {
                input_gradient.push(way.sees_adjoint(&kernels.matmul(&given)?, [samples, channels, rows, columns])?);
            }
        }
        let input_gradient = if wanted.0 { Some(Tensor::cat(&input_gradient, 0)?) } else { None };
        let weight_gradient = kernel_gradient.map(|sum| way.kernels_adjoint(&sum, &weight)).transpose()?;
        Ok((input_gradient, weight_gradient))
    }
}

fn respond(input: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let outputs = weight.dim(0)?;
    let (_, _, rows, columns) = input.dims4()?;
    let way = Way::of(input, weight)?;
    let kernels = way.kernels(weight)?;
    let parts = way.groups(input)?.map(|(start, samples)| {
        let seen = way.sees(&input.narrow(0, start, samples)?)?;
        way.answers(&kernels.matmul(&seen)?, [samples, outputs, rows, columns])
    });
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
}

/// How a convolution becomes matrix products, `[products, outputs, inner] · [products, inner, places]`: linear maps there
/// and back, and their adjoints.
enum Way {
    /// One product, with all that a place of the kernel sees as a column.
    Unfolded(Patch),
    /// Many small products of transformed tiles.
    Tiled,
}

impl Way {
    /// The quicker way for these kernels and images. It does not depend on the batch, and so neither does any answer.
    fn of(input: &Tensor, weight: &Tensor) -> Result<Self> {
        let (_, channels, height, width) = weight.dims4()?;
        let (_, _, rows, columns) = input.dims4()?;
        let tiled = (height, width) == (3, 3) && channels >= TILED_CHANNELS && rows * columns >= TILED_CELLS;
        Ok(if tiled { Self::Tiled } else { Self::Unfolded(Patch { height, width }) })
    }

    /// The first sample of every group that shares its products, and how many there are.
    fn groups(&self, input: &Tensor) -> Result<impl Iterator<Item = (usize, usize)> + use<>> {
        let (batch, channels, rows, columns) = input.dims4()?;
        let cells = match self {
            Self::Unfolded(patch) => patch.height * patch.width * rows * columns,
            Self::Tiled => PLACES * Part::Input.tiles(rows, columns),
        };
        let size = (GROUP_CELLS / (channels * cells).max(1)).max(1);
        Ok((0..batch).step_by(size).map(move |start| (start, size.min(batch - start))))
    }

    fn kernels(&self, weight: &Tensor) -> Result<Tensor> {
        let (outputs, channels, height, width) = weight.dims4()?;
        match self {
            Self::Unfolded(_) => weight.reshape((1, outputs, ())),
            Self::Tiled => weight
                .reshape((outputs * channels, 1, height, width))?
                .apply_op1_no_bwd(&Split(Part::Kernel))?
                .reshape((PLACES, outputs, channels)),
        }
    }

    fn kernels_adjoint(&self, kernels: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let (outputs, channels, height, width) = weight.dims4()?;
        let kernels = match self {
            Self::Unfolded(_) => kernels.clone(),
            Self::Tiled => kernels
                .reshape((PLACES, 1, outputs * channels))?
                .apply_op1_no_bwd(&Join { part: Part::Kernel, image: [outputs * channels, 1, height, width] })?,
        };
        kernels.reshape(weight.shape())
    }

    fn sees(&self, input: &Tensor) -> Result<Tensor> {
        match self {
            Self::Unfolded(patch) => input.apply_op1_no_bwd(&Unfold(*patch))?.unsqueeze(0),
            Self::Tiled => input.apply_op1_no_bwd(&Split(Part::Input)),
        }
    }

    fn sees_adjoint(&self, seen: &Tensor, image: [usize; 4]) -> Result<Tensor> {
        match self {
            Self::Unfolded(patch) => seen.squeeze(0)?.apply_op1_no_bwd(&Fold { patch: *patch, image }),
            Self::Tiled => seen.apply_op1_no_bwd(&Join { part: Part::Input, image }),
        }
    }

    fn answers(&self, products: &Tensor, image: [usize; 4]) -> Result<Tensor> {
        let [samples, outputs, rows, columns] = image;
        match self {
            Self::Unfolded(_) => products.reshape((outputs, samples, rows, columns))?.transpose(0, 1)?.contiguous(),
            Self::Tiled => products.apply_op1_no_bwd(&Join { part: Part::Output, image }),
        }
    }

    fn answers_adjoint(&self, answers: &Tensor) -> Result<Tensor> {
        match self {
            Self::Unfolded(_) => answers.transpose(0, 1)?.reshape((1, answers.dim(1)?, ())),
            Self::Tiled => answers.apply_op1_no_bwd(&Split(Part::Output)),
        }
    }
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

    fn greatest(tensor: &Tensor) -> f32 {
        tensor.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn outputs_and_gradients_are_those_of_candle() {
        let cases = [
            ((5, 3, 8, 6), (4, 3, 3, 3)),
            ((1, 1, 2, 3), (1, 1, 3, 3)),
            // By tiles. In the second, samples are taken one by one.
            ((5, 9, 16, 12), (4, 9, 3, 3)),
            ((3, 32, 128, 96), (2, 32, 3, 3)),
            ((2, 8, 2, 67), (3, 8, 3, 3)),
        ];
        for (input, weight) in cases {
            let (input, weight) = (random(input), random(weight));
            let ours = convolve(&input, &weight).unwrap();
            let theirs = input.conv2d(&weight, 1, 1, 1, 1).unwrap();
            assert!(distance(&ours, &theirs) < 2e-5 * greatest(&theirs), "output");
            let importance = random(ours.dims4().unwrap());
            let gradients = |output: &Tensor| (output * importance.as_tensor()).unwrap().backward().unwrap();
            let (ours, theirs) = (gradients(&ours), gradients(&theirs));
            for (name, variable) in [("input", &input), ("weight", &weight)] {
                let (ours, theirs) = (ours.get(variable).unwrap(), theirs.get(variable).unwrap());
                assert!(distance(ours, theirs) < 2e-5 * greatest(theirs), "{name}");
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
