//! Tracks of every length, from none to ten minutes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use chorale_proto::v1::{ClassifyOptions, EventKind, classify_stream_response::Event};
use chorale_tests::{MIB, Server, client::reason, fixtures, note, sound, verdict::assert_coherent};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_track_has_a_chunk_every_two_seconds_and_one_for_its_tail() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let lengths =
        [(1.0, 1), (3.0, 1), (4.0, 1), (4.9, 1), (5.0, 2), (6.0, 2), (6.9, 2), (7.0, 3), (8.0, 3), (30.0, 14)];
    for (seconds, chunks) in lengths {
        let verdict = client.classify(sound::wav(&sound::chord(seconds, 7))).await.unwrap();
        assert_coherent(&verdict);
        assert_eq!(verdict.chunk_count, chunks, "{seconds} s");
        assert_eq!(verdict.silent_chunk_count, 0, "{seconds} s");
        assert!((verdict.duration_seconds - seconds).abs() < 1e-3, "{seconds} s: {}", verdict.duration_seconds);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn less_than_a_second_is_refused() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    for seconds in [0.0, 0.01, 0.5, 0.9] {
        let refusal = client.classify(sound::wav(&sound::chord(seconds, 7))).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{seconds} s: {refusal}");
        // A file without a single sample may also count as one that holds no audio.
        if seconds > 0.0 {
            assert_eq!(reason(&refusal), "AUDIO_TOO_SHORT", "{seconds} s");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_unknown_and_a_silent_part_does_not_vote() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let verdict = client.classify(sound::wav(&sound::silence(10.0))).await.unwrap();
    assert_coherent(&verdict);
    assert_eq!((verdict.genre.as_str(), verdict.confidence), ("unknown", 0.0));
    assert_eq!((verdict.chunk_count, verdict.silent_chunk_count), (4, 4));
    assert_eq!(verdict.segments.len(), 1);
    assert_eq!(verdict.segments[0].genre, "unknown");

    // Music, because tones are `unknown` as well; the window of a frame at 4 s would still hear 4 s of it.
    let [heard, all] = [3.9, 12.0].map(|seconds| (seconds * 11_025.0) as usize);
    let clip = fixtures::formats().into_iter().find(|path| path.ends_with("clip.wav")).unwrap();
    let mut upload = sound::wav_header(11_025, 1, all as u64).to_vec();
    upload.extend(&fixtures::read(&clip)[upload.len()..][..2 * heard]);
    upload.resize(upload.len() + 2 * (all - heard), 0);
    let verdict = client.classify(upload).await.unwrap();
    assert_coherent(&verdict);
    assert_ne!(verdict.genre, "unknown");
    assert!(verdict.confidence > 0.0 && !verdict.scores.is_empty(), "what was heard is judged: {verdict:?}");
    assert_ne!(verdict.segments[0].genre, "unknown");
    assert_eq!((verdict.chunk_count, verdict.silent_chunk_count), (5, 3));
    assert_eq!(verdict.segments.last().unwrap().genre, "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_come_while_the_upload_is_still_running() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let options = ClassifyOptions {
        events: vec![EventKind::ChunkVote.into(), EventKind::Progress.into()],
        ..ClassifyOptions::default()
    };
    let track = sound::wav(&sound::chord(20.0, 7));
    let mut upload = client.upload(options).await.unwrap();
    assert!(upload.accepted().await.unwrap().audio_wanted);
    upload.send(track.slice(..track.len() / 2)).await;
    let mut votes = Vec::new();
    while votes.len() < 3 {
        match upload.event().await.unwrap().expect("the upload is not complete") {
            Event::ChunkVote(vote) => votes.push(vote),
            Event::Progress(progress) => assert!(progress.bytes_received > 0),
            other => panic!("unexpected {other:?}"),
        }
    }
    for (index, vote) in votes.iter().enumerate() {
        assert_eq!(vote.index as usize, index);
        assert_eq!((vote.start_seconds, vote.end_seconds), (2.0 * index as f64, 2.0 * index as f64 + 4.0));
        assert_eq!(vote.probabilities.len(), 10);
    }
    upload.send(track.slice(track.len() / 2..)).await;
    let verdict = upload.verdict().await.unwrap();
    assert_coherent(&verdict);
    assert_eq!(verdict.chunk_count, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes_take_the_memory_of_one() {
    const RATE: u32 = 44_100;
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let second: Vec<u8> = (0..RATE)
        .flat_map(|frame| {
            let level = ((f64::from(frame) / f64::from(RATE) * 2_000.0).sin() * 9_000.0) as i16;
            [level, level / 2].map(i16::to_le_bytes).concat()
        })
        .collect();
    let second = Bytes::from(second);
    let stream = |seconds: usize| {
        let header = sound::wav_header(RATE, 2, seconds as u64 * u64::from(RATE));
        let audio = std::iter::repeat_n(second.clone(), seconds);
        client.classify_messages(std::iter::once(header).chain(audio), ClassifyOptions::default())
    };

    assert_eq!(stream(60).await.unwrap().chunk_count, 29);
    let before = server.memory();
    let verdict = stream(600).await.unwrap();
    assert_coherent(&verdict);
    assert_eq!(verdict.chunk_count, 299);
    assert!((verdict.duration_seconds - 600.0).abs() < 1e-3, "{}", verdict.duration_seconds);
    let grown = server.memory().peak.saturating_sub(before.peak);
    note(format_args!("{} MiB at most for one minute, {} MiB more for ten", before.peak / MIB, grown / MIB));
    assert!(grown < 32 * MIB, "the peak grew by {} MiB on 100 MiB of audio", grown / MIB);
}
