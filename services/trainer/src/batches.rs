//! Training batches, made on threads of their own.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Scope, ScopedJoinHandle},
};

use chorale_model::contract::{CHUNK_CELLS, CHUNK_HOP_FRAMES, FLOOR_DB, dequantize};
use rand::{RngExt, seq::SliceRandom};
use serde::Serialize;

use crate::{
    Augment, Examples,
    augment::{mix, move_on},
    chance::source,
};

/// Batches that one thread makes ahead.
const BATCHES_AHEAD: usize = 2;

/// What batches are made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BatchOptions {
    /// Chunks in a batch.
    pub batch: usize,
    /// The share of the target that is spread over all genres.
    pub label_smoothing: f32,
    /// The share of chunks that another one is mixed into, with its share of the target.
    pub mix: f64,
    /// Whether a chunk may begin later in its track, up to where the next one does.
    pub time_shift: bool,
    /// Whether every track is heard as often as the others, however long it is.
    pub equal_tracks: bool,
    /// Where chance starts.
    pub seed: u64,
}

/// Chunks to learn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// How many chunks there are.
    pub chunks: usize,
    /// `[chunk][mel band][frame]`, dB below the loudest cell.
    pub cells: Vec<f32>,
    /// `[chunk][label]`, the probabilities that would be right.
    pub targets: Vec<f32>,
}

/// How batches are made. Step `n` of a run has the same batch whenever, and on whichever thread, it is made.
#[derive(Clone, Copy)]
pub(crate) struct BatchMaker<'a> {
    pub(crate) examples: &'a Examples,
    pub(crate) augment: &'a dyn Augment,
    pub(crate) options: &'a BatchOptions,
}

/// A chunk by its track and its place there.
type Place = (usize, usize);

impl BatchMaker<'_> {
    /// Steps of an epoch. The last one may have fewer chunks.
    pub(crate) fn epoch_steps(&self) -> u64 {
        self.epoch_chunks().div_ceil(self.options.batch) as u64
    }

    /// Chunks of an epoch.
    pub(crate) fn epoch_chunks(&self) -> usize {
        if self.options.equal_tracks {
            self.rounds() * self.examples.tracks().len()
        } else {
            self.examples.chunk_count()
        }
    }

    /// Chunks that every track gives to an epoch where all count the same.
    fn rounds(&self) -> usize {
        let tracks = self.examples.tracks().len().max(1);
        ((self.examples.chunk_count() + tracks / 2) / tracks).max(1)
    }

    /// The chunks of an epoch in its own order.
    fn order(&self, epoch: u64) -> Vec<Place> {
        let mut random = source(self.options.seed, "order", epoch);
        let mut order = Vec::new();
        for (index, track) in self.examples.tracks().iter().enumerate() {
            let mut places: Vec<Place> = (0..track.chunks.len()).map(|chunk| (index, chunk)).collect();
            if self.options.equal_tracks {
                places.shuffle(&mut random);
                order.extend(places.iter().cycle().take(self.rounds()));
            } else {
                order.append(&mut places);
            }
        }
        order.shuffle(&mut random);
        order
    }

    /// The batch of a step of an epoch with this order.
    fn batch(&self, step: u64, order: &[Place]) -> Batch {
        let first = (step % self.epoch_steps()) as usize * self.options.batch;
        let places = order.iter().skip(first).take(self.options.batch);
        let mut random = source(self.options.seed, "batch", step);
        let mut batch = Batch { chunks: 0, cells: Vec::new(), targets: Vec::new() };
        for place in places {
            let (mut cells, mut target) = (self.heard(*place, &mut random), self.target(*place));
            if self.options.mix > 0.0 && random.random_bool(self.options.mix) {
                let other = order.get(random.random_range(0..order.len())).copied().unwrap_or(*place);
                let share: f32 = random.random_range(0.5..1.0);
                mix(&mut cells, &self.heard(other, &mut random), share);
                for (target, other) in target.iter_mut().zip(self.target(other)) {
                    *target = *target * share + other * (1.0 - share);
                }
            }
            batch.chunks += 1;
            batch.cells.append(&mut cells);
            batch.targets.append(&mut target);
        }
        batch
    }

    fn heard(&self, (track, chunk): Place, random: &mut rand_chacha::ChaCha8Rng) -> Vec<f32> {
        let chunks = self.examples.tracks().get(track).map(|track| track.chunks.as_slice()).unwrap_or_default();
        let mut cells = loudness(chunks.get(chunk));
        if let Some(next) = chunks.get(chunk + 1).filter(|_| self.options.time_shift) {
            move_on(&mut cells, &loudness(Some(next)), random.random_range(0..CHUNK_HOP_FRAMES));
        }
        self.augment.apply(&mut cells, random);
        cells
    }

    fn target(&self, (track, _): Place) -> Vec<f32> {
        let (labels, smoothing) = (self.examples.labels(), self.options.label_smoothing);
        let genre = self.examples.genres().get(track).copied();
        let hard = |label| if Some(label) == genre { 1.0 - smoothing } else { 0.0 };
        (0..labels).map(|label| hard(label) + smoothing / labels as f32).collect()
    }

    /// Makes the batches of the steps `first`, `first + every`, … until nobody wants them any more.
    fn feed(self, first: u64, every: u64, wanted: &SyncSender<Batch>) {
        let mut known: Option<(u64, Vec<Place>)> = None;
        for step in (first..).step_by(every as usize) {
            let epoch = step / self.epoch_steps();
            let order = match known.take() {
                Some((of, order)) if of == epoch => order,
                _ => self.order(epoch),
            };
            if wanted.send(self.batch(step, &order)).is_err() {
                return;
            }
            known = Some((epoch, order));
        }
    }
}

