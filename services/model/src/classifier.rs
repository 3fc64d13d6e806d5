//! A model on a device, ready to classify.

use crate::{
    DeviceSpec, Logits, Manifest, ModelError, ModelFolder, Result, contract::CHUNK_CELLS, heard::Heard,
    network::Network,
};

/// What a model says of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The probability of every label: see [`Classifier::classify`].
    pub probabilities: Vec<f32>,
    /// `[embedding]`: what the network heard before it named a genre, see [`embedding`](crate::embedding). Empty unless it was
    /// wanted.
    pub embedding: Vec<f32>,
}

/// A model on a device. One thread owns it; on the CPU, `RAYON_NUM_THREADS` threads help with every batch.
pub struct Classifier {
    manifest: Manifest,
    device: DeviceSpec,
    network: Network,
}

impl Classifier {
    /// Puts a model onto a device.
    ///
    /// # Errors
    /// Those of [`DeviceSpec::open`], and where the device is out of memory.
    pub fn load(folder: &ModelFolder, device: DeviceSpec) -> Result<Self> {
        let network = Network::new(folder, &device.open()?)?;
        Ok(Self { manifest: folder.manifest().clone(), device, network })
    }

    /// The probabilities of every label, for every chunk of a batch, in one forward pass. They sum to the probability that
    /// the chunk is music, which is 1 for a model that cannot tell. Chunks are those of the feature
    /// contract: `[mel band][frame]`, one byte a cell. What else is in the batch changes no probability by more than 1e-6.
    ///
    /// # Errors
    /// [`ModelError::ChunkSize`], [`ModelError::Compute`] where the device fails, or [`ModelError::NotFiniteAnswer`].
    pub fn classify(&self, chunks: &[&[u8]]) -> Result<Vec<Vec<f32>>> {
        let answers = self.answers(chunks, false)?;
        Ok(answers.into_iter().map(|answer| answer.probabilities).collect())
    }

    /// The same, with the embedding of every chunk if `want_embeddings`, which costs no more than to hand it out.
    ///
    /// # Errors
    /// Those of [`Classifier::classify`].
    pub fn answers(&self, chunks: &[&[u8]], want_embeddings: bool) -> Result<Vec<Answer>> {
        let answer = |heard: Heard| Answer {
            probabilities: self.logits_of(heard.answer).probabilities(self.manifest.temperature),
            embedding: heard.embedding,
        };
        let answers: Vec<Answer> = self.hear(chunks, want_embeddings)?.into_iter().map(answer).collect();
        let mut numbers = answers.iter().flat_map(|answer| answer.probabilities.iter().chain(&answer.embedding));
        if numbers.all(|number| number.is_finite()) {
            Ok(answers)
        } else {
            Err(ModelError::NotFiniteAnswer(self.manifest.version.clone()))
        }
    }

    /// The logits, before the temperature, of every chunk of a batch: see [`Classifier::classify`].
    ///
    /// # Errors
    /// [`ModelError::ChunkSize`], or [`ModelError::Compute`] where the device fails.
    pub fn logits(&self, chunks: &[&[u8]]) -> Result<Vec<Logits>> {
        Ok(self.hear(chunks, false)?.into_iter().map(|heard| self.logits_of(heard.answer)).collect())
    }

    fn hear(&self, chunks: &[&[u8]], want_embeddings: bool) -> Result<Vec<Heard>> {
        if chunks.is_empty() { Ok(Vec::new()) } else { self.network.hear(chunks, want_embeddings) }
    }

    fn logits_of(&self, answer: Vec<f32>) -> Logits {
        Logits::of_answer(answer, self.manifest.labels.len())
    }

    /// Which batches of up to `most` chunks should be run once, so that no later one is the first of its kind on the device.
    #[must_use]
    pub fn batch_sizes(&self, most: usize) -> Vec<usize> {
        self.network.batch_sizes(most)
    }

