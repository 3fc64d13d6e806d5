//! Our side of every row, and what bounds it from below.

use std::{
    hint::black_box,
    io::{BufRead, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use candle_core::{DType, Tensor};
use chorale_feature::{Chunker, DbChunk, Event, Limits, MelFrame, MelSpectrogram, Resampler, analyze_file};
use chorale_model::{
    Classifier, DeviceSpec, ModelFolder, Votes,
    contract::{CHUNK_CELLS, CHUNK_FRAMES, FFT_SIZE, MEL_BANDS, SAMPLE_RATE, frame_centre, frames_in},
};
use clap::Subcommand;
use realfft::RealFftPlanner;
use symphonia::core::{
    codecs::audio::AudioDecoderOptions,
    formats::{FormatOptions, TrackType, probe::Hint},
    io::{MediaSourceStream, MediaSourceStreamOptions},
    meta::MetadataOptions,
};

use crate::{contender::Greeting, served::Served};

/// Products of a round of [`Work::Product`].
pub(crate) const PRODUCTS: usize = 4;

/// What a contender of ours does.
#[derive(Subcommand)]
pub(crate) enum Work {
    /// Chunks to logits
    Forward {
        model: PathBuf,
        chunks: PathBuf,
        batch: usize,
        /// Batches of a round
        #[arg(default_value_t = 1)]
        batches: usize,
        /// Where to compute
        #[arg(long, default_value_t)]
        device: DeviceSpec,
    },
    /// A product of two square matrices, each with so many rows: what a device does best
    Product {
        rows: usize,
        /// Where to compute
        #[arg(long, default_value_t)]
        device: DeviceSpec,
    },
    /// Chunks to probabilities by an inference role that is asked over the network
    Served {
        model: PathBuf,
        chunks: PathBuf,
        /// Chunks of a round, all in flight together
        in_flight: usize,
        /// The role's largest batch [default: its own]
        max_batch: Option<usize>,
    },
    /// Samples to chunks
    Mel { samples: PathBuf },
    /// The transforms that `mel` needs, and nothing else
    Fft { samples: PathBuf },
    /// A file to chunks
    Features { audio: PathBuf },
    /// A file to samples, with symphonia alone
    Decode { audio: PathBuf },
    /// A file to its genre
    Track { model: PathBuf, audio: PathBuf },
}

/// Does the work as often as standard input says: see `rivals/rival.py`.
pub(crate) fn take_part(work: &Work) -> anyhow::Result<()> {
    match work {
        Work::Forward { model, chunks, batch, batches, device } => {
            let classifier = Classifier::load(&ModelFolder::open(Some(model))?, *device)?;
            let cells = std::fs::read(chunks)?;
            let batch: Vec<&[u8]> = cells.chunks_exact(CHUNK_CELLS).cycle().take(*batch).collect();
            serve(|| {
                for _ in 1..*batches {
                    black_box(classifier.logits(&batch)?);
                }
                let logits = classifier.logits(&batch)?;
                Ok(logits.into_iter().flat_map(|logits| [logits.genres, vec![logits.music]].concat()).collect())
            })
        }
        Work::Product { rows, device } => {
            let device = device.open()?;
            let matrix = |value: f64| Tensor::ones((*rows, *rows), DType::F32, &device)?.affine(value, 0.0);
            let (left, right) = (matrix(0.5)?, matrix(2.0)?);
            // Some in a row, as in a network, and one number of the last, to wait for them.
            serve(|| {
                let mut product = left.matmul(&right)?;
                for _ in 1..PRODUCTS {
                    product = left.matmul(&right)?;
                }
                Ok(vec![product.get(0)?.get(0)?.to_scalar()?])
            })
        }
        Work::Served { model, chunks, in_flight, max_batch } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let mut served = runtime.block_on(Served::start(model, chunks, *max_batch))?;
            serve(|| runtime.block_on(served.ask(*in_flight)).map(|()| Vec::new()))
        }
        Work::Mel { samples } => {
            let samples = read_samples(samples)?;
            serve(|| chunks_of(&samples))
        }
        Work::Fft { samples } => {
            let samples = read_samples(samples)?;
            let fft = RealFftPlanner::<f32>::new().plan_fft_forward(FFT_SIZE);
            let (mut window, mut spectrum) = (fft.make_input_vec(), fft.make_output_vec());
            let mut scratch = fft.make_scratch_vec();
            let silence = vec![0.0; FFT_SIZE / 2];
            let padded = [silence.as_slice(), &samples, &silence].concat();
            serve(|| {
                for frame in 0..frames_in(samples.len() as u64) {
                    let start = frame_centre(frame) as usize;
                    window.copy_from_slice(&padded[start..start + FFT_SIZE]);
                    fft.process_with_scratch(&mut window, &mut spectrum, &mut scratch)?;
                    black_box(&spectrum);
                }
                Ok(Vec::new())
            })
        }
        Work::Features { audio } => serve(|| {
            let mut mean = Mean::default();
            analyze_file(audio, &Limits::default(), &mut |event| {
                if let Event::Chunk(chunk) = event {
                    mean.add(&chunk);
                }
                ControlFlow::Continue(())
            })?;
            Ok(mean.finish())
        }),
        Work::Decode { audio } => serve(|| {
            decode(audio, |block, _| {
                black_box(block);
                Ok(())
            })?;
            Ok(Vec::new())
        }),
        Work::Track { model, audio } => {
            let classifier = Classifier::load(&ModelFolder::open(Some(model))?, DeviceSpec::Cpu)?;
            serve(|| {
                let mut chunks = Vec::new();
                analyze_file(audio, &Limits::default(), &mut |event| {
                    if let Event::Chunk(chunk) = event {
                        chunks.push(chunk.quantize());
                    }
                    ControlFlow::Continue(())
                })?;
                let voting = chunks.iter().filter(|chunk| !chunk.silent).map(|chunk| &*chunk.cells);
                let mut votes = Votes::new(classifier.labels().len());
                for probabilities in classifier.classify(&voting.collect::<Vec<_>>())? {
                    votes.add(&probabilities);
                }
                Ok(votes.probabilities().into_iter().map(|probability| probability as f32).collect())
            })
        }
    }
}

fn serve(mut round: impl FnMut() -> anyhow::Result<Vec<f32>>) -> anyhow::Result<()> {
    let answer = round()?.into_iter().map(f64::from).collect();
    let versions = format!("chorale {}", env!("CARGO_PKG_VERSION"));
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&Greeting { versions, answer })?)?;
    for line in std::io::stdin().lock().lines() {
        let rounds: u64 = line?.trim().parse().context("expected a number of rounds")?;
        let started = Instant::now();
        for _ in 0..rounds {
            black_box(round()?);
        }
        writeln!(out, "{}", started.elapsed().as_secs_f64())?;
    }
    Ok(())
}

