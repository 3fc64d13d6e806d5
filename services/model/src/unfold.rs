//! Patches as columns, so that a convolution is a matrix product on the CPU; and the way back.
//!
//! [`Unfold`] and [`Fold`] are adjoint linear maps, so each is the other's gradient.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

/// How far a kernel reaches over height and width, with zeros beyond the edges: the output is as large as the input. An
/// even kernel reaches further down and right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Rows under the kernel.
    pub height: usize,
    /// Columns under the kernel.
    pub width: usize,
}

/// What every place of a kernel sees: `[channels · height · width, batch · rows · columns]` from
/// `[batch, channels, rows, columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Unfold(pub Patch);

/// The adjoint of [`Unfold`]: every cell is the sum of what its copies were given. `[batch, channels, rows, columns]` from
/// `[channels · height · width, batch · rows · columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Fold {
    /// The kernel.
    pub patch: Patch,
    /// `[batch, channels, rows, columns]`
    pub image: [usize; 4],
}

impl Patch {
    const fn cells(self) -> usize {
        self.height * self.width
    }

    /// How far down and right of a cell, counted from the edges' zeros, every place of the kernel looks, in its order.
    fn places(self) -> impl Iterator<Item = Place> + Clone {
        let (above, left) = ((self.height - 1) / 2, (self.width - 1) / 2);
        (0..self.cells()).map(move |place| Place {
            down: Shift::new(place / self.width, above),
            right: Shift::new(place % self.width, left),
        })
    }
}

/// Where one cell of a kernel looks.
#[derive(Clone, Copy)]
struct Place {
    down: Shift,
    right: Shift,
}

/// A move along one axis.
#[derive(Clone, Copy)]
struct Shift {
    forward: usize,
    backward: usize,
}

impl Shift {
    const fn new(position: usize, centre: usize) -> Self {
        Self { forward: position.saturating_sub(centre), backward: centre.saturating_sub(position) }
    }

    /// Cells that are seen as zeros before and after the others, and the first of the others, on an axis of `length`.
    fn over(self, length: usize) -> Overlap {
        let before = self.backward.min(length);
        let after = self.forward.min(length);
        Overlap { before, after, start: after, cells: length.saturating_sub(before + after) }
    }
}

/// `cells` cells of the input from `start` on are seen after `before` zeros, and before `after` zeros.
struct Overlap {
    before: usize,
    after: usize,
    start: usize,
    cells: usize,
}

impl CustomOp1 for Unfold {
    fn name(&self) -> &'static str {
        "unfold"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, rows, columns) = layout.shape().dims4()?;
        let input = contiguous(storage, layout, self.name())?;
        let plane = rows * columns;
        let shape = Shape::from((channels * self.0.cells(), batch * plane));
        let mut unfolded = Vec::with_capacity(shape.elem_count());
        for channel in 0..channels {
            for place in self.0.places() {
                let (down, right) = (place.down.over(rows), place.right.over(columns));
                for sample in 0..batch {
                    let seen = input.chunks_exact(plane.max(1)).nth(sample * channels + channel).unwrap_or_default();
                    zeros(&mut unfolded, down.before * columns);
                    for row in seen.chunks_exact(columns.max(1)).skip(down.start).take(down.cells) {
                        zeros(&mut unfolded, right.before);
                        unfolded.extend_from_slice(row.get(right.start..right.start + right.cells).unwrap_or_default());
                        zeros(&mut unfolded, right.after);
                    }
                    zeros(&mut unfolded, down.after * columns);
                }
            }
        }
        Ok((CpuStorage::F32(unfolded), shape))
    }

    fn bwd(&self, argument: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (batch, channels, rows, columns) = argument.dims4()?;
        let fold = Fold { patch: self.0, image: [batch, channels, rows, columns] };
        Ok(Some(gradient.contiguous()?.apply_op1(fold)?))
    }
}

