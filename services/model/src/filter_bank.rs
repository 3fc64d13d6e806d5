//! Convolutions as matrix products: a bank of filters, each followed by ReLU and BatchNorm.

use candle_core::{Device, Tensor};

use crate::{Result, architecture::NEGLIGIBLE_GAIN, time_taps::multiply_each};

/// One filter.
pub(crate) struct Filter {
    /// The kernel, one value a row of the unfolded input.
    pub(crate) kernel: Vec<f32>,
    /// Added to the product, before the ReLU.
    pub(crate) bias: f32,
    /// The BatchNorm after the ReLU is `x · scale + shift`.
    pub(crate) scale: f32,
    /// See `scale`.
    pub(crate) shift: f32,
}

impl Filter {
    /// How much its response can change, for inputs that change by one.
    pub(crate) fn gain(&self) -> f32 {
        self.kernel.iter().map(|tap| tap.abs()).sum::<f32>() * self.scale.abs()
    }

    /// Whether it answers with the same whatever it hears.
    pub(crate) fn is_constant(&self) -> bool {
        self.gain() < NEGLIGIBLE_GAIN
    }
}

/// Filters of one size on one device.
pub(crate) struct FilterBank {
    /// `[shifts · live, rows]`: the kernels of the filters that are not constant, turned over where their scale is
    /// negative, at every shift.
    kernel: Tensor,
    shifts: usize,
    /// `[live, 1]`: −1 where the kernel is turned over, else 1.
    sign: Tensor,
    /// `[live, 1]`
    bias: Tensor,
    /// `[filters, live]`: takes every live filter to its place among all of them, times its scale.
    placement: Tensor,
    /// `[filters, 1]`: the shift of a live filter, the whole response of a constant one.
    offset: Tensor,
}

impl FilterBank {
    /// Puts `filters`, all with kernels of the same size, onto `device`.
    pub(crate) fn new(filters: &[Filter], device: &Device) -> Result<Self> {
        Self::sliding(filters, 1, 0, device)
    }

    /// A bank whose every product is that of a filter at `shifts` places, each `step` rows below the one before: fewer
    /// and larger products, at the price of a few zeros in the kernel.
    pub(crate) fn sliding(filters: &[Filter], shifts: usize, step: usize, device: &Device) -> Result<Self> {
        // A product over no rows is no product: a bank of nothing but constants keeps one of them as it is.
        let all_constant = filters.iter().all(Filter::is_constant);
        let is_live = |index: usize, filter: &Filter| (all_constant && index == 0) || !filter.is_constant();
        let live: Vec<(usize, &Filter)> =
            filters.iter().enumerate().filter(|(index, filter)| is_live(*index, filter)).collect();
        let rows = live.first().map_or(0, |(_, filter)| filter.kernel.len()) + (shifts - 1) * step;

        let sign_of = |filter: &Filter| if filter.scale < 0.0 { -1.0_f32 } else { 1.0 };
        let mut kernel = Vec::with_capacity(shifts * live.len() * rows);
        for shift in 0..shifts {
            for (_, filter) in &live {
                let end = kernel.len() + rows;
                kernel.resize(kernel.len() + shift * step, 0.0);
                kernel.extend(filter.kernel.iter().map(|tap| tap * sign_of(filter)));
                kernel.resize(end, 0.0);
            }
        }
        let signs: Vec<f32> = live.iter().map(|(_, filter)| sign_of(filter)).collect();
        let biases: Vec<f32> = live.iter().map(|(_, filter)| filter.bias).collect();
        let placement: Vec<f32> = (0..filters.len())
            .flat_map(|place| live.iter().map(move |(index, filter)| if *index == place { filter.scale } else { 0.0 }))
            .collect();
        let offset: Vec<f32> =
            (filters.iter().enumerate())
                .map(|(index, filter)| {
                    if is_live(index, filter) {
                        filter.shift
                    } else {
                        filter.bias.max(0.0) * filter.scale + filter.shift
                    }
                })
                .collect();
        Ok(Self {
            kernel: Tensor::from_vec(kernel, (shifts * live.len(), rows), device)?,
            shifts,
            sign: Tensor::from_vec(signs, (live.len(), 1), device)?,
            bias: Tensor::from_vec(biases, (live.len(), 1), device)?,
            placement: Tensor::from_vec(placement, (filters.len(), live.len()), device)?,
            offset: Tensor::from_vec(offset, (filters.len(), 1), device)?,
        })
    }

