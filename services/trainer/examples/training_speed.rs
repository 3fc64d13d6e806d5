//! How long a chunk takes in training: `cargo run --release -p chorale-trainer --example training_speed [CHUNKS]`.

use std::{error::Error, time::Instant};

use candle_core::{Device, Tensor};
use chorale_model::{Weights, contract::CHUNK_CELLS};
use chorale_trainer::{
    ChunkedTrack, Examples, LearnOptions, NoAugmentation, Parameter, Progress, Result, Run, SeedCnnLearner, Trainable,
    learn,
};
use rand_chacha::ChaCha8Rng;

/// The network `seed-cnn` with candle's own convolution and its gradient, without dropout.
struct Plain(SeedCnnLearner);

impl Trainable for Plain {
    fn logits(&self, chunks: &Tensor, _training: Option<&mut ChaCha8Rng>) -> Result<Tensor> {
        let mut image = chunks.affine(1.0 / 80.0, 1.0)?.unsqueeze(1)?;
        let layers: Vec<&[Parameter]> = self.parameters().chunks(2).collect();
        let (convolutions, dense) = layers.split_at(10);
        for pair in convolutions.chunks(2) {
            for layer in pair.iter().copied() {
                if let [weight, bias] = layer {
                    let bias = bias.variable.reshape((1, (), 1, 1))?;
                    image = image.conv2d(&weight.variable, 1, 1, 1, 1)?.broadcast_add(&bias)?.relu()?;
                }
            }
            image = image.max_pool2d(2)?;
        }
        let mut hidden = image.flatten_from(1)?;
        for layer in dense.iter().copied() {
            if let [weight, bias] = layer {
                hidden = hidden.matmul(&weight.variable.t()?)?.broadcast_add(&bias.variable)?.relu()?;
            }
        }
        Ok(hidden)
    }

    fn parameters(&self) -> &[Parameter] {
        self.0.parameters()
    }

    fn weights(&self, values: &[Tensor]) -> Result<Weights> {
        self.0.weights(values)
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(64), |count| count.parse())?;
    let labels: Vec<String> = (0..10).map(|label| label.to_string()).collect();
    let track = |track: usize| ChunkedTrack {
        name: track.to_string(),
        genre: (track % 10).to_string(),
        chunks: vec![(0..CHUNK_CELLS).map(|cell| (cell * (track + 7) % 251) as u8).collect()],
    };
    let examples = Examples::new((0..count).map(track).collect(), &labels)?;
    let options = LearnOptions { epochs: 1, ..LearnOptions::seed_cnn(1) };
    let ours = SeedCnnLearner::new(10, 1, &Device::Cpu)?;
    let plain = Plain(SeedCnnLearner::new(10, 1, &Device::Cpu)?);
    let networks: [(&str, usize, &dyn Trainable); 4] = [
        ("seed-cnn", 1, &ours),
        ("seed-cnn", 2, &ours),
        ("seed-cnn with candle's convolution", 1, &plain),
        ("seed-cnn with candle's convolution", 2, &plain),
    ];
    for (name, threads, learner) in networks {
        let run = Run {
            device: Device::Cpu,
            threads,
            checkpoint: None,
            resume: false,
            progress: Progress::Hidden,
            architecture: name.to_owned(),
            context: serde_json::Value::Null,
        };
        let started = Instant::now();
        learn(learner, &NoAugmentation, &examples, None, &options, &run)?;
        let seconds = started.elapsed().as_secs_f64();
        let (milliseconds, speed) = (1e3 * seconds / count as f64, count as f64 / seconds);
        println!("{name}, {threads} threads: {milliseconds:.1} ms a chunk, {speed:.1} chunks a second");
    }
    Ok(())
}
