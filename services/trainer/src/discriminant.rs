//! Linear discriminant analysis: the classes of features that are normal with a covariance that all classes share.

use chorale_model::Array;
use nalgebra::DMatrix;

use crate::{Result, TrainerError};

/// A feature with less variance than this only differs by rounding: it is left out.
const LEAST_VARIANCE: f64 = 1e-8;

/// The logarithm of how likely features are in a class, but for what is the same in all of them: linear in the features.
/// All classes are as frequent as the others.
pub(crate) struct Discriminant {
    /// `[features, classes]`
    weight: DMatrix<f64>,
    bias: Vec<f64>,
}

impl Discriminant {
    /// Fits `rows` of features to their classes, each of which has at least one. `shrinkage` is how far correlations are
    /// drawn to 0, from 0 to 1: with few rows, most of them are chance.
    pub(crate) fn fit(rows: &[Vec<f32>], classes: &[usize], count: usize, shrinkage: f64) -> Result<Self> {
        let spreads = Spread::of_columns(rows);
        let mut means = DMatrix::<f64>::zeros(spreads.len(), count);
        let mut sizes = vec![0_usize; count];
        for (row, class) in rows.iter().zip(classes) {
            for ((mean, cell), spread) in means.column_mut(*class).iter_mut().zip(row).zip(&spreads) {
                *mean += spread.standard(*cell);
            }
            sizes.iter_mut().skip(*class).take(1).for_each(|size| *size += 1);
        }
        for (mut mean, size) in means.column_iter_mut().zip(sizes) {
            mean /= size.max(1) as f64;
        }
        let mut centred = DMatrix::<f64>::zeros(spreads.len(), rows.len());
        for (mut column, (row, class)) in centred.column_iter_mut().zip(rows.iter().zip(classes)) {
            let cells = row.iter().zip(&spreads).map(|(cell, spread)| spread.standard(*cell));
            for ((difference, cell), mean) in column.iter_mut().zip(cells).zip(&means.column(*class)) {
                *difference = cell - mean;
            }
        }
        let covariance = &centred * centred.transpose() / rows.len().max(1) as f64;
        // What never changes would have no variance to divide by.
        let variances = covariance.diagonal().map(|variance| if variance > 0.0 { variance } else { 1.0 });
        let drawn = covariance * (1.0 - shrinkage) + DMatrix::from_diagonal(&variances) * shrinkage;
        let mut weight = drawn.cholesky().ok_or(TrainerError::NoDiscriminant)?.solve(&means);
        let mut bias: Vec<f64> =
            means.column_iter().zip(weight.column_iter()).map(|(mean, weight)| -0.5 * mean.dot(&weight)).collect();
        for (mut column, bias) in weight.column_iter_mut().zip(&mut bias) {
            for (weight, spread) in column.iter_mut().zip(&spreads) {
                *weight *= spread.scale;
                *bias -= *weight * spread.mean;
            }
        }
        Ok(Self { weight, bias })
    }

    /// `[classes, features]` and `[classes]`, times `factor`.
    pub(crate) fn arrays(&self, factor: f64) -> Result<[Array; 2]> {
        let [features, classes] = [self.weight.nrows(), self.weight.ncols()];
        let scaled = |value: &f64| (value * factor) as f32;
        Ok([
            // nalgebra has columns first.
            Array::new(&[classes, features], self.weight.iter().map(scaled).collect())?,
            Array::new(&[classes], self.bias.iter().map(scaled).collect())?,
        ])
    }

    /// How much more likely the second class is than the first.
    pub(crate) fn second_against_first(&self) -> Result<[Array; 2]> {
        let [weight, bias] = self.arrays(1.0)?;
        let (first, second) = weight.values().split_at(self.weight.nrows());
        let weight: Vec<f32> = second.iter().zip(first).map(|(second, first)| second - first).collect();
        let bias = bias.values().iter().rev().copied().reduce(|second, first| second - first).unwrap_or_default();
        Ok([Array::new(&[1, weight.len()], weight)?, Array::new(&[1], vec![bias])?])
    }
}

/// How a feature is distributed over all rows.
struct Spread {
    mean: f64,
    /// One over the standard deviation; 0 where there is next to none.
    scale: f64,
}

