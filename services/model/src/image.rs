//! Operations on images, `[batch, channels, rows, columns]`, that can be trained on the CPU in one pass over memory each
//! way. candle composes them of several.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor, bail};

use crate::unfold::contiguous;

/// `max(0, input + bias)`, with a bias for every channel.
///
/// # Errors
/// Where shapes do not fit each other, the tensors are not 32-bit floats, or the device fails.
pub(crate) fn rectify(input: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if matches!(input.device(), Device::Cpu) {
        return input.contiguous()?.apply_op2(&bias.contiguous()?, Rectify);
    }
    input.broadcast_add(&bias.reshape((1, (), 1, 1))?)?.relu()
}

/// The maxima of squares of two by two cells: the image is half as high and half as wide.
///
/// # Errors
/// Where rows or columns are odd in number, the tensor is not of 32-bit floats, or the device fails.
pub(crate) fn halve(input: &Tensor) -> Result<Tensor> {
    if matches!(input.device(), Device::Cpu) {
        return input.contiguous()?.apply_op1(Halve);
    }
    input.max_pool2d(2)
}

struct Rectify;

impl CustomOp2 for Rectify {
    fn name(&self) -> &'static str {
        "rectify"
    }

    fn cpu_fwd(&self, input: &CpuStorage, at: &Layout, bias: &CpuStorage, bias_at: &Layout) -> Result<Output> {
        let (_, channels, rows, columns) = at.shape().dims4()?;
        let (input, bias) = (contiguous(input, at, self.name())?, contiguous(bias, bias_at, self.name())?);
        if bias.len() != channels {
            bail!("rectify: expected a bias for {channels} channels, found {}", bias.len());
        }
        let mut output = Vec::with_capacity(input.len());
        for (plane, bias) in input.chunks_exact((rows * columns).max(1)).zip(bias.iter().cycle()) {
            output.extend(plane.iter().map(|cell| (cell + bias).max(0.0)));
        }
        Ok((CpuStorage::F32(output), at.shape().clone()))
    }

    fn bwd(&self, _input: &Tensor, _bias: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Gradients> {
        let gradient = gradient.contiguous()?.apply_op2_no_bwd(&result.detach(), &Gate)?;
        let bias = gradient.flatten_from(2)?.sum(2)?.sum(0)?;
        Ok((Some(gradient), Some(bias)))
    }
}

/// The gradient, where the result is not zero.
struct Gate;

impl CustomOp2 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, gradient: &CpuStorage, at: &Layout, result: &CpuStorage, result_at: &Layout) -> Result<Output> {
        let gradient = contiguous(gradient, at, self.name())?;
        let result = contiguous(result, result_at, self.name())?;
        let open = |(gradient, result): (&f32, &f32)| if *result > 0.0 { *gradient } else { 0.0 };
        Ok((CpuStorage::F32(gradient.iter().zip(result).map(open).collect()), at.shape().clone()))
    }
}

struct Halve;

impl CustomOp1 for Halve {
    fn name(&self) -> &'static str {
        "halve"
    }

    fn cpu_fwd(&self, input: &CpuStorage, at: &Layout) -> Result<Output> {
        let (batch, channels, rows, columns) = at.shape().dims4()?;
        if rows % 2 + columns % 2 > 0 {
            bail!("halve: expected even numbers of rows and columns, found {rows} and {columns}");
        }
        let input = contiguous(input, at, self.name())?;
        let mut output = Vec::with_capacity(input.len() / 4);
        for rows in input.chunks_exact((2 * columns).max(1)) {
            let (upper, lower) = rows.split_at(columns);
            let squares = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
            output.extend(squares.map(|([a, b], [c, d])| a.max(*b).max(c.max(*d))));
        }
        Ok((CpuStorage::F32(output), Shape::from((batch, channels, rows / 2, columns / 2))))
    }

    fn bwd(&self, input: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(input.detach().apply_op2_no_bwd(&gradient.contiguous()?, &Spread)?))
    }
}

/// Every gradient at the first of the greatest cells of its square.
struct Spread;

