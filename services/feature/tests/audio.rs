//! Whole tracks through [`analyze`]: what is answered, what is refused, and that nothing panics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use bytes::Bytes;
use chorale_feature::{
    AudioInput, AudioSource, AudioSummary, Event, FeatureError, Limits, PcmSpec, SampleFormat, WarningKind, analyze,
    analyze_bytes,
};
use chorale_model::contract::CHUNK_CELLS;
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::time::Duration;

/// A chord, 16 bits, interleaved.
fn chord(seconds: f64, sample_rate: u32, channels: u16) -> Vec<i16> {
    let frames = (seconds * f64::from(sample_rate)).round() as u32;
    let sample = |frame: u32| {
        let time = f64::from(frame) / f64::from(sample_rate) * std::f64::consts::TAU;
        let sum = (220.0 * time).sin() + (277.2 * time).sin() + (329.6 * time).sin();
        (sum * 8_000.0) as i16
    };
    (0..frames).flat_map(|frame| std::iter::repeat_n(sample(frame), channels.into())).collect()
}

fn wav(sample_rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let mut file = b"RIFF".to_vec();
    file.extend((36 + data.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    file.extend(channels.to_le_bytes());
    file.extend(sample_rate.to_le_bytes());
    file.extend(sample_rate.wrapping_mul(2 * u32::from(channels)).to_le_bytes());
    file.extend(channels.wrapping_mul(2).to_le_bytes());
    file.extend(b"\x10\0data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

fn au(sample_rate: u32, channels: u32, data_bytes: u32, samples: &[i16]) -> Vec<u8> {
    let mut file = b".snd".to_vec();
    for word in [28, data_bytes, 3, sample_rate, channels, 0] {
        file.extend(word.to_be_bytes());
    }
    file.extend(samples.iter().flat_map(|sample| sample.to_be_bytes()));
    file
}

fn aiff(sample_rate: u16, samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_be_bytes()).collect();
    let mut chunks = b"AIFFSSND".to_vec();
    chunks.extend((data.len() as u32 + 8).to_be_bytes());
    chunks.extend([0; 8]);
    chunks.extend(&data);
    // The sound may come before its description: such a file cannot be streamed.
    chunks.extend(b"COMM\0\0\0\x12\0\x01");
    chunks.extend((samples.len() as u32).to_be_bytes());
    chunks.extend(b"\0\x10");
    let exponent = 15 - sample_rate.leading_zeros() as u16;
    chunks.extend((16_383 + exponent).to_be_bytes());
    chunks.extend((u64::from(sample_rate) << (63 - exponent)).to_be_bytes());
    [&b"FORM"[..], &(chunks.len() as u32).to_be_bytes(), &chunks].concat()
}

type Outcome = Result<(AudioSummary, Vec<Bytes>), FeatureError>;

fn hear_with(bytes: Vec<u8>, input: &AudioInput, limits: &Limits) -> Outcome {
    let mut chunks = Vec::new();
    let summary = analyze_bytes(bytes, input, limits, &mut |event| {
        if let Event::Chunk(chunk) = event {
            chunks.push(chunk.quantize().cells);
        }
        ControlFlow::Continue(())
    })?;
    Ok((summary, chunks))
}

fn hear(bytes: Vec<u8>) -> Outcome {
    hear_with(bytes, &AudioInput::default(), &Limits::default())
}

/// Sends `bytes` in pieces from another thread, and only then, if told to, says that they are complete.
fn upload(bytes: Vec<u8>, piece: usize, complete: bool) -> AudioSource {
    let (sender, source) = AudioSource::channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for part in bytes.chunks(piece) {
                if sender.send(Bytes::copy_from_slice(part)).await.is_err() {
                    return;
                }
            }
            if complete {
                sender.finish();
            }
        });
    });
    source
}

fn noise(bytes: usize, mut state: u32) -> Vec<u8> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn every_length_from_one_second_is_answered() {
    for (seconds, chunks) in [(1.0, 1), (3.0, 1), (4.0, 1), (4.9, 1), (5.0, 2), (6.0, 2), (10.5, 4), (30.0, 14)] {
        let (summary, cells) = hear(wav(22_050, 1, &chord(seconds, 22_050, 1))).unwrap();
        assert_eq!(summary.chunk_count, chunks, "{seconds} s");
        assert!(cells.len() == chunks as usize && cells.iter().all(|cells| cells.len() == CHUNK_CELLS));
        assert!((summary.duration_seconds - seconds).abs() < 1e-3);
        assert!(summary.warnings.is_empty());
    }
    for seconds in [0.01, 0.5, 0.95] {
        let error = hear(wav(22_050, 1, &chord(seconds, 22_050, 1))).unwrap_err();
        assert!(matches!(error, FeatureError::TooShort { .. }), "{error}");
    }
}

