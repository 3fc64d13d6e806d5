//! Faults in a cluster of several replicas of every role: nobody loses an answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use chorale_proto::{
    service_names::{CLASSIFIER, FEATURE, INFERENCE},
    v1::{ClassifyOptions, Verdict},
};
use chorale_tests::{
    Client, Cluster, Server, Upload,
    client::reason,
    command, fixtures, note, sound, until,
    verdict::{assert_coherent, assert_same},
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const PATIENCE: Duration = Duration::from_secs(30);
const HITS: &str = "chorale_gateway_cache_lookups_total{backend=\"redis\",result=\"hit\"}";

fn anew() -> ClassifyOptions {
    ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() }
}

/// Two replicas of every role, which know each other by lists of addresses.
struct Replicated {
    inference: Vec<Server>,
    feature: Vec<Server>,
    gateways: Vec<Server>,
}

impl Replicated {
    async fn start(gateway_environment: &[(&str, &str)]) -> Self {
        let mut inference = Vec::new();
        for _ in 0..2 {
            inference.push(Server::start("inference", &[]).await);
        }
        let mut feature = Vec::new();
        for _ in 0..2 {
            feature.push(Server::start("feature", &["--inference", &endpoints(&inference)]).await);
        }
        let features = endpoints(&feature);
        let mut gateways = Vec::new();
        for _ in 0..2 {
            gateways.push(Server::start_with("gateway", &["--feature", &features], gateway_environment).await);
        }
        for gateway in &gateways {
            gateway.serving(CLASSIFIER).await;
        }
        Self { inference, feature, gateways }
    }

    async fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for gateway in &self.gateways {
            clients.push(gateway.client().await);
        }
        clients
    }

    fn replays(&self) -> f64 {
        self.gateways.iter().filter_map(|gateway| gateway.metric("chorale_gateway_replays_total")).sum()
    }
}

fn endpoints(servers: &[Server]) -> String {
    servers.iter().map(Server::endpoint).collect::<Vec<_>>().join(",")
}

/// Tracks of half of their audio that both gateways have, and the verdicts that they had before.
async fn halves(cluster: &Replicated, count: u64) -> Vec<(Bytes, Verdict, Upload)> {
    let clients = cluster.clients().await;
    let mut halves = Vec::new();
    for seed in 0..count {
        let client = &clients[seed as usize % clients.len()];
        let track = sound::wav(&sound::chord(9.0, seed));
        let before = client.classify_with(track.clone(), anew()).await.unwrap();
        let mut upload = client.upload(anew()).await.unwrap();
        assert!(upload.accepted().await.unwrap().audio_wanted);
        upload.send(track.slice(..track.len() / 2)).await;
        halves.push((track, before, upload));
    }
    // Both feature replicas have some of them.
    for feature in &cluster.feature {
        until("streams are open", PATIENCE, async || {
            (feature.metric("chorale_feature_open_streams")? > 0.0).then_some(())
        })
        .await;
    }
    halves
}

async fn second_half(track: &Bytes, mut upload: Upload) -> Result<Verdict, Status> {
    upload.send(track.slice(track.len() / 2..)).await;
    timeout(PATIENCE, upload.verdict()).await.expect("no call hangs")
}