    /// For every filter and column, the greatest product with any of `windows`, each `[rows, columns]`, at any shift: what
    /// [`activate`](Self::activate) turns into the greatest response. ReLU and BatchNorm never change which window wins,
    /// because a kernel whose BatchNorm falls is turned over, so they are needed for the winner only.
    pub(crate) fn greatest_product(&self, windows: impl IntoIterator<Item = Result<Tensor>>) -> Result<Tensor> {
        let mut greatest: Option<Tensor> = None;
        for window in windows {
            let product = self.kernel.matmul(&window?)?;
            greatest = Some(match greatest {
                None => product,
                Some(greatest) => greatest.maximum(&product)?,
            });
        }
        let greatest = greatest.ok_or(candle_core::Error::OpRequiresAtLeastOneTensor { op: "greatest_product" })?;
        let columns = greatest.dim(1)?;
        Ok(greatest.reshape((self.shifts, self.sign.dim(0)?, columns))?.max(0)?)
    }

    /// `[shifts · live, rows]`: see [`FilterBank::sliding`].
    pub(crate) fn kernel(&self) -> &Tensor {
        &self.kernel
    }

    /// The rows of the unfolded input that a window covers.
    pub(crate) fn rows(&self) -> Result<usize> {
        Ok(self.kernel.dim(1)?)
    }

    /// The responses `[filters, columns]` of products from this bank, after ReLU and BatchNorm.
    pub(crate) fn activate(&self, product: &Tensor) -> Result<Tensor> {
        Ok(self.placement.matmul(&self.rectify(product)?)?.broadcast_add(&self.offset)?)
    }

    /// The same of a batch: `[batch, filters, columns]`.
    pub(crate) fn activate_each(&self, products: &Tensor) -> Result<Tensor> {
        Ok(multiply_each(&self.placement, &self.rectify(products)?)?.broadcast_add(&self.offset)?)
    }

    fn rectify(&self, product: &Tensor) -> candle_core::Result<Tensor> {
        product.broadcast_mul(&self.sign)?.broadcast_add(&self.bias)?.relu()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn respond(bank: &FilterBank, input: &Tensor) -> Tensor {
        bank.activate(&bank.greatest_product([Ok(input.clone())]).unwrap()).unwrap()
    }

    fn filter(kernel: &[f32], bias: f32, scale: f32, shift: f32) -> Filter {
        Filter { kernel: kernel.to_vec(), bias, scale, shift }
    }

    fn plain(filter: &Filter, input: &[f32]) -> f32 {
        let product: f32 = filter.kernel.iter().zip(input).map(|(tap, value)| tap * value).sum();
        (product + filter.bias).max(0.0) * filter.scale + filter.shift
    }

    #[test]
    fn rising_falling_and_constant_filters_answer_by_the_definition() {
        let filters = [
            filter(&[0.0, 0.0], 0.5, 3.0, 1.0),
            filter(&[1.0, -2.0], 0.1, -0.7, 0.2),
            filter(&[0.3, 0.4], -0.2, 1.5, -1.0),
            filter(&[0.0, 0.0], -0.5, 3.0, 1.0),
        ];
        let input = [0.4_f32, -1.0, 2.0, 0.3, -0.6, 1.1];
        let column = Tensor::from_slice(&input, (6, 1), &Device::Cpu).unwrap();
        let bank = FilterBank::new(&filters, &Device::Cpu).unwrap();
        assert_eq!(bank.kernel.dims(), [2, 2]);
        let greatest = |bank: &FilterBank, starts: &[usize]| {
            let windows = starts.iter().map(|start| Ok(column.narrow(0, *start, bank.rows()?)?));
            let response = bank.activate(&bank.greatest_product(windows).unwrap()).unwrap();
            response.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let sliding = FilterBank::sliding(&filters, 3, 1, &Device::Cpu).unwrap();
        assert_eq!(greatest(&sliding, &[0, 2]), greatest(&bank, &[0, 1, 2, 3, 4]));
        let greatest = greatest(&bank, &[0, 1, 2, 3, 4]);
        let first = respond(&bank, &column.narrow(0, 0, 2).unwrap()).flatten_all().unwrap();
        for ((filter, greatest), first) in filters.iter().zip(greatest).zip(first.to_vec1::<f32>().unwrap()) {
            let expected = input.windows(2).map(|window| plain(filter, window)).fold(f32::NEG_INFINITY, f32::max);
            assert!((greatest - expected).abs() < 1e-6, "{greatest} {expected}");
            assert!((first - plain(filter, &input[..2])).abs() < 1e-6);
        }
    }

    #[test]
    fn a_bank_of_constants_still_answers() {
        let filters = [filter(&[0.0, 0.0], 0.5, 2.0, 1.0), filter(&[0.0, 0.0], -0.5, 2.0, 1.0)];
        let bank = FilterBank::new(&filters, &Device::Cpu).unwrap();
        let input = Tensor::ones((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(respond(&bank, &input).to_vec2::<f32>().unwrap(), [[2.0; 3], [1.0; 3]]);
    }
}
