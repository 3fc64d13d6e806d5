//! The training loop.

use std::time::Instant;

use candle_core::{Device, Tensor};
use chorale_model::Logits;
use serde_json::Value;

use crate::{
    Augment, Checkpoint, EpochScores, Examples, Identity, LearnOptions, Progress, Result, Trainable, TrainerError,
    batches::{BatchMaker, Batches},
    metrics::{self, ScoredTrack},
    run_state::RunState,
    workers::Workers,
};

/// Where and how a run is carried out. Nothing of it changes the result, but for what a GPU rounds otherwise.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where the network's parameters are.
    pub device: Device,
    /// Threads that run the network on the CPU.
    pub threads: usize,
    /// Where the state is kept after every epoch; none for nowhere.
    pub checkpoint: Option<Checkpoint>,
    /// Whether to go on from the checkpoint.
    pub resume: bool,
    /// What is drawn.
    pub progress: Progress,
    /// The name of the network, for the checkpoint.
    pub architecture: String,
    /// Other options that change the result, for the checkpoint.
    pub context: Value,
}

/// A run that has ended.
#[derive(Clone, Debug)]
pub struct Learnt {
    /// The averaged parameters of the best epoch, in the order of the parameters.
    pub values: Vec<Tensor>,
    /// The epoch that they are from, from 1.
    pub best_epoch: usize,
    /// What happened in every epoch.
    pub history: Vec<EpochScores>,
}

/// Trains a network. With validation tracks, the best epoch is kept, and training ends when it has not been surpassed for
/// a while; without any, the last one is.
///
/// # Errors
/// Where options make no sense, the checkpoint is of another run or cannot be written, the loss becomes infinite, or the
/// device fails. A checkpoint that was written stays.
pub fn learn(
    learner: &dyn Trainable,
    augment: &dyn Augment,
    train: &Examples,
    valid: Option<&Examples>,
    options: &LearnOptions,
    run: &Run,
) -> Result<Learnt> {
    options.check()?;
    let identity = identity(train, valid, options, run)?;
    let maker = BatchMaker { examples: train, augment, options: &options.batches };
    let epoch_steps = maker.epoch_steps();
    let mut state = match &run.checkpoint {
        Some(checkpoint) if run.resume => RunState::resume(learner, options, checkpoint, &identity)?,
        Some(checkpoint) if checkpoint.exists() => {
            return Err(TrainerError::CheckpointInTheWay { path: checkpoint.folder().to_owned() });
        }
        _ => RunState::start(learner, options)?,
    };
    let workers = Workers::new(run.device.clone(), run.threads)?;
    std::thread::scope(|scope| {
        let mut batches = Batches::start(scope, maker, state.steps, workers.threads());
        while !state.is_over(options) {
            let epoch = state.epochs + 1;
            let bar = run.progress.bar("training", epoch_steps as usize);
            let (mut loss, mut right, mut chunks, mut rate) = (0.0, 0, 0, 0.0);
            let started = Instant::now();
            for _ in 0..epoch_steps {
                let Some(batch) = batches.next() else { return Err(TrainerError::Diverged(epoch)) };
                let lesson = workers.learn(learner, &batch, options.batches.seed, state.steps)?;
                if !lesson.loss.is_finite() {
                    return Err(TrainerError::Diverged(epoch));
                }
                rate = options.schedule.at(state.steps, epoch_steps, options.epochs);
                state.step(learner, lesson.gradients, rate, options.averaging)?;
                loss += lesson.loss * batch.chunks as f64;
                right += lesson.right;
                chunks += batch.chunks;
                let (loss, share) = (loss / chunks as f64, 100.0 * right as f64 / chunks as f64);
                let speed = chunks as f64 / started.elapsed().as_secs_f64();
                let of = options.epochs;
                bar.set_message(format!("epoch {epoch}/{of}, loss {loss:.3}, {share:.1} %, {speed:.1} chunks/s"));
                bar.inc(1);
            }
            bar.finish_and_clear();
            let valid = valid.map(|valid| state.with_averages(learner, || score(&workers, learner, valid)));
            let valid = valid.transpose()?;
            let scores = EpochScores {
                epoch,
                learning_rate: rate,
                train_loss: loss / chunks as f64,
                train_accuracy: right as f64 / chunks as f64,
                valid_loss: valid.as_ref().map(|tracks| metrics::track_log_loss(tracks, 1.0)),
                valid_accuracy: valid.as_ref().map(|tracks| metrics::track_accuracy(tracks, 1.0)),
            };
            if scores.valid_loss.is_some_and(|loss| !loss.is_finite()) {
                return Err(TrainerError::Diverged(epoch));
            }
            let chunks_per_second = chunks as f64 / started.elapsed().as_secs_f64();
            tracing::info!(
                epoch,
                train_loss = scores.train_loss,
                train_accuracy = scores.train_accuracy,
                valid_loss = scores.valid_loss,
                valid_accuracy = scores.valid_accuracy,
                chunks_per_second,
                "epoch"
            );
            state.end_epoch(scores.rounded(), options)?;
            if let Some(checkpoint) = &run.checkpoint {
                state.save(learner, checkpoint, &identity)?;
            }
        }
        Ok(())
    })?;
    Ok(Learnt { values: state.best, best_epoch: state.best_epoch, history: state.history })
}

/// The logits of every chunk of `examples`.
pub(crate) fn score(workers: &Workers, learner: &dyn Trainable, examples: &Examples) -> Result<Vec<ScoredTrack>> {
    let chunks: Vec<&[u8]> = examples.chunks().collect();
    let mut logits = workers.listen(learner, &chunks)?.into_iter();
    let scored = examples.tracks().iter().zip(examples.genres()).map(|(track, genre)| ScoredTrack {
        name: track.name.clone(),
        genre: *genre,
        logits: logits.by_ref().take(track.chunks.len()).map(Logits::of_music).collect(),
    });
    Ok(scored.collect())
}

fn identity(train: &Examples, valid: Option<&Examples>, options: &LearnOptions, run: &Run) -> Result<Identity> {
    let mut hasher = blake3::Hasher::new();
    train.digest(&mut hasher);
    hasher.update(b"valid");
    if let Some(valid) = valid {
        valid.digest(&mut hasher);
    }
    let options = serde_json::to_value(options).map_err(|error| TrainerError::Options(error.to_string()))?;
    let options = serde_json::json!({ "learning": options, "context": run.context });
    Ok(Identity { architecture: run.architecture.clone(), data: hasher.finalize().to_hex().to_string(), options })
}
