//! Learning from what another model says, as well as from the labels.
//!
//! Labels say what a whole track is; a teacher says what it hears in a chunk, and how sure it is of that. A network that is
//! too small to find out by itself can learn it (Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network",
//! 2015). One that starts from its teacher can also learn to have the same features, which say more than ten genres do
//! (Romero et al., "FitNets: hints for thin deep nets", 2015).

use candle_core::{D, Device, Tensor};
use candle_nn::ops::softmax;
use chorale_model::{Ensemble, EnsembleStart, ModelFolder, Weights};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::{Backbone, EnsembleLearner, Examples, Parameter, Result, Trainable, TrainerError, learner::cross_entropy};

/// A model to learn from.
#[derive(Clone, Debug)]
pub struct Teaching {
    /// An ensemble with the same labels.
    pub model: ModelFolder,
    /// How much of every target is what the model says; the rest is the label.
    pub share: f64,
    /// What the mean squared difference of a chunk's features from those of the model's first member counts, beside the
    /// cross-entropy. Where it is not 0, the network has to start from the model.
    pub features: f64,
}

impl Teaching {
    /// What changes the result of training.
    pub(crate) fn context(&self) -> Value {
        json!({ "version": self.model.manifest().version, "share": self.share, "features": self.features })
    }

    /// What the manifest says of it.
    pub(crate) fn origin(&self) -> String {
        let manifest = self.model.manifest();
        let features = if self.features > 0.0 { ", and for its features" } else { "" };
        format!("{} {}, for {} % of every target{features}", manifest.name, manifest.version, 100.0 * self.share)
    }

    /// Checks that the numbers make sense, for a network that starts from `start`.
    ///
    /// # Errors
    /// [`TrainerError::Option`].
    pub(crate) fn check(&self, start: &Backbone) -> Result<()> {
        let option = |fits: bool, option, expected, found: String| {
            if fits { Ok(()) } else { Err(TrainerError::Option { option, expected, found }) }
        };
        option((0.0..=1.0).contains(&self.share), "teacher's share", "0 to 1", self.share.to_string())?;
        let features = self.features;
        option((0.0..=1e3).contains(&features), "teacher's features", "0 to 1000", features.to_string())?;
        let version = &self.model.manifest().version;
        let starts_from_it = features == 0.0 || start.digest == *version;
        option(starts_from_it, "teacher's features", "a backbone that is the teacher", start.digest.clone())
    }
}

/// A learner with a teacher beside it.
pub(crate) struct Taught {
    learner: EnsembleLearner,
    teacher: Ensemble,
    temperature: f64,
    share: f64,
    /// The teacher's features that those of the learner stand for, and what their difference counts.
    features: Option<(Tensor, f64)>,
}

impl Taught {
    /// `learner` started from `start`, which is the teacher where its features are to be learnt.
    ///
    /// # Errors
    /// Where the model is no ensemble or has other labels than `train`, or the device is out of memory.
    pub(crate) fn new(
        learner: EnsembleLearner,
        start: &EnsembleStart,
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
        let features = if teaching.features > 0.0 {
            let features: Vec<u32> = start.features.iter().map(|feature| *feature as u32).collect();
            let count = features.len();
            Some((Tensor::from_vec(features, count, device)?, teaching.features))
        } else {
            None
        };
        Ok(Self { learner, teacher, temperature: manifest.temperature, share: teaching.share, features })
    }

    /// What the teacher wants: for chunks with these labels, the targets and the features of its first member.
    fn lesson(&self, chunks: &Tensor, labels: Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let (features, logits) = self.teacher.hear(chunks)?;
        let says = softmax(&(logits / self.temperature)?, D::Minus1)?;
        let targets = ((labels * (1.0 - self.share))? + (says * self.share)?)?.detach();
        Ok((targets, features.into_iter().next()))
    }
}

impl Trainable for Taught {
    fn logits(&self, chunks: &Tensor, training: Option<&mut ChaCha8Rng>) -> Result<Tensor> {
        self.learner.logits(chunks, training)
    }

