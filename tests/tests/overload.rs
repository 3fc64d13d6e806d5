//! Five times as many tracks as can be taken: most are told to come back, the others have their verdicts, and memory stays
//! where it was promised to stay.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use bytes::Bytes;
use chorale_proto::{
    service_names::{CLASSIFIER, FEATURE, INFERENCE},
    v1::ClassifyOptions,
};
use chorale_tests::{Client, MIB, Server, client::reason, fixtures, note, until, verdict::assert_coherent};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// No call takes longer, whatever its answer.
const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 8;
const OVERLOAD: f64 = 5.0;
/// What `deploy/RELIABILITY.md` promises: so much for a process, and so much for each call that it has open.
const BASE: u64 = 64 * MIB;
const EACH: u64 = MIB;

fn anew() -> ClassifyOptions {
    ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() }
}

/// A refusal that tells a caller what to do.
fn assert_helpful(refusal: &Status) {
    assert_eq!((refusal.code(), reason(refusal).as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{refusal}");
    let delay = refusal.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| !delay.is_zero()), "{refusal:?}");
}

/// Whether the track had its verdict; else it was refused, and told when to come back.
async fn is_answered(client: Client, track: Bytes) -> bool {
    match timeout(PATIENCE, client.classify_with(track, anew())).await.expect("nobody waits for ever") {
        Ok(verdict) => {
            assert_coherent(&verdict);
            true
        }
        Err(refusal) => {
            assert_helpful(&refusal);
            false
        }
    }
}

/// Tracks a second, with callers who wait for their verdicts.
async fn capacity(clients: &[Client], track: &Bytes, duration: Duration) -> f64 {
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for client in clients {
        let (client, track) = (client.clone(), track.clone());
        callers.spawn(async move {
            let mut answered = 0;
            while began.elapsed() < duration {
                answered += usize::from(is_answered(client.clone(), track.clone()).await);
            }
            answered
        });
    }
    callers.join_all().await.into_iter().sum::<usize>() as f64 / began.elapsed().as_secs_f64()
}

/// Offers `a_second` tracks a second, whatever becomes of them. Returns how many were answered and refused, and the most that
/// were open at a time.
async fn offer(clients: &[Client], track: &Bytes, a_second: f64, duration: Duration) -> (usize, usize, usize) {
    let began = Instant::now();
    let (mut calls, mut outcomes, mut most) = (JoinSet::new(), Vec::new(), 0);
    for number in 0..(a_second * duration.as_secs_f64()) as usize {
        sleep_until(began + Duration::from_secs_f64(number as f64 / a_second)).await;
        calls.spawn(is_answered(clients[number % clients.len()].clone(), track.clone()));
        most = most.max(calls.len());
        while let Some(outcome) = calls.try_join_next() {
            outcomes.push(outcome.unwrap());
        }
    }
    outcomes.extend(calls.join_all().await);
    let answered = outcomes.iter().filter(|answered| **answered).count();
    (answered, outcomes.len() - answered, most)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_times_too_much_is_refused_in_time_and_the_rest_is_answered() {
    let inference = Server::start("inference", &[]).await;
    inference.serving(INFERENCE).await;
    let feature = Server::start("feature", &["--inference", inference.endpoint()]).await;
    feature.serving(FEATURE).await;
    let gateway = Server::start("gateway", &["--feature", feature.endpoint()]).await;
    gateway.serving(CLASSIFIER).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(gateway.client().await);
    }
    let track = fixtures::clip();

    let capacity = capacity(&clients, &track, Duration::from_secs(5)).await;
    let duration = Duration::from_secs(20);
    let (answered, refused, most) = offer(&clients, &track, OVERLOAD * capacity, duration).await;
    note(format_args!(
        "{answered} of {} tracks answered, {:.0} % of the {capacity:.0} a second of before; at most {most} were open",
        answered + refused,
        100.0 * answered as f64 / (capacity * duration.as_secs_f64()),
    ));
    assert!(refused > answered, "{refused} refused, {answered} answered");
    // The figure itself is in the benchmarks: here it is that work goes on.
    assert!(answered as f64 > 0.5 * capacity * duration.as_secs_f64(), "{answered} of {capacity:.1} a second");

    for (role, server) in [("gateway", &gateway), ("feature", &feature), ("inference", &inference)] {
        let (peak, ceiling) = (server.memory().peak, BASE + EACH * most as u64);
        note(format_args!("{role} took {} MiB at most, of {} MiB", peak / MIB, ceiling / MIB));
        assert!(peak < ceiling, "{role}: {peak} bytes");
    }

    for metric in ["chorale_gateway_open_streams", "chorale_feature_open_streams"] {
        let server = if metric.contains("gateway") { &gateway } else { &feature };
        until("nothing is left", PATIENCE, async || (server.metric(metric)? == 0.0).then_some(())).await;
    }
    for client in &clients {
        assert!(is_answered(client.clone(), track.clone()).await, "right after, nobody is refused");
    }
}
