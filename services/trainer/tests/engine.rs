//! The training engine on networks and data that are small enough to wait for.

#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use candle_core::{Device, Tensor, Var};
use chorale_model::{
    Array, Weights,
    contract::{CHUNK_CELLS, MEL_BANDS},
};
use chorale_trainer::{
    Checkpoint, ChunkedTrack, Decline, Examples, LearnOptions, Learnt, NoAugmentation, Parameter, Progress, Result,
    Run, Schedule, Trainable, TrainerError, drop_out, learn,
};
use rand_chacha::ChaCha8Rng;

/// A linear map of the mean level of every band.
struct Tiny {
    parameters: Vec<Parameter>,
    /// Training passes until it fails, as if the machine had stopped.
    left: AtomicUsize,
}

impl Tiny {
    fn new(left: usize) -> Self {
        let start: Vec<f32> = (0..2 * MEL_BANDS).map(|cell| ((cell * 7) % 11) as f32 / 50.0 - 0.1).collect();
        let variable = |values: Tensor| Var::from_tensor(&values).unwrap();
        let weight = variable(Tensor::from_vec(start, (2, MEL_BANDS), &Device::Cpu).unwrap());
        let bias = variable(Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap());
        let parameters = vec![
            Parameter { name: "weight".to_owned(), variable: weight, rate: 1.0, decays: true },
            Parameter { name: "bias".to_owned(), variable: bias, rate: 2.0, decays: false },
        ];
        Self { parameters, left: AtomicUsize::new(left) }
    }
}

impl Trainable for Tiny {
    fn logits(&self, chunks: &Tensor, training: Option<&mut ChaCha8Rng>) -> Result<Tensor> {
        let mut bands = chunks.mean(2)?.affine(1.0 / 80.0, 1.0)?;
        if let Some(random) = training {
            let spent = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
            if spent {
                return Err(TrainerError::Options("the machine stops".to_owned()));
            }
            bands = drop_out(&bands, 0.3, random)?;
        }
        let weight = self.parameters[0].variable.as_tensor();
        Ok(bands.matmul(&weight.t()?)?.broadcast_add(self.parameters[1].variable.as_tensor())?)
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn weights(&self, values: &[Tensor]) -> Result<Weights> {
        let mut weights = Weights::default();
        for (parameter, value) in self.parameters.iter().zip(values) {
            weights.insert(&parameter.name, Array::new(value.dims(), value.flatten_all()?.to_vec1()?)?);
        }
        Ok(weights)
    }
}

/// Two genres, one louder in low bands and one in high ones, with many exceptions.
fn examples(tracks: std::ops::Range<usize>) -> Examples {
    let track = |index: usize| {
        let loud = if index.is_multiple_of(2) { 0..64 } else { 64..128 };
        let level = |cell: usize| if loud.contains(&(cell / 96)) { 150 } else { 110 };
        let chunk = |chunk: usize| {
            (0..CHUNK_CELLS).map(|cell| (level(cell) + (cell * (index + 3) * (chunk + 2)) % 97) as u8).collect()
        };
        ChunkedTrack {
            name: format!("track {index}"),
            genre: if index.is_multiple_of(2) { "low" } else { "high" }.to_owned(),
            chunks: (0..3).map(chunk).collect(),
        }
    };
    Examples::new(tracks.map(track).collect(), &["high".to_owned(), "low".to_owned()]).unwrap()
}

fn options() -> LearnOptions {
    let mut options = LearnOptions::seed_cnn(5);
    options.epochs = 4;
    options.batches.batch = 10;
    options.batches.label_smoothing = 0.1;
    options.batches.mix = 0.3;
    options.optimizer.weight_decay = 0.01;
    options.optimizer.clip = Some(0.5);
    options.schedule = Schedule { learning_rate: 0.01, warm_up: 0.5, decline: Decline::Cosine(0.1) };
    options
}

fn run(place: &Path, threads: usize, resume: bool) -> Run {
    Run {
        device: Device::Cpu,
        threads,
        checkpoint: Some(Checkpoint::new(place.join("checkpoint"))),
        resume,
        progress: Progress::Hidden,
        architecture: "tiny".to_owned(),
        context: serde_json::Value::Null,
    }
}

fn train(learner: &Tiny, options: &LearnOptions, run: &Run) -> Result<Learnt> {
    learn(learner, &NoAugmentation, &examples(0..12), Some(&examples(12..18)), options, run)
}

fn weights(learner: &Tiny, learnt: &Learnt) -> Weights {
    learner.weights(&learnt.values).unwrap()
}

#[test]
fn a_run_that_is_interrupted_ends_as_if_it_had_not_been() {
    let place = tempfile::tempdir().unwrap();
    let whole = Tiny::new(usize::MAX);
    let expected = train(&whole, &options(), &run(&place.path().join("whole"), 1, false)).unwrap();
    assert_eq!(expected.history.len(), 4);
    assert!(expected.history[3].valid_loss < expected.history[0].valid_loss, "{:?}", expected.history);

    // 36 chunks are 4 batches an epoch, of 2, 2, 2 and 1 shards: it stops in the third epoch.
    let first = Tiny::new(18);
    let stopped = train(&first, &options(), &run(place.path(), 2, false));
    assert!(matches!(stopped, Err(TrainerError::Options(_))));
    let in_the_way = train(&Tiny::new(usize::MAX), &options(), &run(place.path(), 1, false)).unwrap_err();
    assert!(matches!(in_the_way, TrainerError::CheckpointInTheWay { .. }), "{in_the_way}");
    let second = Tiny::new(usize::MAX);
    let resumed = train(&second, &options(), &run(place.path(), 2, true)).unwrap();
    assert_eq!(resumed.history, expected.history);
    assert_eq!(resumed.best_epoch, expected.best_epoch);
    assert_eq!(weights(&second, &resumed), weights(&whole, &expected));
    let raw = |learner: &Tiny| learner.parameters()[0].variable.to_vec2::<f32>().unwrap();
    assert_eq!(raw(&second), raw(&whole));
}

#[test]
fn a_checkpoint_of_other_options_or_data_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let nothing = train(&Tiny::new(usize::MAX), &options(), &run(place.path(), 1, true)).unwrap_err();
    assert!(matches!(nothing, TrainerError::NoCheckpoint { .. }), "{nothing}");
    assert!(train(&Tiny::new(10), &options(), &run(place.path(), 1, false)).is_err());
    let other = |options: &LearnOptions, run: &Run, data: &Examples| {
        let learner = Tiny::new(usize::MAX);
        let error = learn(&learner, &NoAugmentation, data, Some(&examples(12..18)), options, run).unwrap_err();
        assert!(matches!(error, TrainerError::OtherRun { .. }), "{error}");
        error.to_string()
    };
    let (same, again, data) = (options(), run(place.path(), 1, true), examples(0..12));
    let faster = Schedule { learning_rate: 0.02, ..same.schedule };
    let error = other(&LearnOptions { schedule: faster, ..same.clone() }, &again, &data);
    assert!(error.contains("its learning rate is 0.01, not 0.02"), "{error}");
    assert!(other(&same, &again, &examples(0..10)).contains("its tracks are not those of this run"));
    let error = other(&same, &Run { architecture: "huge".to_owned(), ..again.clone() }, &data);
    assert!(error.contains("its network is tiny, not huge"), "{error}");
    let error = other(&same, &Run { context: serde_json::json!({ "gain": 2 }), ..again }, &data);
    assert!(error.contains("its context is"), "{error}");
}

