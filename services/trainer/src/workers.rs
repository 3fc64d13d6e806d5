//! Sharing the chunks of a batch between cores.

use std::thread;

use candle_core::{Device, Tensor};
use chorale_model::contract::{CHUNK_CELLS, CHUNK_FRAMES, MEL_BANDS, dequantize};
use rayon::ThreadPool;

use crate::{Batch, Result, Trainable, cells, chance::source, metrics::greatest};

/// Chunks that go through the network together on a core. It does not depend on the number of cores, and neither does
/// anything that is added up, so that results do not either.
const SHARD_CHUNKS: usize = 8;
/// Chunks that a GPU listens to at once: bounds memory.
const GPU_CHUNKS: usize = 256;

/// Threads that run the network, each with matrix products of its own: that scales better than sharing each product.
pub(crate) struct Workers {
    device: Device,
    /// One thread each.
    pools: Vec<ThreadPool>,
}

/// What a step learnt from a batch.
pub(crate) struct Lesson {
    /// The mean loss of the batch.
    pub(crate) loss: f64,
    /// Chunks whose greatest logit is that of the greatest target.
    pub(crate) right: usize,
    /// In the order of the parameters, of the mean loss.
    pub(crate) gradients: Vec<Tensor>,
}

/// A part of a batch.
struct Shard<'a> {
    cells: &'a [f32],
    targets: &'a [f32],
}

impl Workers {
    pub(crate) fn new(device: Device, threads: usize) -> Result<Self> {
        let threads = if matches!(device, Device::Cpu) { threads.max(1) } else { 1 };
        let pool = || rayon::ThreadPoolBuilder::new().num_threads(1).build();
        Ok(Self { device, pools: (0..threads).map(|_| pool()).collect::<std::result::Result<_, _>>()? })
    }

    pub(crate) fn threads(&self) -> usize {
        self.pools.len()
    }

    /// The loss of a batch and its gradients, with the dropout of this step.
    pub(crate) fn learn(&self, learner: &dyn Trainable, batch: &Batch, seed: u64, step: u64) -> Result<Lesson> {
        let labels = batch.targets.len() / batch.chunks.max(1);
        let size = if matches!(self.device, Device::Cpu) { SHARD_CHUNKS } else { batch.chunks.max(1) };
        let shards = batch.cells.chunks(size * CHUNK_CELLS).zip(batch.targets.chunks((size * labels).max(1)));
        let shards: Vec<(u64, Shard<'_>)> =
            (0..).zip(shards.map(|(cells, targets)| Shard { cells, targets })).collect();
        let mut lesson = Lesson { loss: 0.0, right: 0, gradients: Vec::new() };
        for wave in shards.chunks(self.pools.len()) {
            let lessons = self.each(wave, |(index, shard)| {
                let mut random = source(seed, &format!("dropout {index}"), step);
                self.learn_shard(learner, shard, labels, batch.chunks, &mut random)
            })?;
            for part in lessons {
                lesson.loss += part.loss;
                lesson.right += part.right;
                if lesson.gradients.is_empty() {
                    lesson.gradients = part.gradients;
                } else {
                    for (sum, gradient) in lesson.gradients.iter_mut().zip(&part.gradients) {
                        cells::add(sum, gradient)?;
                    }
                }
            }
        }
        Ok(lesson)
    }

    fn learn_shard(
        &self,
        learner: &dyn Trainable,
        shard: &Shard<'_>,
        labels: usize,
        batch: usize,
        random: &mut rand_chacha::ChaCha8Rng,
    ) -> Result<Lesson> {
        let chunks = shard.cells.len() / CHUNK_CELLS;
        let input = Tensor::from_slice(shard.cells, (chunks, MEL_BANDS, CHUNK_FRAMES), &self.device)?;
        let labelled = Tensor::from_slice(shard.targets, (chunks, labels), &self.device)?;
        let (loss, logits) = learner.loss(&input, labelled, random)?;
        let loss = loss.affine(1.0 / batch as f64, 0.0)?;
        let mut gradients = loss.backward()?;
        let answers = logits.detach().to_vec2::<f32>()?;
        let targets = shard.targets.chunks(labels);
        let right = answers.iter().zip(targets).filter(|(answer, target)| greatest(answer) == greatest(target)).count();
        let gradient = |variable: &candle_core::Var| match gradients.remove(variable) {
            Some(gradient) => gradient.detach().contiguous(),
            None => variable.zeros_like(),
        };
        let parameters = learner.parameters().iter().map(|parameter| &parameter.variable);
        let gradients = parameters.map(gradient).collect::<candle_core::Result<_>>()?;
        Ok(Lesson { loss: f64::from(loss.to_scalar::<f32>()?), right, gradients })
    }

    /// The logits of chunks of the feature contract, in order.
    pub(crate) fn listen(&self, learner: &dyn Trainable, chunks: &[&[u8]]) -> Result<Vec<Vec<f32>>> {
        let size = if matches!(self.device, Device::Cpu) { SHARD_CHUNKS } else { GPU_CHUNKS };
        let shards: Vec<&[&[u8]]> = chunks.chunks(size).collect();
        let mut logits = Vec::with_capacity(chunks.len());
        for wave in shards.chunks(self.pools.len()) {
            let heard = self.each(wave, |shard| {
                let cells: Vec<f32> =
                    shard.iter().flat_map(|chunk| chunk.iter().map(|cell| dequantize(*cell))).collect();
                let input = Tensor::from_vec(cells, (shard.len(), MEL_BANDS, CHUNK_FRAMES), &self.device)?;
                Ok(learner.logits(&input, None)?.detach().to_vec2::<f32>()?)
            })?;
            logits.extend(heard.into_iter().flatten());
        }
        Ok(logits)
    }

    /// Runs `work` on every item at the same time, each on a thread of its own.
    fn each<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
        let work = &work;
        thread::scope(|scope| {
            let running: Vec<_> = (items.iter().zip(&self.pools))
                .map(|(item, pool)| scope.spawn(move || pool.install(|| work(item))))
                .collect();
            let finished = running.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            finished.collect()
        })
    }
}
