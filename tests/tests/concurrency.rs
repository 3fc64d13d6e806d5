//! Many tracks at once, each with its own right answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::HashSet;

use bytes::Bytes;
use chorale_proto::v1::{ClassifyOptions, Verdict};
use chorale_tests::{
    Server, Upload, fixtures, sound,
    verdict::{assert_coherent, assert_same},
};

const STREAMS: usize = 32;
/// Small, so that the tracks come in many turns.
const MESSAGE_BYTES: usize = 8 * 1024;

fn tracks() -> Vec<Bytes> {
    let files = fixtures::formats().into_iter().chain(fixtures::genres());
    let mut tracks: Vec<Bytes> = files.map(|path| fixtures::read(&path)).collect();
    for seed in 0.. {
        if tracks.len() >= STREAMS {
            break;
        }
        tracks.push(sound::wav(&sound::chord(2.0 + seed as f64, seed)));
    }
    tracks.truncate(STREAMS);
    tracks
}

#[tokio::test(flavor = "multi_thread")]
async fn interleaved_tracks_get_the_answers_that_they_get_one_by_one() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let anew = ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() };
    let tracks = tracks();

    let mut alone: Vec<Verdict> = Vec::new();
    for track in &tracks {
        let verdict = client.classify_with(track.clone(), anew.clone()).await.unwrap();
        assert_coherent(&verdict);
        alone.push(verdict);
    }
    let distinct: HashSet<String> = alone.iter().map(|verdict| format!("{:.3?}", verdict.scores)).collect();
    assert!(distinct.len() > STREAMS / 2, "answers that are all alike would hide a mix-up");

    let mut uploads = Vec::new();
    for _ in &tracks {
        uploads.push(client.upload(anew.clone()).await.unwrap());
    }
    let longest = tracks.iter().map(Bytes::len).max().unwrap();
    for start in (0..longest).step_by(MESSAGE_BYTES) {
        for (upload, track) in uploads.iter_mut().zip(&tracks) {
            if start < track.len() {
                upload.send(track.slice(start..track.len().min(start + MESSAGE_BYTES))).await;
            }
        }
    }
    let together = futures::future::try_join_all(uploads.into_iter().map(Upload::verdict)).await.unwrap();
    for (alone, together) in alone.iter().zip(&together) {
        assert!(!together.cached);
        assert_same(alone, together);
    }
}