#[test]
fn the_same_music_is_the_same_in_every_container() {
    let samples = chord(6.0, 22_050, 1);
    let (summary, expected) = hear(wav(22_050, 1, &samples)).unwrap();
    assert_eq!((summary.container.as_str(), summary.codec.as_str()), ("wav", "pcm_s16le"));
    let stereo: Vec<i16> = samples.iter().flat_map(|&sample| [sample, sample]).collect();
    let raw = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let pcm = PcmSpec { format: SampleFormat::S16Le, sample_rate: 22_050, channels: 1 };
    let raw_input = AudioInput { pcm: Some(pcm), ..AudioInput::default() };
    for (name, heard) in [
        ("stereo", hear(wav(22_050, 2, &stereo))),
        ("au", hear(au(22_050, 1, samples.len() as u32 * 2, &samples))),
        ("au of unknown length", hear(au(22_050, 1, u32::MAX, &samples))),
        ("aiff", hear(aiff(22_050, &samples))),
        ("pcm", hear_with(raw, &raw_input, &Limits::default())),
    ] {
        let (summary, chunks) = heard.unwrap();
        assert!(chunks == expected, "{name}");
        assert!(summary.warnings.is_empty(), "{name}");
    }
}

#[test]
fn an_upload_is_heard_while_it_arrives() {
    let file = wav(22_050, 1, &chord(60.0, 22_050, 1));
    let (sender, source) = AudioSource::channel(1);
    let (heard, first_chunk) = std::sync::mpsc::channel();
    let analysis = std::thread::spawn(move || {
        analyze(&source, &AudioInput::default(), &Limits::default(), &mut |_| {
            let _ = heard.send(());
            ControlFlow::Continue(())
        })
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (first, rest) = file.split_at(file.len() / 2);
    for part in first.chunks(4_096) {
        runtime.block_on(sender.send(Bytes::copy_from_slice(part))).unwrap();
    }
    first_chunk.recv_timeout(Duration::from_secs(60)).expect("a chunk before the upload is complete");
    for part in rest.chunks(4_096) {
        runtime.block_on(sender.send(Bytes::copy_from_slice(part))).unwrap();
    }
    sender.finish();
    assert_eq!(analysis.join().unwrap().unwrap().chunk_count, 29);
}

#[test]
fn an_upload_that_must_be_spooled_gives_the_same() {
    let file = aiff(22_050, &chord(6.0, 22_050, 1));
    let expected = hear(file.clone()).unwrap().0.chunk_count;
    let source = upload(file, 1_000, true);
    let summary =
        analyze(&source, &AudioInput::default(), &Limits::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((summary.container.as_str(), summary.chunk_count), ("aiff", expected));
}

#[test]
fn a_lost_caller_is_not_the_end_of_the_track() {
    let samples = chord(10.0, 22_050, 1);
    for file in [wav(22_050, 1, &samples), au(22_050, 1, u32::MAX, &samples), aiff(22_050, &samples)] {
        let source = upload(file, 4_096, false);
        let result = analyze(&source, &AudioInput::default(), &Limits::default(), &mut |_| ControlFlow::Continue(()));
        assert!(matches!(result, Err(FeatureError::Aborted)), "{result:?}");
    }
    let file = wav(22_050, 1, &samples);
    let result = analyze_bytes(file, &AudioInput::default(), &Limits::default(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(result, Err(FeatureError::Aborted)), "{result:?}");
}

#[test]
fn what_is_no_audio_is_refused() {
    assert!(matches!(hear(Vec::new()), Err(FeatureError::Empty)));
    let text = "Call me Ishmael. Some years ago, never mind how long precisely…\n".repeat(20_000).into_bytes();
    let mut files = vec![text, vec![0; 3_000_000], vec![0xff; 200_000], b"RIFF".to_vec(), b"fLaC".to_vec(), vec![0x49]];
    files.extend([
        b".snd\0\0\0\x01".to_vec(),
        b"caff\0\x01\0\0".to_vec(),
        b"OggS".to_vec(),
        b"\0\0\0\x20ftypM4A ".to_vec(),
    ]);
    files.extend((1..40).map(|seed| noise(200_000, seed)));
    // Headers of MPEG frames, as they stand in noise and pictures, with nothing behind them.
    files.extend((1..10).map(|seed| {
        let mut bytes = noise(1_500_000, seed);
        bytes.chunks_mut(3_000).for_each(|part| {
            part.iter_mut().zip([0xff, 0xfb, 0x90, 0x64]).for_each(|(byte, header)| *byte = header);
        });
        bytes
    }));
    for file in files {
        let head = file[..file.len().min(8)].to_vec();
        let result = hear(file);
        assert!(
            matches!(result, Err(FeatureError::Unsupported { .. } | FeatureError::Unreadable { .. })),
            "{head:x?}: {result:?}"
        );
    }
}

#[test]
fn a_wrong_hint_does_no_harm() {
    let input = AudioInput { content_type: "mp3".to_owned(), ..AudioInput::default() };
    let (summary, _) = hear_with(wav(22_050, 1, &chord(2.0, 22_050, 1)), &input, &Limits::default()).unwrap();
    assert_eq!(summary.container, "wav");
}

#[test]
fn what_is_missing_is_told() {
    let samples = chord(10.0, 22_050, 1);
    for mut file in [wav(22_050, 1, &samples), au(22_050, 1, samples.len() as u32 * 2, &samples)] {
        file.truncate(file.len() / 2);
        let (summary, _) = hear(file).unwrap();
        let kinds: Vec<_> = summary.warnings.iter().map(|warning| warning.kind).collect();
        assert_eq!(kinds, [WarningKind::Truncated]);
        assert!((summary.duration_seconds - 5.0).abs() < 0.1);
    }
}

#[test]
fn floats_that_are_no_numbers_are_silence() {
    let mut samples: Vec<f32> = chord(2.0, 22_050, 1).iter().map(|&sample| f32::from(sample) / 32_768.0).collect();
    samples[22_050] = f32::NAN;
    samples[22_051] = f32::INFINITY;
    let bytes = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let pcm = PcmSpec { format: SampleFormat::F32Le, sample_rate: 22_050, channels: 1 };
    let input = AudioInput { pcm: Some(pcm), ..AudioInput::default() };
    let (summary, chunks) = hear_with(bytes, &input, &Limits::default()).unwrap();
    assert_eq!((summary.warnings[0].kind, summary.warnings[0].count), (WarningKind::DecodeDamage, 2));
    assert!((summary.warnings[0].first_seconds - 1.0).abs() < 0.2);
    assert!(chunks[0].contains(&255));
}

#[test]
fn hostile_headers_hit_limits() {
    let samples = chord(2.0, 22_050, 1);
    for (rate, channels) in [(0, 1), (4_000_000_000, 1), (22_050, 0), (22_050, 1_000), (500, 1), (u32::MAX, u16::MAX)] {
        let result = hear(wav(rate, channels, &samples));
        assert!(result.is_err(), "wav, {rate} Hz, {channels} channels: {result:?}");
        let result = hear(au(rate, channels.into(), u32::MAX, &samples));
        assert!(
            matches!(result, Err(FeatureError::LimitExceeded { .. } | FeatureError::Unsupported { .. })),
            "au, {rate} Hz, {channels} channels: {result:?}"
        );
    }
    let limit = |limits: Limits| match hear_with(wav(22_050, 1, &samples), &AudioInput::default(), &limits) {
        Err(FeatureError::LimitExceeded { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(Limits { max_duration: Duration::from_secs(1), ..Limits::default() }), "max_duration");
    assert_eq!(limit(Limits { max_audio_bytes: 1_000, ..Limits::default() }), "max_audio_bytes");
    assert_eq!(limit(Limits { max_sample_rate: 22_049, ..Limits::default() }), "max_sample_rate");
}

#[test]
fn silence_is_marked() {
    let mut silent = Vec::new();
    analyze_bytes(wav(44_100, 2, &vec![0; 882_000]), &AudioInput::default(), &Limits::default(), &mut |event| {
        if let Event::Chunk(chunk) = event {
            silent.push(chunk.is_silent());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(silent, [true; 4]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn broken_files_never_panic(
        kind in 0..4_usize,
        edits in prop::collection::vec((0..200_usize, any::<u8>()), 0..12),
        cut in prop::option::of(0..60_000_usize),
        from in 0..40_000_usize,
        gap in 0..3_000_usize,
    ) {
        let samples = chord(1.2, 22_050, 1);
        let mut file = match kind {
            0 => wav(22_050, 1, &samples),
            1 => wav(8_000, 2, &samples),
            2 => au(22_050, 1, samples.len() as u32 * 2, &samples),
            _ => aiff(22_050, &samples),
        };
        for (position, value) in edits {
            // The end matters too: AIFF has its description there.
            let position = if position < 100 { position } else { file.len() - (position - 99) };
            file[position] = value;
        }
        let from = from.min(file.len());
        file.drain(from..(from + gap).min(file.len()));
        file.truncate(cut.unwrap_or(usize::MAX));
        if let Ok((summary, chunks)) = hear(file) {
            prop_assert_eq!(summary.chunk_count as usize, chunks.len());
            prop_assert!(summary.duration_seconds >= 0.95);
        }
    }
}