impl CustomOp2 for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn cpu_fwd(&self, input: &CpuStorage, at: &Layout, gradient: &CpuStorage, gradient_at: &Layout) -> Result<Output> {
        let columns = at.shape().dims4()?.3.max(2);
        let input = contiguous(input, at, self.name())?;
        let gradient = contiguous(gradient, gradient_at, self.name())?;
        let mut output = vec![0.0_f32; input.len()];
        let rows = input.chunks_exact(2 * columns).zip(output.chunks_exact_mut(2 * columns));
        for ((seen, given), gradients) in rows.zip(gradient.chunks_exact(columns / 2)) {
            let ((upper, lower), (above, below)) = (seen.split_at(columns), given.split_at_mut(columns));
            let seen = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
            let given = above.as_chunks_mut::<2>().0.iter_mut().zip(below.as_chunks_mut::<2>().0);
            for (((top, bottom), (above, below)), gradient) in seen.zip(given).zip(gradients) {
                let ([a, b], [c, d]) = (*top, *bottom);
                let greatest = a.max(b).max(c.max(d));
                let first = [a == greatest, b == greatest, c == greatest, true];
                let [w, x] = above;
                let [y, z] = below;
                let place = first.iter().position(|greatest| *greatest).unwrap_or(0);
                for (index, cell) in [w, x, y, z].into_iter().enumerate() {
                    *cell = if index == place { *gradient } else { 0.0 };
                }
            }
        }
        Ok((CpuStorage::F32(output), at.shape().clone()))
    }
}

type Output = (CpuStorage, Shape);
type Gradients = (Option<Tensor>, Option<Tensor>);

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    fn random(shape: &[usize]) -> Var {
        Var::from_tensor(&Tensor::rand(-1_f32, 1.0, shape, &Device::Cpu).unwrap()).unwrap()
    }

    fn distance(left: &Tensor, right: &Tensor) -> f32 {
        let difference = (left - right).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar().unwrap()
    }

    fn importance(output: &Tensor) -> Tensor {
        let cells = output.elem_count();
        let values: Vec<f32> = (0..cells).map(|cell| ((cell * 7_919) % 251) as f32 / 125.0 - 1.0).collect();
        Tensor::from_vec(values, output.shape(), &Device::Cpu).unwrap()
    }

    #[test]
    fn outputs_and_gradients_are_those_of_candle() {
        for shape in [[3, 5, 4, 6], [1, 1, 2, 2], [2, 3, 1, 7]] {
            let (input, bias) = (random(&shape), random(&[shape[1]]));
            let ours = rectify(&input, &bias).unwrap();
            let theirs = input.broadcast_add(&bias.reshape((1, (), 1, 1)).unwrap()).unwrap().relu().unwrap();
            check(&ours, &theirs, &[&input, &bias]);
        }
    }

    #[test]
    fn the_greatest_of_four_is_kept_and_gets_the_gradient() {
        // candle's own gradient is a quarter of what it should be.
        for [batch, channels, rows, columns] in [[3, 5, 4, 6], [1, 1, 2, 2]] {
            let input = random(&[batch, channels, rows, columns]);
            let output = halve(&input).unwrap();
            assert_eq!(distance(&output, &input.max_pool2d(2).unwrap()), 0.0);
            let importance = importance(&output);
            let gradients = (&output * &importance).unwrap().sum_all().unwrap().backward().unwrap();
            let cells = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (seen, kept, wanted) = (cells(&input), cells(&output), cells(&importance));
            for (index, gradient) in cells(gradients.get(&input).unwrap()).into_iter().enumerate() {
                let (plane, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
                let square = (plane * rows / 2 + row / 2) * columns / 2 + column / 2;
                let expected = if seen[index] == kept[square] { wanted[square] } else { 0.0 };
                assert_eq!(gradient, expected, "{index}");
            }
        }
    }

    fn check(ours: &Tensor, theirs: &Tensor, variables: &[&Var]) {
        assert_eq!(ours.dims(), theirs.dims());
        assert!(distance(ours, theirs) < 1e-6);
        let gradients = |output: &Tensor| (output * importance(output)).unwrap().sum_all().unwrap().backward().unwrap();
        let (ours, theirs) = (gradients(ours), gradients(theirs));
        for variable in variables {
            assert!(distance(ours.get(variable).unwrap(), theirs.get(variable).unwrap()) < 1e-5);
        }
    }

    #[test]
    fn of_equal_cells_one_gets_the_gradient() {
        let input =
            Var::from_tensor(&Tensor::ones((1, 1, 2, 4), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        let gradients = halve(&input).unwrap().sum_all().unwrap().backward().unwrap();
        let found = gradients.get(&input).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found, [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(halve(&random(&[1, 1, 3, 4])).is_err());
        assert!(halve(&random(&[1, 1, 4, 3])).is_err());
        assert!(rectify(&random(&[1, 2, 4, 4]), &random(&[3])).is_err());
        assert!(rectify(&random(&[2, 4, 4]), &random(&[4])).is_err());
    }
}