/// A chunk in dB below its loudest cell.
fn loudness(chunk: Option<&Vec<u8>>) -> Vec<f32> {
    let mut cells: Vec<f32> = chunk.into_iter().flatten().map(|cell| dequantize(*cell)).collect();
    cells.resize(CHUNK_CELLS, FLOOR_DB);
    cells
}

/// The batches of a run, in order, without end.
pub(crate) struct Batches<'scope> {
    makers: Vec<(Receiver<Batch>, ScopedJoinHandle<'scope, ()>)>,
    next: usize,
}

impl<'scope> Batches<'scope> {
    /// Starts `threads` threads that make batches from step `first` on. They end after this value is dropped.
    pub(crate) fn start<'a: 'scope>(
        scope: &'scope Scope<'scope, '_>,
        maker: BatchMaker<'a>,
        first: u64,
        threads: usize,
    ) -> Self {
        let threads = threads.max(1) as u64;
        let makers = (0..threads).map(|thread| {
            let (sender, receiver) = sync_channel(BATCHES_AHEAD);
            (receiver, scope.spawn(move || maker.feed(first + thread, threads, &sender)))
        });
        Self { makers: makers.collect(), next: 0 }
    }

    /// The next batch; none where the thread that should make it has ended, which none does.
    pub(crate) fn next(&mut self) -> Option<Batch> {
        let (receiver, _) = self.makers.get(self.next)?;
        self.next = (self.next + 1) % self.makers.len();
        receiver.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChunkedTrack, NoAugmentation};
    use std::collections::HashMap;

    fn examples() -> Examples {
        let track = |name: u8, chunks: u8| ChunkedTrack {
            name: name.to_string(),
            genre: if name.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
            chunks: (0..chunks).map(|chunk| vec![10 * name + chunk; CHUNK_CELLS]).collect(),
        };
        Examples::new(vec![track(1, 4), track(2, 2), track(3, 9)], &["even".to_owned(), "odd".to_owned()]).unwrap()
    }

    fn options() -> BatchOptions {
        BatchOptions { batch: 4, label_smoothing: 0.0, mix: 0.0, time_shift: false, equal_tracks: false, seed: 3 }
    }

    fn take(options: &BatchOptions, first: u64, threads: usize, count: usize) -> Vec<Batch> {
        let examples = examples();
        let maker = BatchMaker { examples: &examples, augment: &NoAugmentation, options };
        std::thread::scope(|scope| {
            let mut batches = Batches::start(scope, maker, first, threads);
            (0..count).map(|_| batches.next().unwrap()).collect()
        })
    }

    fn heard(batches: &[Batch]) -> HashMap<u8, usize> {
        let mut heard = HashMap::new();
        for chunk in batches.iter().flat_map(|batch| batch.cells.chunks(CHUNK_CELLS)) {
            *heard.entry(chorale_model::contract::quantize(chunk[0])).or_default() += 1;
        }
        heard
    }

    #[test]
    fn an_epoch_has_every_chunk_once_and_epochs_differ() {
        let batches = take(&options(), 0, 1, 8);
        assert_eq!(batches.iter().map(|batch| batch.chunks).collect::<Vec<_>>(), [4, 4, 4, 3, 4, 4, 4, 3]);
        for epoch in batches.chunks(4) {
            assert!(heard(epoch).len() == 15 && heard(epoch).values().all(|count| *count == 1));
        }
        assert_ne!(batches[..4], batches[4..]);
        assert_eq!(batches[0].targets.len(), 8);
    }

    #[test]
    fn batches_do_not_depend_on_threads_or_on_where_a_run_starts() {
        let mixed = BatchOptions { mix: 0.5, label_smoothing: 0.1, ..options() };
        let batches = take(&mixed, 0, 1, 9);
        assert_eq!(batches, take(&mixed, 0, 3, 9));
        assert_eq!(batches[5..], take(&mixed, 5, 2, 4));
        assert_ne!(batches, take(&BatchOptions { seed: 4, ..mixed }, 0, 1, 9));
        for target in batches.iter().flat_map(|batch| batch.targets.chunks(2)) {
            assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn every_track_is_heard_as_often_as_the_others_if_that_is_wanted() {
        let equal = BatchOptions { equal_tracks: true, ..options() };
        let heard = heard(&take(&equal, 0, 1, 4));
        for track in 1..=3_u8 {
            assert_eq!(heard.iter().filter(|(cell, _)| **cell / 10 == track).map(|(_, count)| count).sum::<usize>(), 5);
        }
    }
}
