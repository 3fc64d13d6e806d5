//! Chunks against values from librosa. `tests/parity/make_fixture.py` makes them, and the same signal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use chorale_feature::{AudioInput, Event, Limits, PcmSpec, SampleFormat, analyze_bytes};
use chorale_model::contract::{CHUNK_CELLS, FLOOR_DB, SAMPLE_RATE, dequantize};
use std::ops::ControlFlow;

const SAMPLES: u32 = 165_375;

/// A rising triangle wave under noise whose level steps every half second; a half second of silence in between.
fn synthetic_signal() -> Vec<u8> {
    let (mut phase, mut step, mut noise) = (0_u32, 10_000_000_u32, 1_u32);
    let sample = |index: u32| {
        phase = phase.wrapping_add(step);
        step = step.wrapping_add(9_000);
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let section = index / 11_025;
        let triangle = ((phase >> 16) as i32 - 32_768).abs() - 16_384;
        let hiss = ((noise >> 16) as i32 - 32_768) >> (2 + section % 9);
        let sample = if section == 5 { 0 } else { (triangle >> 1) + hiss };
        i16::try_from(sample).expect("the signal stays within 16 bits").to_le_bytes()
    };
    (0..SAMPLES).flat_map(sample).collect()
}

#[test]
fn chunks_equal_those_of_librosa() {
    let fixture = include_bytes!("fixtures/librosa_chunks.npy");
    let reference = npyz::NpyFile::new(&fixture[..]).unwrap().into_vec::<f32>().unwrap();

    let pcm = PcmSpec { format: SampleFormat::S16Le, sample_rate: SAMPLE_RATE, channels: 1 };
    let input = AudioInput { pcm: Some(pcm), ..AudioInput::default() };
    let mut cells = Vec::new();
    let mut bytes = Vec::new();
    let summary = analyze_bytes(synthetic_signal(), &input, &Limits::default(), &mut |event| {
        if let Event::Chunk(chunk) = event {
            cells.extend_from_slice(chunk.cells);
            bytes.extend_from_slice(&chunk.quantize().cells);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(summary.chunk_count, 3);
    assert_eq!((cells.len(), reference.len()), (3 * CHUNK_CELLS, 3 * CHUNK_CELLS));

    let above_floor = || cells.iter().zip(&reference).filter(|&(_, &reference)| reference > FLOOR_DB);
    let differences = above_floor().map(|(ours, reference)| f64::from((ours - reference).abs()));
    let worst = differences.clone().fold(0.0, f64::max);
    let mean = differences.sum::<f64>() / above_floor().count() as f64;
    assert!(mean < 0.05, "mean difference {mean} dB");
    assert!(worst < 1.0, "worst difference {worst} dB");

    let worst_byte = bytes.iter().zip(&reference).map(|(&byte, reference)| (dequantize(byte) - reference).abs());
    assert!(worst_byte.fold(0.0, f32::max) < 0.2, "a byte is off by more than half a step");
    println!("mean difference {mean:.6} dB, worst {worst:.6} dB");
}
