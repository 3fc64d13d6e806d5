//! The networks on a GPU: they answer as on the processor, and a batch costs one upload and one wait.
//!
//! On a machine without a GPU, `.ci/check-cuda` runs this on a stand-in for the driver, which writes down what it is asked for.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{collections::BTreeMap, fs, thread};

use chorale_model::{
    Answer, Array, Classifier, DeviceSpec, ModelError, ModelFolder, SeedCnn, Weights, contract::CHUNK_CELLS,
};

const GPU: DeviceSpec = DeviceSpec::Cuda(0);

/// A model on the GPU, and on the processor.
fn both(folder: &ModelFolder) -> Option<(Classifier, Classifier)> {
    let processor = Classifier::load(folder, DeviceSpec::Cpu).unwrap();
    match Classifier::load(folder, GPU) {
        Ok(gpu) => Some((gpu, processor)),
        // Where there is none. A GPU that is there must work.
        Err(error @ ModelError::DeviceUnavailable { .. }) if std::env::var_os(TRACE).is_none() => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn chunks(count: usize) -> Vec<Vec<u8>> {
    // Bands that rise and fall, at another pace in each.
    let cell =
        |chunk: usize, cell: usize| (cell / 96 * (chunk + 3) * 7 % 131 + cell % 96 * (chunk + 1) * 5 % 113) as u8;
    (0..count).map(|chunk| (0..CHUNK_CELLS).map(|at| cell(chunk, at)).collect()).collect()
}

fn answers(classifier: &Classifier, chunks: &[Vec<u8>], want_embeddings: bool) -> Vec<Answer> {
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    classifier.answers(&chunks, want_embeddings).unwrap()
}

fn assert_same(gpu: &[Answer], processor: &[Answer]) {
    assert_eq!(gpu.len(), processor.len());
    for (index, (gpu, processor)) in gpu.iter().zip(processor).enumerate() {
        for (what, gpu, processor) in [
            ("probabilities", &gpu.probabilities, &processor.probabilities),
            ("embedding", &gpu.embedding, &processor.embedding),
        ] {
            assert_eq!(gpu.len(), processor.len(), "{what} of chunk {index}");
            let close = |(one, other): (&f32, &f32)| (one - other).abs() < 1e-4 * other.abs().max(1.0);
            assert!(gpu.iter().zip(processor).all(close), "{what} of chunk {index}: {gpu:?}, {processor:?}");
        }
    }
}

/// A network of the seed with made-up weights.
fn seed_cnn() -> ModelFolder {
    let mut weights = Weights::default();
    for (name, shape) in SeedCnn::tensors(10) {
        let reach = (6.0 / shape.iter().skip(1).product::<usize>() as f32).sqrt();
        let value = |cell: usize| reach * (((cell * 7_919) % 1_009) as f32 / 504.5 - 1.0);
        let values = (0..shape.iter().product()).map(value).collect();
        weights.insert(&name, Array::new(&shape, values).unwrap());
    }
    let manifest = ModelFolder::embedded().unwrap().manifest().clone();
    let manifest = chorale_model::Manifest { architecture: "seed-cnn".to_owned(), ..manifest };
    ModelFolder::new(manifest, weights, String::new()).unwrap()
}

const TRACE: &str = "CUDA_STAND_IN_TRACE";

/// How often the stand-in was asked for what since the last time; none on a real GPU.
fn calls() -> Option<BTreeMap<String, Vec<usize>>> {
    let path = std::env::var_os(TRACE)?;
    let text = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, "").unwrap();
    let mut calls: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for line in text.lines() {
        let (call, bytes) = line.split_once(' ').unwrap();
        calls.entry(call.to_owned()).or_default().push(bytes.parse().unwrap());
    }
    Some(calls)
}

/// One test, as the stand-in writes into one file.
#[test]
fn a_gpu_answers_as_the_processor_with_one_upload_and_one_wait_for_a_batch() {
    let small = ModelFolder::embedded_small().unwrap();
    let Some((gpu, processor)) = both(&small) else { return };
    let some = chunks(258);
    let expected = answers(&processor, &some, true);
    // Full sizes, sizes that are filled up, and one that is two batches.
    for count in [1, 2, 3, 5, 23, 258] {
        assert_same(&answers(&gpu, &some[..count], true), &expected[..count]);
    }
    calls();
    // Shapes of a batch of six, which five become, are known from here on.
    for (count, want_embeddings, work) in [(5, false, (88, 15)), (6, false, (88, 15)), (5, true, (94, 16))] {
        answers(&gpu, &some[..6], want_embeddings);
        calls();
        assert_eq!(answers(&gpu, &some[..count], want_embeddings).len(), count);
        if let Some(calls) = calls() {
            let of = |call: &str| calls.get(call).map_or(&[][..], Vec::as_slice);
            assert_eq!(of("upload-locked"), [6 * CHUNK_CELLS], "the batch, in one piece, from page-locked memory");
            assert_eq!(of("upload").len(), 0, "shapes are uploaded again: {:?}", of("upload"));
            assert_eq!(of("read").len(), 1, "the answers are read once");
            assert_eq!(of("synchronize").len(), 0);
            assert_eq!((of("event").len(), of("record").len()), (0, 1), "that the batch was copied, and nothing else");
            assert_eq!((of("launch").len(), of("product").len()), work, "kernels and products");
        }
    }

    // The second of them finds a device that was there before.
    for (folder, opened) in [(ModelFolder::embedded().unwrap(), 1), (seed_cnn(), 0)] {
        let Some((gpu, processor)) = both(&folder) else { return };
        if let Some(calls) = calls() {
            assert_eq!(calls.get("keep-memory").map_or(0, Vec::len), opened, "devices whose pool keeps its memory");
        }
        assert_same(&answers(&gpu, &some[..3], true), &answers(&processor, &some[..3], true));
    }

    // What one thread loads, others use, at the same time, and another lets go.
    let gpu = thread::spawn(move || Classifier::load(&small, GPU).unwrap()).join().unwrap();
    thread::scope(|scope| {
        for from in 0..4 {
            let (gpu, some, expected) = (&gpu, &some, &expected);
            scope.spawn(move || {
                for _ in 0..3 {
                    assert_same(&answers(gpu, &some[from..from + 2], true), &expected[from..from + 2]);
                }
            });
        }
    });
    thread::spawn(move || drop(gpu)).join().unwrap();
}