impl CustomOp1 for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [batch, channels, rows, columns] = self.image;
        let plane = rows * columns;
        let expected = (channels * self.patch.cells(), batch * plane);
        if layout.shape().dims2()? != expected {
            bail!("fold: expected shape {expected:?}, found {:?}", layout.shape());
        }
        let unfolded = contiguous(storage, layout, self.name())?;
        let mut folded = vec![0.0_f32; batch * channels * plane];
        let mut planes = unfolded.chunks_exact(plane.max(1));
        for channel in 0..channels {
            for place in self.patch.places() {
                let (down, right) = (place.down.over(rows), place.right.over(columns));
                for sample in 0..batch {
                    let given = planes.next().unwrap_or_default().chunks_exact(columns.max(1)).skip(down.before);
                    let seen = folded.chunks_exact_mut(plane.max(1)).nth(sample * channels + channel);
                    let seen = seen.unwrap_or_default().chunks_exact_mut(columns.max(1)).skip(down.start);
                    for (given, seen) in given.zip(seen).take(down.cells) {
                        let given = given.get(right.before..right.before + right.cells).unwrap_or_default();
                        let seen = seen.get_mut(right.start..right.start + right.cells).unwrap_or_default();
                        for (sum, value) in seen.iter_mut().zip(given) {
                            *sum += value;
                        }
                    }
                }
            }
        }
        Ok((CpuStorage::F32(folded), Shape::from((batch, channels, rows, columns))))
    }

    fn bwd(&self, _argument: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gradient.contiguous()?.apply_op1(Unfold(self.patch))?))
    }
}

fn zeros(cells: &mut Vec<f32>, count: usize) {
    cells.resize(cells.len() + count, 0.0);
}

/// The cells of a tensor of 32-bit floats, row-major.
pub(crate) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout, operation: &str) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_slice::<f32>()?.get(start..end).unwrap_or_default()),
        None => bail!("{operation}: expected a contiguous tensor"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use candle_core::{Device, Var};

    pub(crate) fn ramp(shape: &[usize]) -> Tensor {
        let cells = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..cells).map(|cell| ((cell * 7_919) % 251) as f32 / 125.0 - 1.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn every_place_sees_its_neighbour_or_zero() {
        let input = Tensor::new(&[[[[1_f32, 2.0, 3.0], [4.0, 5.0, 6.0]]]], &Device::Cpu).unwrap();
        let unfolded = input.apply_op1(Unfold(Patch { height: 3, width: 3 })).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(unfolded[0], [0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
        assert_eq!(unfolded[4], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(unfolded[5], [2.0, 3.0, 0.0, 5.0, 6.0, 0.0]);
        assert_eq!(unfolded[7], [4.0, 5.0, 6.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn fold_is_the_adjoint_of_unfold_and_each_is_the_others_gradient() {
        for (height, width) in [(1, 1), (3, 3), (2, 5), (4, 1), (9, 9)] {
            let patch = Patch { height, width };
            let image = [2, 3, 5, 4];
            let input = Var::from_tensor(&ramp(&image)).unwrap();
            let unfolded = input.apply_op1(Unfold(patch)).unwrap();
            let other = Var::from_tensor(&ramp(unfolded.dims())).unwrap();
            let folded = other.apply_op1(Fold { patch, image }).unwrap();
            let left = (&unfolded * other.as_tensor()).unwrap().sum_all().unwrap();
            let right = (&folded * input.as_tensor()).unwrap().sum_all().unwrap();
            let difference = (left.to_scalar::<f32>().unwrap() - right.to_scalar::<f32>().unwrap()).abs();
            assert!(difference < 1e-2, "{patch:?}: {difference}");

            let gradient = left.backward().unwrap().remove(&input).unwrap();
            assert_eq!(gradient.to_vec_all(), folded.to_vec_all(), "{patch:?}");
            let gradient = right.backward().unwrap().remove(&other).unwrap();
            assert_eq!(gradient.to_vec_all(), unfolded.to_vec_all(), "{patch:?}");
        }
    }

    trait Cells {
        fn to_vec_all(&self) -> Vec<f32>;
    }

    impl Cells for Tensor {
        fn to_vec_all(&self) -> Vec<f32> {
            self.flatten_all().unwrap().to_vec1().unwrap()
        }
    }

    #[test]
    fn another_layout_is_an_error() {
        let patch = Patch { height: 3, width: 3 };
        assert!(ramp(&[2, 3]).apply_op1(Unfold(patch)).is_err());
        assert!(ramp(&[1, 2, 3, 4]).t().unwrap().apply_op1(Unfold(patch)).is_err());
        assert!(ramp(&[9, 5]).apply_op1(Fold { patch, image: [1, 1, 2, 3] }).is_err());
    }
}
