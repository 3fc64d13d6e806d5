//! What a run has learnt so far.

use candle_core::Tensor;
use chorale_model::{Array, Weights};

use crate::{
    Adam, Checkpoint, EpochScores, Identity, LearnOptions, Result, Trainable, TrainerError, cells,
    checkpoint::RunProgress,
};

/// The state of a run between two steps. Together with the options and the data it decides everything that follows.
pub(crate) struct RunState {
    pub(crate) epochs: usize,
    pub(crate) steps: u64,
    pub(crate) history: Vec<EpochScores>,
    pub(crate) best_epoch: usize,
    /// The averages at the end of the best epoch.
    pub(crate) best: Vec<Tensor>,
    /// The running mean of every parameter.
    averages: Vec<Tensor>,
    optimizer: Adam,
}

impl RunState {
    pub(crate) fn start(learner: &dyn Trainable, options: &LearnOptions) -> Result<Self> {
        let parameters = learner.parameters();
        let copy = || parameters.iter().map(|parameter| parameter.variable.as_detached_tensor().copy());
        Ok(Self {
            epochs: 0,
            steps: 0,
            history: Vec::new(),
            best_epoch: 0,
            best: Vec::new(),
            averages: copy().collect::<candle_core::Result<_>>()?,
            optimizer: Adam::new(parameters, options.optimizer.clone())?,
        })
    }

    /// Takes up the run of a checkpoint, and gives the learner its parameters.
    pub(crate) fn resume(
        learner: &dyn Trainable,
        options: &LearnOptions,
        checkpoint: &Checkpoint,
        identity: &Identity,
    ) -> Result<Self> {
        let (progress, arrays) = checkpoint.load(identity)?;
        let parameters = learner.parameters();
        let read = |kind: &str| {
            let tensors = parameters.iter().map(|parameter| {
                let array = arrays.get(&array_name(kind, &parameter.name), parameter.variable.dims())?;
                Ok(Tensor::from_slice(array.values(), array.shape(), parameter.variable.device())?)
            });
            tensors.collect::<Result<Vec<Tensor>>>()
        };
        for (parameter, value) in parameters.iter().zip(read("parameter")?) {
            parameter.variable.set(&value)?;
        }
        let mut optimizer = Adam::new(parameters, options.optimizer.clone())?;
        optimizer.steps = progress.steps;
        optimizer.means = read("mean")?;
        optimizer.squares = read("square")?;
        Ok(Self {
            epochs: progress.epochs,
            steps: progress.steps,
            history: progress.history,
            best_epoch: progress.best_epoch,
            best: read("best")?,
            averages: read("average")?,
            optimizer,
        })
    }

    pub(crate) fn save(&self, learner: &dyn Trainable, checkpoint: &Checkpoint, identity: &Identity) -> Result<()> {
        let variables: Vec<Tensor> =
            learner.parameters().iter().map(|parameter| parameter.variable.as_detached_tensor()).collect();
        let mut arrays = Weights::default();
        for (kind, tensors) in [
            ("parameter", &variables),
            ("average", &self.averages),
            ("best", &self.best),
            ("mean", &self.optimizer.means),
            ("square", &self.optimizer.squares),
        ] {
            for (parameter, tensor) in learner.parameters().iter().zip(tensors) {
                let values = tensor.flatten_all()?.to_vec1::<f32>()?;
                if !values.iter().all(|value| value.is_finite()) {
                    return Err(TrainerError::Diverged(self.epochs));
                }
                arrays.insert(&array_name(kind, &parameter.name), Array::new(tensor.dims(), values)?);
            }
        }
        let history = self.history.clone();
        checkpoint.save(RunProgress::new(identity.clone(), self.epochs, self.steps, self.best_epoch, history), &arrays)
    }

    pub(crate) fn step(
        &mut self,
        learner: &dyn Trainable,
        gradients: Vec<Tensor>,
        learning_rate: f64,
        averaging: f64,
    ) -> Result<()> {
        self.optimizer.step(learner.parameters(), gradients, learning_rate)?;
        self.steps += 1;
        // The mean forgets the random start soon, however much of it is kept later.
        let keep = averaging.min(self.steps as f64 / (self.steps as f64 + 10.0));
        for (average, parameter) in self.averages.iter_mut().zip(learner.parameters()) {
            cells::blend(average, &parameter.variable.as_detached_tensor(), keep)?;
        }
        Ok(())
    }

    /// Calls `measure` while the learner has the averages for parameters.
    pub(crate) fn with_averages<T>(&self, learner: &dyn Trainable, measure: impl FnOnce() -> Result<T>) -> Result<T> {
        let variables = || learner.parameters().iter().map(|parameter| &parameter.variable);
        let own = variables().map(|variable| variable.as_detached_tensor().copy());
        let own: Vec<Tensor> = own.collect::<candle_core::Result<_>>()?;
        variables().zip(&self.averages).try_for_each(|(variable, average)| variable.set(average))?;
        let measured = measure();
        variables().zip(&own).try_for_each(|(variable, own)| variable.set(own))?;
        measured
    }

    pub(crate) fn end_epoch(&mut self, scores: EpochScores, options: &LearnOptions) -> Result<()> {
        self.epochs = scores.epoch;
        let best = self.history.iter().find(|best| best.epoch == self.best_epoch);
        if best.is_none_or(|best| scores.is_better_than(best, options.goal)) {
            self.best_epoch = scores.epoch;
            self.best = self.averages.iter().map(Tensor::copy).collect::<candle_core::Result<_>>()?;
        }
        self.history.push(scores);
        Ok(())
    }

    pub(crate) fn is_over(&self, options: &LearnOptions) -> bool {
        let waited = self.epochs - self.best_epoch;
        self.epochs >= options.epochs || (self.epochs > 0 && waited >= options.patience.max(1))
    }
}

fn array_name(kind: &str, parameter: &str) -> String {
    format!("{kind}/{parameter}")
}