    fn loss(&self, chunks: &Tensor, labels: Tensor, random: &mut ChaCha8Rng) -> Result<(Tensor, Tensor)> {
        let (targets, wanted) = self.lesson(chunks, labels)?;
        let features = self.learner.features(chunks)?;
        let logits = self.learner.answer(&features, Some(random))?;
        let mut loss = cross_entropy(&logits, &targets)?;
        if let (Some((stands_for, weight)), Some(wanted)) = (&self.features, wanted) {
            let wanted = wanted.index_select(stands_for, 1)?.detach();
            for features in &features {
                // A mean over features, a sum over chunks.
                let apart = (features - &wanted)?.sqr()?.mean(1)?.sum_all()?;
                loss = (loss + (apart * *weight)?)?;
            }
        }
        Ok((loss, logits))
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
    use chorale_model::{
        Architecture, Classifier, DeviceSpec, Manifest,
        contract::{CHUNK_CELLS, CHUNK_FRAMES, MEL_BANDS, dequantize},
    };

    use super::*;
    use crate::{ChunkedTrack, EnsembleOptions, chance::source};

    fn chunk() -> Vec<u8> {
        (0..CHUNK_CELLS).map(|cell| (cell * 31 % 7_919 % 256) as u8).collect()
    }

    fn cells() -> Tensor {
        let cells: Vec<f32> = chunk().iter().map(|cell| dequantize(*cell)).collect();
        Tensor::from_vec(cells, (1, MEL_BANDS, CHUNK_FRAMES), &Device::Cpu).unwrap()
    }

    fn label() -> Tensor {
        let label: Vec<f32> = (0..10).map(|genre| f32::from(u8::from(genre == 3))).collect();
        Tensor::from_vec(label, (1, 10), &Device::Cpu).unwrap()
    }

    fn small_at(temperature: f64) -> ModelFolder {
        let small = ModelFolder::embedded_small().unwrap();
        let manifest = Manifest { temperature, ..small.manifest().clone() };
        ModelFolder::new(manifest, small.weights().clone(), String::new()).unwrap()
    }

    /// A small network that starts from `model` and learns from it.
    fn taught_by(model: ModelFolder, features: f64) -> Taught {
        let labels = &model.manifest().labels;
        let track = ChunkedTrack { name: "a".to_owned(), genre: labels[3].clone(), chunks: vec![chunk()] };
        let train = Examples::new(vec![track], labels).unwrap();
        let shape = Architecture::Small.ensemble().unwrap();
        let start = EnsembleStart::of_model(&model, shape).unwrap();
        let options = EnsembleOptions { members: 1, dropout: 0.0, ..EnsembleOptions::default() };
        let learner = EnsembleLearner::new(&start, shape, &options, &train, 1, &Device::Cpu).unwrap();
        let teaching = Teaching { model, share: 0.8, features };
        Taught::new(learner, &start, &teaching, &train, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_target_is_what_the_teacher_says_at_its_temperature_and_the_label() {
        let (model, taught) = (small_at(2.5), taught_by(small_at(2.5), 0.0));
        let says = &Classifier::load(&model, DeviceSpec::Cpu).unwrap().classify(&[&chunk()]).unwrap()[0];
        // What lacks to 1 is that of no music, of which a teacher says nothing.
        let music: f32 = says.iter().sum();
        let (targets, _) = taught.lesson(&cells(), label()).unwrap();
        let (targets, label) = (targets.to_vec2::<f32>().unwrap(), label().to_vec2::<f32>().unwrap());
        for ((target, says), label) in targets[0].iter().zip(says).zip(&label[0]) {
            assert!((target - (0.8 * says / music + 0.2 * label)).abs() < 1e-5, "{target} {says} {label}");
        }
    }

    #[test]
    fn features_count_by_how_far_they_are_from_the_teacher_s() {
        let loss = |taught: &Taught| {
            let (loss, logits) = taught.loss(&cells(), label(), &mut source(1, "dropout", 0)).unwrap();
            (loss.to_scalar::<f32>().unwrap(), logits.to_vec2::<f32>().unwrap())
        };
        let (with, without) = (taught_by(small_at(1.0), 10.0), taught_by(small_at(1.0), 0.0));
        // It starts with the features of its teacher.
        let (first, same) = (loss(&with), loss(&without));
        assert!((first.0 - same.0).abs() < 1e-4 && first.1 == same.1, "{first:?} {same:?}");

        // Then it turns what its last layer says down, and with it the features of that layer.
        let change = |taught: &Taught| {
            let parameters = taught.parameters().iter();
            for parameter in parameters.filter(|parameter| parameter.name.ends_with("mid.2.norm.scale")) {
                parameter.variable.set(&(parameter.variable.as_tensor() * 0.5).unwrap()).unwrap();
            }
        };
        let before = with.learner.features(&cells()).unwrap().remove(0);
        change(&with);
        change(&without);
        let after = with.learner.features(&cells()).unwrap().remove(0);
        let apart = (after - before).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(apart > 1e-3, "{apart}");
        let more = loss(&with).0 - loss(&without).0;
        assert!((more - 10.0 * apart).abs() < 1e-3 * more, "{more} {apart}");

        // Chunks add up.
        let twice = |tensor: Tensor| Tensor::cat(&[&tensor, &tensor], 0).unwrap();
        let two = with.loss(&twice(cells()), twice(label()), &mut source(1, "dropout", 0)).unwrap().0;
        let two = two.to_scalar::<f32>().unwrap();
        assert!((two - 2.0 * loss(&with).0).abs() < 1e-3 * two, "{two}");

        // A larger teacher has features that the small one has not, and of the others, nearly the same.
        let default = || ModelFolder::embedded().unwrap();
        let more = loss(&taught_by(default(), 1.0)).0 - loss(&taught_by(default(), 0.0)).0;
        let wanted = taught_by(default(), 1.0).lesson(&cells(), label()).unwrap().1.unwrap();
        let all = wanted.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(more > 0.0 && more < 0.3 * all, "{more} of {all}");
    }
}
