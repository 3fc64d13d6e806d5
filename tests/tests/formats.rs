//! Audio of every format is classified, in one process and in four, with the same result.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{fs, path::PathBuf};

use chorale_proto::v1::{ClassifyOptions, PcmFormat, SampleFormat};
use chorale_tests::{
    Cluster, Server,
    command::{self, Answer},
    fixtures, sound,
    verdict::{assert_coherent, assert_same_answer, assert_same_sound},
};

const CLIP_SECONDS: f64 = 4.6;
/// What an encoder adds to the clip, at most.
const PADDING_SECONDS: f64 = 0.15;

fn classify(arguments: &[&str], paths: &[PathBuf]) -> Vec<Answer> {
    let mut words = vec!["classify".to_owned(), "--json".to_owned()];
    words.extend(arguments.iter().map(|&argument| argument.to_owned()));
    words.extend(paths.iter().map(|path| path.display().to_string()));
    let answers = command::run(words).expect_code(0).answers();
    let heard: Vec<PathBuf> = answers.iter().map(|answer| PathBuf::from(&answer.path)).collect();
    assert_eq!(heard, paths, "one line a file, in the order of the command line");
    answers
}

#[test]
fn one_process_classifies_every_format() {
    for answer in classify(&[], &fixtures::formats()) {
        assert_eq!(answer.warnings, [""; 0], "{}", answer.path);
        assert!((answer.duration_seconds - CLIP_SECONDS).abs() < PADDING_SECONDS, "{answer:?}");
        assert_eq!(answer.votes.values().sum::<u32>(), answer.chunks, "{}", answer.path);
        assert_eq!(answer.probabilities.len(), 10, "{}", answer.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_processes_say_the_same_as_one() {
    let Some(cluster) = Cluster::start().await else { return };
    let mut paths = fixtures::formats();
    paths.extend(fixtures::genres());
    let alone = classify(&[], &paths);
    let together = classify(&["--endpoint", cluster.gateway.endpoint()], &paths);
    for (alone, together) in alone.iter().zip(&together) {
        assert_same_answer(alone, together);
    }
}

#[test]
fn a_wrong_extension_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let paths = fixtures::formats();
    let mut misnamed = Vec::new();
    for path in &paths {
        let name = path.file_stem().unwrap().to_string_lossy();
        let wrong = if path.extension().is_some_and(|extension| extension == "wav") { "mp3" } else { "wav" };
        let copy = folder.path().join(format!("{name}-{}.{wrong}", misnamed.len()));
        fs::copy(path, &copy).unwrap();
        misnamed.push(copy);
    }
    for (named, misnamed) in classify(&[], &paths).iter().zip(&classify(&[], &misnamed)) {
        assert_same_answer(named, misnamed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_samples_are_heard_like_the_same_samples_in_a_file() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let samples = sound::chord(6.0, 1);
    let filed = client.classify(sound::wav(&samples)).await.unwrap();
    assert_coherent(&filed);

    let raw: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let pcm = PcmFormat { sample_format: SampleFormat::S16le.into(), sample_rate: sound::SAMPLE_RATE, channels: 1 };
    let options = ClassifyOptions { pcm: Some(pcm), ..ClassifyOptions::default() };
    let raw = client.classify_with(raw, options).await.unwrap();
    assert_same_sound(&raw, &filed);
    assert_eq!(raw.audio_format.unwrap().container, "pcm");
}
