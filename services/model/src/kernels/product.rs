//! Matrix products with weights that are laid out for them.

use pulp::{Simd, WithSimd};

use super::{Instructions, load, store};

/// Rows that are computed together. Their sums, over [`VECTORS`] vectors of columns, fill the registers of AVX2.
pub(crate) const ROWS: usize = 6;
const VECTORS: usize = 2;
/// Columns of a panel: [`VECTORS`] vectors of AVX-512.
const PANEL: usize = 32;

/// A matrix, in panels of [`PANEL`] columns.
pub(crate) struct Panels {
    inner: usize,
    /// For every panel, its rows.
    panels: Vec<Vec<[f32; PANEL]>>,
}

impl Panels {
    /// The matrix `[inner][columns]` of `cells`.
    pub(crate) fn new(cells: &[f32], columns: usize) -> Self {
        let panels = (0..columns).step_by(PANEL).map(|first| {
            let rows = cells.chunks_exact(columns);
            rows.map(|row| std::array::from_fn(|column| row.get(first + column).copied().unwrap_or(0.0))).collect()
        });
        Self { inner: cells.len() / columns, panels: panels.collect() }
    }

    /// Columns of a product, those that fill up the last panel included.
    pub(crate) fn columns(&self) -> usize {
        self.panels.len() * PANEL
    }

    /// `left · self`, where row `r` of `left` are the cells from `r · stride` on: rows may overlap. `product` is
    /// `[rows][columns]`, and its rows are a multiple of [`ROWS`].
    pub(crate) fn product(&self, instructions: Instructions, left: &[f32], stride: usize, product: &mut [f32]) {
        instructions.run(Product { matrix: self, left, stride, product });
    }
}

struct Product<'a> {
    matrix: &'a Panels,
    left: &'a [f32],
    stride: usize,
    product: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { matrix, left, stride, product } = self;
        let (inner, columns, together) = (matrix.inner, matrix.columns(), VECTORS * S::F32_LANES);
        for (panel, matrix) in matrix.panels.iter().enumerate() {
            for (block, product) in product.chunks_exact_mut(ROWS * columns).enumerate() {
                let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &left[(block * ROWS + row) * stride..][..inner]);
                for first in (0..PANEL).step_by(together) {
                    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
                    for (index, weights) in matrix[..inner].iter().enumerate() {
                        let weights: [S::f32s; VECTORS] = load(simd, &weights[first..]);
                        for (sums, row) in sums.iter_mut().zip(rows) {
                            let value = simd.splat_f32s(row[index]);
                            for (sum, weight) in sums.iter_mut().zip(weights) {
                                *sum = simd.mul_add_e_f32s(value, weight, *sum);
                            }
                        }
                    }
                    for (row, sums) in product.chunks_exact_mut(columns).zip(sums) {
                        store::<S, VECTORS>(&mut row[panel * PANEL + first..], sums);
                    }
                }
            }
        }
    }
}

/// The product of every row of `matrix` with `vector`, which is as long.
pub(crate) fn dots(instructions: Instructions, matrix: &[f32], vector: &[f32]) -> Vec<f32> {
    instructions.run(Dots { matrix, vector })
}

struct Dots<'a> {
    matrix: &'a [f32],
    vector: &'a [f32],
}

impl WithSimd for Dots<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        /// Sums that do not wait for each other.
        const SUMS: usize = 4;
        let (vectors, last) = S::as_simd_f32s(self.vector);
        let mut products = Vec::with_capacity(self.matrix.len() / self.vector.len());
        for row in self.matrix.chunks_exact(self.vector.len()) {
            let (row_vectors, row_last) = S::as_simd_f32s(row);
            let (groups, row_groups) = (vectors.as_chunks::<SUMS>(), row_vectors.as_chunks::<SUMS>());
            let mut sums = [simd.splat_f32s(0.0); SUMS];
            for (left, right) in groups.0.iter().zip(row_groups.0) {
                for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
                    *sum = simd.mul_add_e_f32s(*left, *right, *sum);
                }
            }
            for ((sum, left), right) in sums.iter_mut().zip(groups.1).zip(row_groups.1) {
                *sum = simd.mul_add_e_f32s(*left, *right, *sum);
            }
            let [a, b, c, d] = sums;
            let sum = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
            products.push(sum + last.iter().zip(row_last).map(|(left, right)| left * right).sum::<f32>());
        }
        products
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, noise};

    #[test]
    fn products_are_those_of_the_definition() {
        // Rows that overlap, that touch and that are apart.
        for (inner, columns, stride) in [(1, 1, 1), (12, 64, 4), (7, 33, 7), (5, 96, 9)] {
            let (matrix, left) = (noise(inner * columns, 1), noise(2 * ROWS * stride + inner, 2));
            let panels = Panels::new(&matrix, columns);
            for instructions in Instructions::all() {
                let mut product = vec![0.0; 2 * ROWS * panels.columns()];
                panels.product(instructions, &left, stride, &mut product);
                for (row, product) in product.chunks_exact(panels.columns()).enumerate() {
                    let expected = (0..columns).map(|column| {
                        let cells = matrix.iter().skip(column).step_by(columns);
                        left[row * stride..].iter().zip(cells).map(|(left, right)| left * right).sum()
                    });
                    assert_close(&product[..columns], &expected.collect::<Vec<f32>>());
                }
            }
        }
    }

    #[test]
    fn dots_are_those_of_the_definition() {
        for length in [1, 5, 16, 63, 200, 512] {
            let (matrix, vector) = (noise(3 * length, 1), noise(length, 2));
            let expected: Vec<f32> = (matrix.chunks_exact(length))
                .map(|row| row.iter().zip(&vector).map(|(left, right)| left * right).sum())
                .collect();
            for instructions in Instructions::all() {
                assert_close(&dots(instructions, &matrix, &vector), &expected);
            }
        }
    }
}