#[test]
fn a_run_that_runs_away_says_so_and_keeps_its_checkpoint() {
    let place = tempfile::tempdir().unwrap();
    assert!(train(&Tiny::new(10), &options(), &run(place.path(), 1, false)).is_err());
    let learner = Tiny::new(usize::MAX);
    let checkpoint = Checkpoint::new(place.path().join("checkpoint"));
    assert!(checkpoint.exists());
    let poison = Tensor::full(f32::NAN, (2, MEL_BANDS), &Device::Cpu).unwrap();
    let elsewhere = Run { checkpoint: None, ..run(place.path(), 1, false) };
    learner.parameters()[0].variable.set(&poison).unwrap();
    assert!(matches!(train(&learner, &options(), &elsewhere), Err(TrainerError::Diverged(1))));
    assert!(train(&Tiny::new(usize::MAX), &options(), &run(place.path(), 1, true)).is_ok());
}

#[test]
fn without_validation_tracks_the_last_epoch_is_kept() {
    let learner = Tiny::new(usize::MAX);
    let place = tempfile::tempdir().unwrap();
    let run = Run { checkpoint: None, ..run(place.path(), 1, false) };
    let patient = LearnOptions { patience: 1, ..options() };
    let learnt = learn(&learner, &NoAugmentation, &examples(0..4), None, &patient, &run).unwrap();
    assert_eq!((learnt.best_epoch, learnt.history.len()), (4, 4));
    assert!(learnt.history.iter().all(|epoch| epoch.valid_loss.is_none()));
    let nonsense = LearnOptions { averaging: 1.0, ..options() };
    let error = learn(&learner, &NoAugmentation, &examples(0..4), None, &nonsense, &run).unwrap_err().to_string();
    assert_eq!(error, "averaging: expected 0 to below 1, found 1");
}