impl Spread {
    fn of_columns(rows: &[Vec<f32>]) -> Vec<Self> {
        let count = rows.len().max(1) as f64;
        let of_column = |column: usize| {
            let cells = || rows.iter().filter_map(|row| row.get(column).copied().map(f64::from));
            let mean = cells().sum::<f64>() / count;
            let variance = cells().map(|cell| (cell - mean).powi(2)).sum::<f64>() / count;
            Self { mean, scale: if variance < LEAST_VARIANCE { 0.0 } else { 1.0 / variance.sqrt() } }
        };
        (0..rows.first().map_or(0, Vec::len)).map(of_column).collect()
    }

    fn standard(&self, cell: f32) -> f64 {
        (f64::from(cell) - self.mean) * self.scale
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::chance::source;

    /// Rows around one of two centres, stretched along the diagonal.
    fn rows(count: usize) -> (Vec<Vec<f32>>, Vec<usize>) {
        let mut random = source(1, "discriminant", 0);
        let mut row = |class: usize| {
            // The sum of twelve uniform numbers is near enough to a normal one.
            let mut normal = || (0..12).map(|_| random.random_range(-0.5..0.5_f32)).sum::<f32>();
            let (along, across) = (3.0 * normal(), 0.5 * normal());
            let centre = if class == 0 { -1.0 } else { 1.0 };
            vec![along + across + centre, along - across - centre]
        };
        (0..count).map(|index| (row(index % 2), index % 2)).unzip()
    }

    #[test]
    fn it_is_the_textbook_s() {
        let (rows, classes) = rows(20_000);
        let found = Discriminant::fit(&rows, &classes, 2, 0.0).unwrap();
        let [weight, bias] = found.second_against_first().unwrap();
        // Σ⁻¹ (μ₂ − μ₁): the centres are (1, −1) and (−1, 1), and across the diagonal the variance is 2 · 0.5².
        for (found, expected) in weight.values().iter().zip([4.0, -4.0]) {
            assert!((found - expected).abs() < 0.3, "{:?}", weight.values());
        }
        assert!(bias.values()[0].abs() < 0.2, "{:?}", bias.values());
        let [all, biases] = found.arrays(0.5).unwrap();
        assert_eq!((all.shape(), biases.shape()), (&[2, 2][..], &[2][..]));
        assert!((2.0 * (all.values()[2] - all.values()[0]) - weight.values()[0]).abs() < 1e-4);
    }

    #[test]
    fn shrinkage_forgets_correlations_and_constants_do_no_harm() {
        let (rows, classes) = rows(20_000);
        let weight =
            |shrinkage| Discriminant::fit(&rows, &classes, 2, shrinkage).unwrap().second_against_first().unwrap();
        // Without correlations, the variance along each axis is 9 + 0.25.
        let [alone, _] = weight(1.0);
        assert!((alone.values()[0] - 2.0 / 9.25).abs() < 0.02, "{:?}", alone.values());
        assert!(weight(0.1)[0].values()[0] < weight(0.0)[0].values()[0]);

        // A constant that rounding has touched, and features far from 0 in other units: their answers stay the same.
        let others: Vec<Vec<f32>> = (rows.iter().enumerate())
            .map(|(index, row)| vec![row[0] * 1e-2 + 50.0, row[1] * 1e-2, 7.0 + (index % 3) as f32 * 1e-6])
            .collect();
        let found = Discriminant::fit(&others, &classes, 2, 0.1).unwrap();
        let ([expected, _], [weight, bias]) = (weight(0.1), found.second_against_first().unwrap());
        assert!((weight.values()[0] * 1e-2 - expected.values()[0]).abs() < 1e-2, "{:?}", weight.values());
        assert_eq!(weight.values()[2], 0.0);
        assert!((bias.values()[0] + weight.values()[0] * 50.0).abs() < 0.5, "{:?}", bias.values());
        assert!(found.arrays(1.0).unwrap()[0].values().iter().all(|cell| cell.abs() < 1e4));
    }

    #[test]
    fn features_that_are_not_numbers_are_an_error() {
        let rows = vec![vec![f32::NAN, 1.0], vec![0.0, 1.0]];
        assert!(Discriminant::fit(&rows, &[0, 1], 2, 0.1).is_err());
    }
}
