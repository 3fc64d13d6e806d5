//! How long the default model takes: `cargo run --release -p chorale-model --example speed [DEVICE]`.

use std::time::Instant;

use chorale_model::{Classifier, DeviceSpec, ModelError, ModelFolder, contract::CHUNK_CELLS};

const CHUNKS: usize = 256;

fn main() -> Result<(), ModelError> {
    let device: DeviceSpec = std::env::args().nth(1).as_deref().unwrap_or("cpu").parse()?;
    let classifier = Classifier::load(&ModelFolder::embedded()?, device)?;
    let chunk: Vec<u8> = (0..CHUNK_CELLS).map(|cell| (cell * 7_919 % 251) as u8).collect();
    for batch in [1, 8, 32] {
        classifier.warm_up(batch)?;
        let started = Instant::now();
        for _ in 0..CHUNKS / batch {
            classifier.classify(&vec![chunk.as_slice(); batch])?;
        }
        println!("{device}, batch {batch:2}: {:.2} ms a chunk", started.elapsed().as_secs_f64() * 1e3 / CHUNKS as f64);
    }
    Ok(())
}
