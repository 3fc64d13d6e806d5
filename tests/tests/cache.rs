//! What was answered once is answered again from the cache, and the cache may go away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use chorale_proto::v1::{ClassifyOptions, Verdict};
use chorale_tests::{Cluster, Server, command, fixtures, until, verdict::assert_same};

const PATIENCE: Duration = Duration::from_secs(30);
const CHUNKS: &str = "chorale_feature_chunks_total";

fn without_cached(verdict: &Verdict) -> Verdict {
    Verdict { cached: false, ..verdict.clone() }
}

fn digest_of(audio: &[u8]) -> ClassifyOptions {
    let digest = blake3::hash(audio).as_bytes().to_vec();
    ClassifyOptions { blake3_digest: digest.into(), ..ClassifyOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_call_is_answered_from_memory_and_is_otherwise_identical() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let first = client.classify(fixtures::clip()).await.unwrap();
    assert!(!first.cached);
    assert_eq!(first.blake3_digest, blake3::hash(&fixtures::clip()).as_bytes().as_slice());

    let second = client.classify(fixtures::clip()).await.unwrap();
    assert!(second.cached);
    assert_eq!(without_cached(&second), first);
    assert_eq!(client.classify(fixtures::clip()).await.unwrap(), second, "and so is a third");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_digest_is_answered_without_an_upload() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let first = client.classify(fixtures::clip()).await.unwrap();
    let chunks = server.metric(CHUNKS);

    let mut upload = client.upload(digest_of(&fixtures::clip())).await.unwrap();
    let accepted = upload.accepted().await.unwrap();
    assert!(!accepted.audio_wanted);
    let second = upload.verdict().await.unwrap();
    assert!(second.cached);
    assert_eq!(without_cached(&second), first);
    assert_eq!(server.metric(CHUNKS), chunks, "nothing was computed");

    let mut upload = client.upload(digest_of(b"never heard")).await.unwrap();
    assert!(upload.accepted().await.unwrap().audio_wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_tracks_at_the_same_time_are_computed_once() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let calls = (0..8).map(|_| client.classify_with(fixtures::clip(), digest_of(&fixtures::clip())));
    let verdicts: Vec<Verdict> = futures::future::try_join_all(calls).await.unwrap();
    assert_eq!(verdicts.iter().filter(|verdict| !verdict.cached).count(), 1, "one was computed, the others shared it");
    let computed = verdicts.iter().find(|verdict| !verdict.cached).unwrap();
    for verdict in &verdicts {
        assert_eq!(without_cached(verdict), *computed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_change_the_answer_do_not_share_an_entry() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let all = client.classify(fixtures::clip()).await.unwrap();
    let top = |top_k| ClassifyOptions { top_k, ..ClassifyOptions::default() };
    let one = client.classify_with(fixtures::clip(), top(1)).await.unwrap();
    assert_eq!(one.scores, all.scores[..1]);
    assert_eq!(client.classify_with(fixtures::clip(), top(0)).await.unwrap().scores, all.scores);

    let bypass = ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() };
    let anew = client.classify_with(fixtures::clip(), bypass).await.unwrap();
    assert!(!anew.cached);
    assert_same(&anew, &all);
}

#[test]
fn the_tool_says_that_an_answer_was_known() {
    let clip = fixtures::formats().remove(0);
    let twice = command::run([
        "classify".as_ref(),
        "--json".as_ref(),
        "--jobs".as_ref(),
        "1".as_ref(),
        clip.as_os_str(),
        clip.as_os_str(),
    ]);
    let answers = twice.expect_code(0).answers();
    assert_eq!(answers.iter().map(|answer| answer.cached).collect::<Vec<_>>(), [false, true]);
    assert_eq!(answers[0].probabilities, answers[1].probabilities);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_answers_across_a_restart_of_the_gateway() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let first = cluster.gateway.client().await.classify(fixtures::clip()).await.unwrap();
    assert!(!first.cached);
    let second = cluster.gateway.client().await.classify(fixtures::clip()).await.unwrap();
    assert!(second.cached);

    cluster.gateway.terminate();
    assert!(cluster.gateway.ended().await.success());
    cluster.gateway = Cluster::start_gateway(&cluster.feature, &cluster.redis).await;
    let after = cluster.gateway.client().await.classify(fixtures::clip()).await.unwrap();
    assert_eq!(after, second);
    let mut upload = cluster.gateway.client().await.upload(digest_of(&fixtures::clip())).await.unwrap();
    assert!(!upload.accepted().await.unwrap().audio_wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_serves_without_its_redis_and_uses_it_again_when_it_is_back() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let client = cluster.gateway.client().await;
    let first = client.classify(fixtures::clip()).await.unwrap();

    cluster.redis.kill();
    let without = tokio::time::timeout(PATIENCE, client.classify(fixtures::clip())).await.unwrap().unwrap();
    assert!(!without.cached);
    assert_same(&without, &first);
    assert_eq!(cluster.gateway.readyz().unwrap(), 200, "a cache is no reason to take no traffic");

    cluster.redis.restart().await;
    let again = until("an answer from the cache", PATIENCE, async || {
        Some(client.classify(fixtures::clip()).await.unwrap()).filter(|verdict| verdict.cached)
    })
    .await;
    assert_same(&again, &first);
}
