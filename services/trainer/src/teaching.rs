//! Learning from what another model says, as well as from the labels.
//!
//! Labels say what a whole track is; a teacher says what it hears in a chunk, and how sure it is of that. A network that is
//! too small to find out by itself can learn it (Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network",
//! 2015).

use candle_core::{D, Device, Tensor};
use candle_nn::ops::softmax;
use chorale_model::{Ensemble, ModelFolder, Weights};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::{Examples, Parameter, Result, Trainable, TrainerError};

/// A model to learn from.
#[derive(Clone, Debug)]
pub struct Teaching {
    /// An ensemble with the same labels.
    pub model: ModelFolder,
    /// How much of every target is what the model says; the rest is the label.
    pub share: f64,
}

impl Teaching {
    /// What changes the result of training.
    pub(crate) fn context(&self) -> Value {
        json!({ "version": self.model.manifest().version, "share": self.share })
    }

    /// What the manifest says of it.
    pub(crate) fn origin(&self) -> String {
        let manifest = self.model.manifest();
        format!("{} {}, for {} % of every target", manifest.name, manifest.version, 100.0 * self.share)
    }

    /// Checks that the share makes sense.
    ///
    /// # Errors
    /// [`TrainerError::Option`].
    pub(crate) fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.share) {
            return Ok(());
        }
        let found = self.share.to_string();
        Err(TrainerError::Option { option: "teacher's share", expected: "0 to 1", found })
    }
}

/// A learner with a teacher beside it.
pub(crate) struct Taught {
    learner: Box<dyn Trainable>,
    teacher: Ensemble,
    temperature: f64,
    share: f64,
}

impl Taught {
    /// # Errors
    /// Where the model is no ensemble or has other labels than `train`, or the device is out of memory.
    pub(crate) fn new(
        learner: Box<dyn Trainable>,
        teaching: &Teaching,
        train: &Examples,
        device: &Device,
    ) -> Result<Self> {
        let manifest = teaching.model.manifest();
        let shape = manifest.network()?.ensemble().filter(|_| manifest.labels == train.label_names());
        let shape = shape.ok_or_else(|| TrainerError::Option {
            option: "teacher",
            expected: "an ensemble with the labels of the data",
            found: format!("{} for {}", manifest.architecture, manifest.labels.join(", ")),
        })?;
        let teacher = Ensemble::new(teaching.model.weights(), shape, train.labels(), device)?;
        Ok(Self { learner, teacher, temperature: manifest.temperature, share: teaching.share })
    }
}

impl Trainable for Taught {
    fn logits(&self, chunks: &Tensor, training: Option<&mut ChaCha8Rng>) -> Result<Tensor> {
        self.learner.logits(chunks, training)
    }

    fn targets(&self, chunks: &Tensor, labels: Tensor) -> Result<Tensor> {
        let says = softmax(&(self.teacher.hear(chunks)? / self.temperature)?, D::Minus1)?;
        Ok(((labels * (1.0 - self.share))? + (says * self.share)?)?.detach())
    }

    fn answers(&self) -> usize {
        self.learner.answers()
    }

    fn parameters(&self) -> &[Parameter] {
        self.learner.parameters()
    }

    fn weights(&self, values: &[Tensor]) -> Result<Weights> {
        self.learner.weights(values)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use chorale_model::{
        Classifier, DeviceSpec, Manifest,
        contract::{CHUNK_CELLS, CHUNK_FRAMES, MEL_BANDS, dequantize},
    };

    use super::*;

    /// Knows nothing and cannot learn.
    struct Nobody;

    impl Trainable for Nobody {
        fn logits(&self, _: &Tensor, _: Option<&mut ChaCha8Rng>) -> Result<Tensor> {
            Ok(Tensor::zeros((1, 10), DType::F32, &Device::Cpu)?)
        }

        fn parameters(&self) -> &[Parameter] {
            &[]
        }

        fn weights(&self, _: &[Tensor]) -> Result<Weights> {
            Ok(Weights::default())
        }
    }

    #[test]
    fn a_target_is_what_the_teacher_says_at_its_temperature_and_the_label() {
        let small = ModelFolder::embedded_small().unwrap();
        let manifest = Manifest { temperature: 2.5, ..small.manifest().clone() };
        let model = ModelFolder::new(manifest, small.weights().clone(), String::new()).unwrap();
        let chunk: Vec<u8> = (0..CHUNK_CELLS).map(|cell| (cell * 31 % 7_919 % 256) as u8).collect();
        let says = &Classifier::load(&model, DeviceSpec::Cpu).unwrap().classify(&[&chunk]).unwrap()[0];
        // What lacks to 1 is that of no music, of which a teacher says nothing.
        let music: f32 = says.iter().sum();

        let train = Examples::new(Vec::new(), &model.manifest().labels).unwrap();
        let teaching = Teaching { model: model.clone(), share: 0.8 };
        let taught = Taught::new(Box::new(Nobody), &teaching, &train, &Device::Cpu).unwrap();
        let cells: Vec<f32> = chunk.iter().map(|cell| dequantize(*cell)).collect();
        let chunks = Tensor::from_vec(cells, (1, MEL_BANDS, CHUNK_FRAMES), &Device::Cpu).unwrap();
        let label: Vec<f32> = (0..10).map(|genre| f32::from(u8::from(genre == 3))).collect();
        let targets = taught.targets(&chunks, Tensor::from_slice(&label, (1, 10), &Device::Cpu).unwrap()).unwrap();
        for ((target, says), label) in targets.to_vec2::<f32>().unwrap()[0].iter().zip(says).zip(&label) {
            assert!((target - (0.8 * says / music + 0.2 * label)).abs() < 1e-5, "{target} {says} {label}");
        }
    }
}
