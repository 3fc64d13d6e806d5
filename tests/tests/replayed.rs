//! A track that is sent again to another feature replica tells its caller nothing twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use chorale_proto::{
    service_names::{CLASSIFIER, FEATURE, INFERENCE},
    v1::{ClassifyOptions, EventKind, classify_stream_response::Event},
};
use chorale_tests::{Server, Upload, sound, until};

const PATIENCE: Duration = Duration::from_secs(30);
const UPLOADS: u64 = 6;

/// What came of a track so far.
#[derive(Default)]
struct Heard {
    chunks: u32,
    seconds: f64,
}

impl Heard {
    /// Takes events until `enough`, or until the verdict.
    async fn listen(&mut self, upload: &mut Upload, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            match upload.event().await.unwrap() {
                Some(Event::ChunkVote(vote)) => {
                    assert_eq!((vote.index, vote.mel.len()), (self.chunks, 128 * 96));
                    self.chunks += 1;
                }
                Some(Event::Envelope(envelope)) => {
                    assert!(
                        (envelope.start_seconds - self.seconds).abs() < 1e-6,
                        "{envelope:?} after {} s",
                        self.seconds
                    );
                    self.seconds += envelope.minima.len() as f64 * envelope.span_seconds;
                }
                Some(Event::Verdict(verdict)) => {
                    assert_eq!(verdict.chunk_count, self.chunks);
                    assert!((verdict.duration_seconds - self.seconds).abs() < 0.2);
                    return;
                }
                Some(_) => {}
                None => panic!("no verdict"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_and_waveform_come_once() {
    let inference = Server::start("inference", &[]).await;
    inference.serving(INFERENCE).await;
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let feature = Server::start("feature", &["--inference", inference.endpoint()]).await;
        feature.serving(FEATURE).await;
        replicas.push(feature);
    }
    let targets = replicas.iter().map(Server::endpoint).collect::<Vec<_>>().join(",");
    let gateway = Server::start("gateway", &["--feature", &targets]).await;
    gateway.serving(CLASSIFIER).await;

    let client = gateway.client().await;
    let kinds = [EventKind::Mel, EventKind::Envelope];
    let options = ClassifyOptions { events: kinds.map(Into::into).to_vec(), ..ClassifyOptions::default() };
    let mut halves = Vec::new();
    for seed in 0..UPLOADS {
        let track = sound::wav(&sound::chord(11.0, seed));
        let mut upload = client.upload(options.clone()).await.unwrap();
        upload.send(track.slice(..track.len() / 2)).await;
        let mut heard = Heard::default();
        heard.listen(&mut upload, |heard| heard.chunks > 0 && heard.seconds > 0.0).await;
        halves.push((track, upload, heard));
    }
    for replica in &replicas {
        until("both have some", PATIENCE, async || {
            (replica.metric("chorale_feature_open_streams")? > 0.0).then_some(())
        })
        .await;
    }
    replicas[0].kill();
    for (track, mut upload, mut heard) in halves {
        upload.send(track.slice(track.len() / 2..)).await;
        upload.close();
        heard.listen(&mut upload, |_| false).await;
    }
    assert!(gateway.metric("chorale_gateway_replays_total").unwrap() > 0.0);
}