#[tokio::test(flavor = "multi_thread")]
async fn tracks_of_a_feature_replica_that_dies_go_on_at_another_one() {
    let mut cluster = Replicated::start(&[]).await;
    let halves = halves(&cluster, 12).await;
    cluster.feature[0].kill();
    for (track, before, upload) in halves {
        let verdict = second_half(&track, upload).await.unwrap();
        assert_coherent(&verdict);
        assert_same(&verdict, &before);
        assert_eq!(verdict.blake3_digest, before.blake3_digest);
    }
    assert!(cluster.replays() > 0.0, "some were on the replica that died");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_past_the_replay_window_fails_with_a_time_to_come_back() {
    let mut cluster = Replicated::start(&[("CHORALE_GATEWAY__LIMITS__REPLAY_WINDOW", "64KiB")]).await;
    let halves = halves(&cluster, 12).await;
    cluster.feature[0].kill();
    let mut failed = 0;
    for (track, before, mut upload) in halves {
        // A call that has failed takes no audio.
        let verdict = match timeout(Duration::from_millis(500), upload.event()).await {
            Ok(event) => event.map(|event| panic!("expected nothing, found {event:?}")),
            Err(_elapsed) => second_half(&track, upload).await,
        };
        match verdict {
            Ok(verdict) => assert_same(&verdict, &before),
            Err(status) => {
                assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DEPENDENCY_UNAVAILABLE"));
                assert!(status.get_details_retry_info().is_some());
                failed += 1;
            }
        }
    }
    assert!(failed > 0, "some were on the replica that died");
    assert_eq!(cluster.replays(), 0.0);
}

/// What callers do until they are told to stop: a new track each time, by way of any gateway that takes it.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(cluster: &Replicated, callers: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let track = fixtures::clip();
        let expected = cluster.clients().await[0].classify_with(track.clone(), anew()).await.unwrap();
        let mut tasks = Vec::new();
        for caller in 0..callers {
            let (clients, expected) = (cluster.clients().await, expected.clone());
            let (stop, answered, track) = (Arc::clone(&stop), Arc::clone(&answered), track.clone());
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let verdict = call(&clients, caller, &track).await;
                    assert_same(&verdict, &expected);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Self { stop, answered, callers: tasks }
    }

    /// Waits until so many more tracks were answered.
    async fn answers(&self, more: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        until("tracks are answered", PATIENCE, async || {
            (self.answered.load(Ordering::Relaxed) >= before + more).then_some(())
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("every call was answered, and the same");
        }
    }
}

/// A call as a load balancer makes it: where one gateway refuses to take it, the other one does. Whatever else fails is a
/// failure.
async fn call(clients: &[Client], first: usize, track: &Bytes) -> Verdict {
    let began = Instant::now();
    for attempt in first.. {
        let client = &clients[attempt % clients.len()];
        match timeout(PATIENCE, client.classify_with(track.clone(), anew())).await.expect("no call hangs") {
            Ok(verdict) => return verdict,
            Err(status) if not_taken(&status) && began.elapsed() < PATIENCE => sleep(Duration::from_millis(20)).await,
            Err(status) => panic!("not answered: {status:?}"),
        }
    }
    unreachable!("attempts do not end")
}

/// Whether the gateway did not take the call at all: nobody listens, it drains, it is not ready yet, or the connection was
/// closed before the call was sent.
fn not_taken(status: &Status) -> bool {
    match (status.code(), reason(status).as_str()) {
        (Code::Unavailable, "" | "DRAINING") => true,
        (Code::Unavailable, "DEPENDENCY_UNAVAILABLE") => status.message().contains("not reached yet"),
        (Code::Cancelled, "") => status.message() == "operation was canceled",
        // The gateway said that it closes the connection, and that it will not look at this call.
        (Code::Internal, "") => format!("{status:?}").contains("NO_ERROR, Remote"),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_everything_costs_no_verdict() {
    let mut cluster = Replicated::start(&[]).await;
    let load = Load::start(&cluster, 4).await;
    load.answers(4).await;
    let roles =
        [(&mut cluster.inference, INFERENCE), (&mut cluster.feature, FEATURE), (&mut cluster.gateways, CLASSIFIER)];
    for (replicas, service) in roles {
        for replica in replicas {
            let began = Instant::now();
            replica.terminate();
            assert!(replica.ended().await.success());
            let drained = began.elapsed();
            replica.restart().await;
            replica.serving(service).await;
            note(format_args!(
                "{service} drained in {drained:.1?}, and served {:.1?} later",
                began.elapsed() - drained
            ));
            load.answers(8).await;
        }
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_under_load_cost_no_verdict() {
    let mut cluster = Replicated::start(&[]).await;
    let load = Load::start(&cluster, 4).await;
    for round in 0..4 {
        load.answers(4).await;
        let (inference, feature) = (&mut cluster.inference[round % 2], &mut cluster.feature[round % 2]);
        inference.kill();
        load.answers(4).await;
        inference.restart().await;
        inference.serving(INFERENCE).await;
        feature.kill();
        load.answers(4).await;
        feature.restart().await;
        feature.serving(FEATURE).await;
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_being_sorted_waits_for_a_server_that_is_killed() {
    let mut server = Server::start("up", &[]).await;
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..12 {
        let track = sound::wav(&sound::chord(20.0, seed));
        std::fs::write(folder.path().join(format!("{seed}.wav")), track).unwrap();
    }
    let (endpoint, path) = (server.endpoint().to_owned(), folder.path().to_owned());
    let sorting = tokio::task::spawn_blocking(move || {
        command::run(["classify", "--endpoint", &endpoint, "--json", path.to_str().unwrap()])
    });
    until("a track is heard", PATIENCE, async || (server.metric("chorale_feature_chunks_total")? > 0.0).then_some(()))
        .await;
    server.restart().await;
    let sorted = timeout(PATIENCE, sorting).await.expect("it ends").unwrap().expect_code(0);
    assert_eq!(sorted.stdout.lines().count(), 12, "{}", sorted.stdout);
    assert!(server.metric("chorale_feature_chunks_total").unwrap() > 0.0, "the new process heard some");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_delays_calls_by_no_more_than_its_timeout() {
    let Some(cluster) = Cluster::start().await else { return };
    let client = cluster.gateway.client().await;
    let first = client.classify(fixtures::clip()).await.unwrap();
    until("the verdict is in redis", PATIENCE, async || {
        client.classify(fixtures::clip()).await.unwrap();
        (cluster.gateway.metric(HITS)? > 0.0).then_some(())
    })
    .await;
    cluster.redis.pause();
    // One look before the answer is computed; to keep it costs the caller nothing.
    let began = Instant::now();
    let without = timeout(PATIENCE, client.classify(fixtures::clip())).await.expect("no call hangs").unwrap();
    assert!(!without.cached);
    assert_same(&without, &first);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(cluster.gateway.readyz().unwrap(), 200, "a cache is no reason to take no traffic");

    cluster.redis.go_on();
    let again = until("an answer from the cache", PATIENCE, async || {
        Some(client.classify(fixtures::clip()).await.unwrap()).filter(|verdict| verdict.cached)
    })
    .await;
    assert_same(&again, &first);
}