/// The mean over chunks and frames of every band, in bytes of the contract.
#[derive(Default)]
struct Mean {
    sums: Vec<f64>,
    chunks: usize,
}

impl Mean {
    fn add(&mut self, chunk: &DbChunk<'_>) {
        self.sums.resize(MEL_BANDS, 0.0);
        self.chunks += 1;
        let cells = chunk.quantize().cells;
        for (sum, row) in self.sums.iter_mut().zip(cells.chunks_exact(CHUNK_FRAMES)) {
            *sum += f64::from(row.iter().map(|cell| u32::from(*cell)).sum::<u32>());
        }
    }

    fn finish(self) -> Vec<f32> {
        let cells = (self.chunks * CHUNK_FRAMES).max(1) as f64;
        self.sums.into_iter().map(|sum| (sum / cells) as f32).collect()
    }
}

fn chunks_of(samples: &[f32]) -> anyhow::Result<Vec<f32>> {
    let (mut mel, mut chunker, mut mean) = (MelSpectrogram::new(), Chunker::new(), Mean::default());
    let mut take = |frame: &MelFrame| -> anyhow::Result<()> {
        if let Some(chunk) = chunker.push(frame) {
            mean.add(&chunk);
        }
        Ok(())
    };
    mel.push(samples, &mut take)?;
    mel.finish(&mut take)?;
    if let Some(chunk) = chunker.finish() {
        mean.add(&chunk);
    }
    Ok(mean.finish())
}

fn read_samples(path: &Path) -> anyhow::Result<Vec<f32>> {
    let bytes = std::fs::read(path)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// The mono samples of a file at the rate of the contract.
pub(crate) fn samples_of(path: &Path) -> anyhow::Result<Vec<f32>> {
    let (mut samples, mut resampler) = (Vec::new(), None);
    decode(path, |planes, rate| {
        let length = planes.first().map_or(0, Vec::len);
        let mono: Vec<f32> = (0..length)
            .map(|index| planes.iter().map(|plane| plane[index]).sum::<f32>() / planes.len() as f32)
            .collect();
        let resampler = match &mut resampler {
            Some(resampler) => resampler,
            none => none.insert(Resampler::new(rate)?),
        };
        resampler.push(&mono, &mut |ready| -> anyhow::Result<()> {
            samples.extend_from_slice(ready);
            Ok(())
        })
    })?;
    anyhow::ensure!(samples.len() > SAMPLE_RATE as usize, "{}: shorter than a second", path.display());
    Ok(samples)
}

/// Decodes a file with symphonia, and hands on each block: its channels, and the rate.
fn decode(path: &Path, mut each: impl FnMut(&[Vec<f32>], u32) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stream = MediaSourceStream::new(Box::new(std::fs::File::open(path)?), MediaSourceStreamOptions::default());
    let mut format = symphonia::default::get_probe().probe(
        &Hint::new(),
        stream,
        FormatOptions::default(),
        MetadataOptions::default(),
    )?;
    let track = format.default_track(TrackType::Audio).context("no audio track")?;
    let (id, parameters) = (track.id, track.codec_params.clone());
    let parameters = parameters.as_ref().and_then(|parameters| parameters.audio()).context("no audio codec")?;
    let mut decoder =
        symphonia::default::get_codecs().make_audio_decoder(parameters, &AudioDecoderOptions::default())?;
    let mut planes = Vec::new();
    while let Some(packet) = format.next_packet()? {
        if packet.track_id == id {
            let block = decoder.decode(&packet)?;
            block.copy_to_vecs_planar(&mut planes);
            each(&planes, block.spec().rate())?;
        }
    }
    Ok(())
}
