//! Adam, whose state can be kept and taken up again.

use candle_core::Tensor;
use serde::Serialize;

use crate::{Parameter, Result, cells};

const EPSILON: f64 = 1e-8;

/// How the optimizer turns gradients into steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimizerOptions {
    /// How much of the mean gradient is kept in each step.
    pub momentum: f64,
    /// How much of the mean squared gradient is kept in each step.
    pub square_momentum: f64,
    /// The share of every weight that decays that is taken away in each step, times the step size (AdamW); 0 for Adam.
    pub weight_decay: f64,
    /// The greatest norm of all gradients together; longer ones are made as long. None for no limit.
    pub clip: Option<f64>,
}

impl Default for OptimizerOptions {
    fn default() -> Self {
        Self { momentum: 0.9, square_momentum: 0.999, weight_decay: 0.0, clip: Some(5.0) }
    }
}

/// Adam with bias correction and decoupled weight decay.
#[derive(Debug)]
pub struct Adam {
    options: OptimizerOptions,
    /// Steps taken.
    pub(crate) steps: u64,
    /// The mean gradient of every parameter.
    pub(crate) means: Vec<Tensor>,
    /// The mean squared gradient of every parameter.
    pub(crate) squares: Vec<Tensor>,
}

impl Adam {
    /// An optimizer that has not taken a step.
    ///
    /// # Errors
    /// Where the device is out of memory.
    pub fn new(parameters: &[Parameter], options: OptimizerOptions) -> Result<Self> {
        let zeros = || parameters.iter().map(|parameter| parameter.variable.zeros_like());
        Ok(Self {
            options,
            steps: 0,
            means: zeros().collect::<candle_core::Result<_>>()?,
            squares: zeros().collect::<candle_core::Result<_>>()?,
        })
    }

    /// Takes a step down the gradients, which are in the order of the parameters and contiguous.
    ///
    /// # Errors
    /// Where shapes do not fit, or the device fails.
    pub fn step(&mut self, parameters: &[Parameter], mut gradients: Vec<Tensor>, learning_rate: f64) -> Result<()> {
        self.steps += 1;
        if let Some(limit) = self.options.clip {
            let squares = gradients.iter().map(cells::sum_of_squares).sum::<candle_core::Result<f64>>()?;
            let norm = squares.sqrt();
            if norm > limit {
                gradients.iter_mut().try_for_each(|gradient| cells::scale(gradient, limit / norm))?;
            }
        }
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let mean_correction = 1.0 / (1.0 - self.options.momentum.powi(steps));
        let square_correction = 1.0 / (1.0 - self.options.square_momentum.powi(steps));
        let state = self.means.iter_mut().zip(&mut self.squares);
        for ((parameter, gradient), (mean, square)) in parameters.iter().zip(&gradients).zip(state) {
            cells::blend(mean, gradient, self.options.momentum)?;
            cells::blend_square(square, gradient, self.options.square_momentum)?;
            let rate = learning_rate * parameter.rate;
            let keep = if parameter.decays { 1.0 - rate * self.options.weight_decay } else { 1.0 };
            let variable = &parameter.variable;
            if cells::on_cpu(variable) {
                let (step, keep) = ((rate * mean_correction) as f32, keep as f32);
                let (correction, epsilon) = (square_correction as f32, EPSILON as f32);
                cells::change(variable, mean, square, |weight, mean, square| {
                    *weight = *weight * keep - step * mean / ((square * correction).sqrt() + epsilon);
                })?;
            } else {
                let direction = (&*mean / ((&*square * square_correction)?.sqrt()? + EPSILON)?)?;
                let weight = ((variable.as_tensor() * keep)? - (direction * (rate * mean_correction))?)?;
                variable.set(&weight)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use candle_nn::{AdamW, Optimizer, ParamsAdamW};

    fn parameter(values: &[f32]) -> Parameter {
        let variable = Var::new(values, &Device::Cpu).unwrap();
        Parameter { name: "w".to_owned(), variable, rate: 1.0, decays: true }
    }

    fn loss(variable: &Var) -> Tensor {
        let target = Tensor::new(&[3_f32, -1.0, 0.5], &Device::Cpu).unwrap();
        (variable.as_tensor() - target).unwrap().sqr().unwrap().sum_all().unwrap()
    }

    fn values(variable: &Var) -> Vec<f32> {
        variable.to_vec1().unwrap()
    }

    #[test]
    fn steps_are_those_of_candle() {
        let (ours, theirs) = (parameter(&[1.0, 2.0, -4.0]), parameter(&[1.0, 2.0, -4.0]));
        let options = OptimizerOptions { weight_decay: 0.1, clip: None, ..OptimizerOptions::default() };
        let mut adam = Adam::new(std::slice::from_ref(&ours), options).unwrap();
        let params = ParamsAdamW { lr: 0.05, weight_decay: 0.1, ..ParamsAdamW::default() };
        let mut reference = AdamW::new(vec![theirs.variable.clone()], params).unwrap();
        for _ in 0..30 {
            let gradient = loss(&ours.variable).backward().unwrap().remove(&ours.variable).unwrap();
            adam.step(std::slice::from_ref(&ours), vec![gradient], 0.05).unwrap();
            reference.backward_step(&loss(&theirs.variable)).unwrap();
        }
        for (ours, theirs) in values(&ours.variable).iter().zip(values(&theirs.variable)) {
            assert!((ours - theirs).abs() < 1e-5, "{ours} {theirs}");
        }
    }

    #[test]
    fn long_gradients_are_clipped_and_the_rate_is_the_parameters_own() {
        let still = Parameter { rate: 0.0, ..parameter(&[1.0, 1.0, 1.0]) };
        let mut adam = Adam::new(std::slice::from_ref(&still), OptimizerOptions::default()).unwrap();
        let gradient = Tensor::new(&[300_f32, 0.0, 400.0], &Device::Cpu).unwrap();
        adam.step(std::slice::from_ref(&still), vec![gradient], 0.1).unwrap();
        assert_eq!(values(&still.variable), [1.0, 1.0, 1.0]);
        let mean: Vec<f32> = adam.means[0].to_vec1().unwrap();
        assert!((mean[0] - 0.3).abs() < 1e-6 && (mean[2] - 0.4).abs() < 1e-6, "{mean:?}");
    }
}
