//! The network `seed-cnn` as a learner.

use candle_core::{Device, Tensor, Var};
use chorale_model::{Array, SeedCnn, Weights};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{Parameter, Result, Trainable, chance::source, learner::drop_out};

/// The network `seed-cnn`, with weights that can change.
pub struct SeedCnnLearner {
    network: SeedCnn,
    parameters: Vec<Parameter>,
}

impl SeedCnnLearner {
    /// A network with random weights (He initialisation) and `labels` outputs. Equal seeds give equal weights.
    ///
    /// # Errors
    /// Where the device is out of memory.
    pub fn new(labels: usize, seed: u64, device: &Device) -> Result<Self> {
        let mut random = source(seed, "initial weights", 0);
        let parameters = SeedCnn::tensors(labels).into_iter().map(|(name, shape)| {
            let cells = shape.iter().product();
            let inputs = shape.iter().skip(1).product::<usize>();
            // A matrix has inputs and starts at random; a bias has none and starts at zero.
            let values: Vec<f32> = if shape.len() > 1 {
                let reach = (6.0 / inputs as f32).sqrt();
                (0..cells).map(|_| random.random_range(-reach..reach)).collect()
            } else {
                vec![0.0; cells]
            };
            let decays = shape.len() > 1;
            let variable = Var::from_tensor(&Tensor::from_vec(values, shape, device)?)?;
            Ok(Parameter { name, variable, rate: 1.0, decays })
        });
        let parameters = parameters.collect::<Result<Vec<_>>>()?;
        let tensors: Vec<Tensor> = parameters.iter().map(|parameter| parameter.variable.as_tensor().clone()).collect();
        Ok(Self { network: SeedCnn::from_tensors(&tensors)?, parameters })
    }
}

impl Trainable for SeedCnnLearner {
    fn logits(&self, chunks: &Tensor, training: Option<&mut ChaCha8Rng>) -> Result<Tensor> {
        Ok(match training {
            Some(random) => self.network.logits(chunks, |tensor, share| drop_out(&tensor, share, random))?,
            None => self.network.logits(chunks, |tensor, _| Ok(tensor))?,
        })
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn weights(&self, values: &[Tensor]) -> Result<Weights> {
        let mut weights = Weights::default();
        for (parameter, value) in self.parameters.iter().zip(values) {
            let cells = value.flatten_all()?.to_vec1::<f32>()?;
            weights.insert(&parameter.name, Array::new(parameter.variable.dims(), cells)?);
        }
        Ok(weights)
    }
}
