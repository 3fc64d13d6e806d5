//! Changing large tensors where they are.
//!
//! A step touches every weight several times. New tensors for each time would take most of the time of a step on the CPU.

use candle_core::{CpuStorage, Device, InplaceOp2, InplaceOp3, Layout, Result, Storage, Tensor, bail};

/// `target + other`
pub(crate) fn add(target: &mut Tensor, other: &Tensor) -> Result<()> {
    if on_cpu(target) {
        return target.inplace_op2(other, &Each2(|target: &mut f32, other: f32| *target += other));
    }
    *target = (&*target + other)?;
    Ok(())
}

/// `target · factor`
pub(crate) fn scale(target: &mut Tensor, factor: f64) -> Result<()> {
    *target = (&*target * factor)?;
    Ok(())
}

/// `target · keep + other · (1 − keep)`
pub(crate) fn blend(target: &mut Tensor, other: &Tensor, keep: f64) -> Result<()> {
    if on_cpu(target) {
        let keep = keep as f32;
        let mix = move |target: &mut f32, other: f32| *target = *target * keep + other * (1.0 - keep);
        return target.inplace_op2(other, &Each2(mix));
    }
    *target = ((&*target * keep)? + (other * (1.0 - keep))?)?;
    Ok(())
}

/// `target · keep + other² · (1 − keep)`
pub(crate) fn blend_square(target: &mut Tensor, other: &Tensor, keep: f64) -> Result<()> {
    if on_cpu(target) {
        let keep = keep as f32;
        let mix = move |target: &mut f32, other: f32| *target = *target * keep + other * other * (1.0 - keep);
        return target.inplace_op2(other, &Each2(mix));
    }
    *target = ((&*target * keep)? + (other.sqr()? * (1.0 - keep))?)?;
    Ok(())
}

/// `target ← change(target, first, second)` for every cell, on the CPU.
pub(crate) fn change(
    target: &Tensor,
    first: &Tensor,
    second: &Tensor,
    change: impl Fn(&mut f32, f32, f32),
) -> Result<()> {
    target.inplace_op3(first, second, &Each3(change))
}

/// The sum of the squares of all cells.
pub(crate) fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) if layout.is_contiguous() => {
            // In parts, because a sum of millions of single-precision squares forgets the small ones.
            let part = |part: &[f32]| f64::from(part.iter().map(|cell| cell * cell).sum::<f32>());
            Ok(cells(storage, layout)?.chunks(1_024).map(part).sum())
        }
        _ => Ok(f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?)),
    }
}

pub(crate) fn on_cpu(tensor: &Tensor) -> bool {
    matches!(tensor.device(), Device::Cpu)
}

fn cells<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_slice::<f32>()?.get(start..end).unwrap_or_default()),
        None => bail!("expected a contiguous tensor"),
    }
}

fn cells_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(cells), Some((start, end))) => Ok(cells.get_mut(start..end).unwrap_or_default()),
        _ => bail!("expected a contiguous tensor of 32-bit floats"),
    }
}

struct Each2<F>(F);

impl<F: Fn(&mut f32, f32)> InplaceOp2 for Each2<F> {
    fn name(&self) -> &'static str {
        "each of two"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> Result<()> {
        for (target, other) in cells_mut(target, target_layout)?.iter_mut().zip(cells(other, other_layout)?) {
            self.0(target, *other);
        }
        Ok(())
    }
}

struct Each3<F>(F);

impl<F: Fn(&mut f32, f32, f32)> InplaceOp3 for Each3<F> {
    fn name(&self) -> &'static str {
        "each of three"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        let others = cells(first, first_layout)?.iter().zip(cells(second, second_layout)?);
        for (target, (first, second)) in cells_mut(target, target_layout)?.iter_mut().zip(others) {
            self.0(target, *first, *second);
        }
        Ok(())
    }
}
