//! Networks between roles that lose everything, and heal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use chorale_proto::{service_names::CLASSIFIER, v1::ClassifyOptions};
use chorale_tests::{
    Proxy, Redis, Server, fixtures, note, sound, until,
    verdict::{assert_coherent, assert_same},
};
use tokio::time::timeout;

/// The keep-alive of a connection finds out after 15 s that nobody answers.
const PATIENCE: Duration = Duration::from_secs(60);

fn anew() -> ClassifyOptions {
    ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() }
}

/// Two servers of a role behind networks of their own, and their endpoints as a list.
async fn pair(role: &str, arguments: &[&str]) -> ([Server; 2], [Proxy; 2], String) {
    let servers = [Server::start(role, arguments).await, Server::start(role, arguments).await];
    let proxies = [Proxy::to(servers[0].address()).await, Proxy::to(servers[1].address()).await];
    let endpoints = proxies.each_ref().map(Proxy::endpoint).join(",");
    (servers, proxies, endpoints)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_between_two_roles_costs_no_verdict_and_heals() {
    let (_inference, to_inference, inference) = pair("inference", &[]).await;
    let (_feature, to_feature, feature) = pair("feature", &["--inference", &inference]).await;
    let gateway = Server::start("gateway", &["--feature", &feature]).await;
    gateway.serving(CLASSIFIER).await;
    let client = gateway.client().await;
    let track = sound::wav(&sound::chord(9.0, 1));
    let before = client.classify_with(track.clone(), anew()).await.unwrap();

    for (hop, proxies) in [("feature and inference", &to_inference), ("gateway and feature", &to_feature)] {
        // Half of each of these is there when the network goes.
        let mut halves = Vec::new();
        for _ in 0..6 {
            let mut upload = client.upload(anew()).await.unwrap();
            upload.accepted().await.unwrap();
            upload.send(track.slice(..track.len() / 2)).await;
            halves.push(upload);
        }
        let cut = Instant::now();
        proxies[0].cut();
        let halves = halves.into_iter().map(|mut upload| {
            let rest = track.slice(track.len() / 2..);
            tokio::spawn(async move {
                upload.send(rest).await;
                upload.verdict().await
            })
        });
        for half in halves.collect::<Vec<_>>() {
            let verdict = timeout(PATIENCE, half).await.expect("no call hangs").unwrap().unwrap();
            assert_same(&verdict, &before);
        }
        note(format_args!(
            "{hop}: tracks under way had their verdicts {:.1} s after the cut",
            cut.elapsed().as_secs_f64()
        ));
        for _ in 0..10 {
            let verdict = timeout(PATIENCE, client.classify_with(track.clone(), anew())).await.expect("no call hangs");
            assert_coherent(&verdict.unwrap());
        }
        // The other one alone is enough again once this network has healed.
        proxies[0].heal();
        proxies[1].cut();
        until(&format!("{hop}: the first one serves again"), PATIENCE, async || {
            timeout(PATIENCE, client.classify_with(track.clone(), anew())).await.expect("no call hangs").ok()
        })
        .await;
        proxies[1].heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_before_redis_delays_and_heals() {
    let Some(redis) = Redis::start().await else { return };
    let to_redis = Proxy::to(&format!("127.0.0.1:{}", redis.port())).await;
    let url = to_redis.endpoint().replace("http", "redis");
    let server = Server::start("up", &["--cache-url", &url]).await;
    let client = server.client().await;
    let hits =
        async || server.metrics().lines().find(|line| line.contains("redis\",result=\"hit\"")).map(str::to_owned);
    client.classify(fixtures::clip()).await.unwrap();
    to_redis.cut();
    for _ in 0..5 {
        assert_coherent(&timeout(PATIENCE, client.classify(fixtures::clip())).await.expect("no call hangs").unwrap());
    }
    let before = hits().await;
    to_redis.heal();
    until("Redis is used again", PATIENCE, async || {
        client.classify(fixtures::clip()).await.unwrap();
        (hits().await != before).then_some(())
    })
    .await;
}