    /// Runs one forward pass over `batch` chunks of silence, so that the first real one does not pay for the device's
    /// start.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn warm_up(&self, batch: usize) -> Result<()> {
        let silence = vec![0_u8; CHUNK_CELLS];
        self.classify(&vec![silence.as_slice(); batch]).map(drop)
    }

    /// What the model is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the model is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The hash of the weights.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.manifest.version
    }

    /// The genres, in the order of the probabilities.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.manifest.labels
    }

    /// The feature contract that chunks must follow.
    #[must_use]
    pub fn feature_id(&self) -> &str {
        &self.manifest.feature_id
    }

    /// The network's name.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.manifest.architecture
    }

    /// The device that the model is on.
    #[must_use]
    pub fn device(&self) -> DeviceSpec {
        self.device
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Array;

    #[test]
    fn probabilities_do_not_depend_on_the_batch() {
        let classifier = Classifier::load(&ModelFolder::embedded().unwrap(), DeviceSpec::Cpu).unwrap();
        let chunks: Vec<Vec<u8>> =
            (1..=7).map(|seed| (0..CHUNK_CELLS).map(|cell| (cell * seed * 31 % 251) as u8).collect()).collect();
        let batch: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let together = classifier.classify(&batch).unwrap();
        for (chunk, expected) in batch.iter().zip(together) {
            let alone = classifier.classify(&[chunk]).unwrap().remove(0);
            // The rest is the probability of no music.
            assert!((0.0..1.0 + 1e-5).contains(&alone.iter().sum::<f32>()), "{alone:?}");
            assert!(alone.iter().zip(expected).all(|(alone, expected)| (alone - expected).abs() < 1e-6));
        }
        assert!(classifier.classify(&[]).unwrap().is_empty());
        classifier.warm_up(3).unwrap();
    }

    #[test]
    fn embeddings_come_when_wanted_and_depend_on_the_chunk_alone() {
        for folder in [ModelFolder::embedded().unwrap(), ModelFolder::embedded_small().unwrap()] {
            let classifier = Classifier::load(&folder, DeviceSpec::Cpu).unwrap();
            let chunks: Vec<Vec<u8>> =
                (1..=3).map(|seed| (0..CHUNK_CELLS).map(|cell| (cell * seed * 31 % 251) as u8).collect()).collect();
            let batch: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let together = classifier.answers(&batch, true).unwrap();
            for (chunk, expected) in batch.iter().zip(&together) {
                assert_eq!(expected.embedding.len(), folder.embedding_length().unwrap());
                let alone = classifier.answers(&[chunk], true).unwrap().remove(0);
                assert!(alone.embedding.iter().zip(&expected.embedding).all(|(one, other)| (one - other).abs() < 1e-5));
            }
            assert_ne!(together[0].embedding, together[1].embedding);
            let unwanted = classifier.answers(&batch, false).unwrap();
            for (with, without) in together.iter().zip(&unwanted) {
                assert_eq!((&without.probabilities, without.embedding.len()), (&with.probabilities, 0));
            }
        }
    }

    #[test]
    fn a_chunk_of_another_size_is_named() {
        let classifier = Classifier::load(&ModelFolder::embedded().unwrap(), DeviceSpec::Cpu).unwrap();
        let error = classifier.classify(&[&[0; CHUNK_CELLS], &[0; 5]]).unwrap_err().to_string();
        assert_eq!(error, "chunk 1 of the batch: expected 12288 bytes, found 5");
    }

    #[test]
    fn weights_that_overflow_are_an_error() {
        let folder = ModelFolder::embedded().unwrap();
        let mut weights = folder.weights().clone();
        weights.insert("member.0.genres.weight", Array::new(&[10, 200], vec![f32::MAX; 2_000]).unwrap());
        let broken = ModelFolder::new(folder.manifest().clone(), weights, String::new()).unwrap();
        let classifier = Classifier::load(&broken, DeviceSpec::Cpu).unwrap();
        let error = classifier.warm_up(1).unwrap_err();
        assert!(matches!(error, ModelError::NotFiniteAnswer(_)), "{error}");
    }
}
