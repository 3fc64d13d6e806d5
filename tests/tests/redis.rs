//! A Redis that is slow, full, or no longer the primary costs answers from the cache, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use chorale_proto::v1::Verdict;
use chorale_tests::{Client, Proxy, Redis, Server, note, sound, until, verdict::assert_coherent};

const PATIENCE: Duration = Duration::from_secs(30);
const BREAKER_OPEN: &str = "chorale_gateway_cache_breaker_open";
const FAILED_WRITES: &str = "chorale_gateway_cache_failed_writes_total";

fn address(redis: &Redis) -> String {
    format!("127.0.0.1:{}", redis.port())
}

async fn server_with(to_redis: &Proxy) -> Server {
    let url = to_redis.endpoint().replace("http", "redis");
    Server::start("up", &["--cache-url", &url]).await
}

/// Classifies a track of its own for each `seed`.
async fn classify(client: &Client, seed: u64) -> Verdict {
    let verdict = client.classify(sound::wav(&sound::chord(4.0, seed))).await.expect("a cache fails no call");
    assert_coherent(&verdict);
    verdict
}

/// Classifies it until the answer comes from the cache.
async fn until_cached(client: &Client, seed: u64) {
    until("an answer from the cache", PATIENCE, async || classify(client, seed).await.cached.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_redis_is_waited_for_a_little_and_then_not_asked() {
    let Some(redis) = Redis::start().await else { return };
    let to_redis = Proxy::to(&address(&redis)).await;
    let server = server_with(&to_redis).await;
    let client = server.client().await;
    until_cached(&client, 1).await;

    // Within the 50 ms that a call waits.
    to_redis.delay(Duration::from_millis(10));
    until_cached(&client, 1).await;

    to_redis.delay(Duration::from_millis(500));
    // Tracks that are new: an equal one that has just been answered is shared, without Redis.
    let mut seeds = 2..;
    until("the breaker opens", PATIENCE, async || {
        classify(&client, seeds.next()?).await;
        (server.metric(BREAKER_OPEN)? == 1.0).then_some(())
    })
    .await;
    // It is asked once a second now.
    let began = Instant::now();
    let waited =
        |server: &Server| server.metric(r#"chorale_gateway_cache_lookups_total{backend="redis",result="timeout"}"#);
    let (before, mut calls) = (waited(&server).unwrap_or_default(), 0);
    while began.elapsed() < Duration::from_secs(2) {
        classify(&client, seeds.next().unwrap()).await;
        calls += 1;
    }
    let waits = waited(&server).unwrap_or_default() - before;
    note(format_args!("{waits} of {calls} calls in two seconds waited for a slow Redis"));
    assert!(waits <= began.elapsed().as_secs_f64() + 1.0, "{waits} of {calls}");

    to_redis.delay(Duration::ZERO);
    until_cached(&client, 1).await;
    assert_eq!(server.metric(BREAKER_OPEN), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_answers_what_it_has() {
    let Some(redis) = Redis::start_with(&["--maxmemory-policy", "noeviction"]).await else { return };
    let to_redis = Proxy::to(&address(&redis)).await;
    let server = server_with(&to_redis).await;
    let client = server.client().await;
    until_cached(&client, 1).await;

    redis.command("CONFIG SET maxmemory 1").unwrap();
    assert!(!classify(&client, 2).await.cached);
    until("a write fails", PATIENCE, async || (server.metric(FAILED_WRITES)? > 0.0).then_some(())).await;
    assert!(!classify(&client, 2).await.cached, "there was no room for it");
    assert!(classify(&client, 1).await.cached, "what is there is found");
    assert_eq!(server.metric(BREAKER_OPEN), Some(0.0));

    redis.command("CONFIG SET maxmemory 0").unwrap();
    until_cached(&client, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_new_primary_is_found() {
    let (Some(old), Some(new)) = (Redis::start().await, Redis::start().await) else { return };
    new.command(&format!("REPLICAOF 127.0.0.1 {}", old.port())).unwrap();
    let to_primary = Proxy::to(&address(&old)).await;
    let server = server_with(&to_primary).await;
    let client = server.client().await;
    until_cached(&client, 1).await;

    // The gateway's connection stays with the old one, which takes no writes any more.
    new.command("REPLICAOF NO ONE").unwrap();
    old.command(&format!("REPLICAOF 127.0.0.1 {}", new.port())).unwrap();
    to_primary.lead_to(&address(&new));
    until_cached(&client, 2).await;
    until_cached(&client, 1).await;
}
