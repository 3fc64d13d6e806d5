//! Answers that are not computed twice.

use std::{sync::Arc, time::Duration};

use chorale_proto::v1::{ClassifyOptions, PcmFormat, SampleFormat, Verdict};
use chorale_runtime::failure::{Failure, Reason};
use tokio::task::JoinSet;

use crate::{
    cluster::Cluster,
    feature::{FakeFeature, Script, audio},
};

fn claiming(audio: &[u8]) -> ClassifyOptions {
    let digest = blake3::hash(audio).as_bytes().to_vec();
    ClassifyOptions { blake3_digest: digest.into(), ..ClassifyOptions::default() }
}

#[tokio::test]
async fn the_second_answer_is_the_first_but_for_cached() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let audio = audio(&[0, 2, 2]);
    let first = cluster.stream(ClassifyOptions::default(), &audio).await.unwrap();
    let second = cluster.stream(ClassifyOptions::default(), &audio).await.unwrap();
    assert!(!first.cached);
    assert_eq!(second, Verdict { cached: true, ..first.clone() });
    let third = cluster.classify(ClassifyOptions { top_k: 1, ..ClassifyOptions::default() }, &audio).await.unwrap();
    assert_eq!(third.scores, first.scores[..1], "top_k is no part of the key");
    assert_eq!(cluster.metric("chorale_gateway_cache_lookups_total{backend=\"memory\",result=\"hit\"}"), 2);

    let pcm = PcmFormat { sample_format: SampleFormat::S16le.into(), sample_rate: 8_000, channels: 1 };
    let as_pcm = ClassifyOptions { pcm: Some(pcm), ..ClassifyOptions::default() };
    assert!(!cluster.stream(as_pcm, &audio).await.unwrap().cached, "the pcm format is a part of the key");
    let bypass = ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() };
    assert!(!cluster.stream(bypass, &audio).await.unwrap().cached);
}

#[tokio::test]
async fn a_claimed_digest_saves_the_upload() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let audio = audio(&[1, 1]);
    let first = cluster.stream(claiming(&audio), &audio).await.unwrap();
    let mut call = cluster.open(claiming(&audio)).await;
    assert!(!call.accepted().await.audio_wanted);
    assert_eq!(call.verdict().await.unwrap(), Verdict { cached: true, ..first });
    assert_eq!(feature.opened(), 1);
}

#[tokio::test]
async fn a_false_claim_fails_and_is_not_kept() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let (real, other) = (audio(&[1, 1]), audio(&[2, 2]));
    for failure in [
        cluster.stream(claiming(&real), &other).await.unwrap_err(),
        cluster.classify(claiming(&real), &other).await.unwrap_err(),
    ] {
        assert_eq!(failure.reason, Reason::DigestMismatch);
    }
    assert_eq!(cluster.stream(claiming(&real), &real).await.unwrap().genre, "pop");
    assert!(!cluster.stream(claiming(&other), &other).await.unwrap().cached);
}

const CALLS: usize = 20;

/// Verdicts of equal calls that run at the same time: the feature service finishes none before all are there.
async fn at_once(cluster: &Arc<Cluster>, feature: &FakeFeature, open: u32, unary: bool, claim: bool) -> Vec<Verdict> {
    feature.hold(true);
    let audio = audio(&[0, 0, 1]);
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let (cluster, audio) = (Arc::clone(cluster), audio.clone());
        let options = if claim { claiming(&audio) } else { ClassifyOptions::default() };
        calls.spawn(async move {
            if unary { cluster.classify(options, &audio).await } else { cluster.stream(options, &audio).await }
        });
    }
    cluster.wait_metric("chorale_gateway_open_streams", CALLS as u64).await;
    feature.wait_open(open).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    feature.hold(false);
    calls.join_all().await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn equal_calls_with_a_known_digest_compute_once() {
    for (unary, claim) in [(false, true), (true, true), (true, false)] {
        let feature = FakeFeature::start();
        let cluster = Arc::new(Cluster::start(&[&feature], |_| {}).await);
        let verdicts = at_once(&cluster, &feature, 1, unary, claim).await;
        assert_eq!((feature.opened(), feature.completed()), (1, 1), "unary {unary}, claim {claim}");
        assert_eq!(verdicts.iter().filter(|verdict| verdict.cached).count(), CALLS - 1);
        let answers: Vec<_> = verdicts.iter().map(|verdict| Verdict { cached: false, ..verdict.clone() }).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(cluster.metric("chorale_gateway_flights_shared_total"), CALLS as u64 - 1);
    }
}

#[tokio::test]
async fn equal_uploads_without_a_claim_share_what_lands_first() {
    let feature = FakeFeature::start();
    let cluster = Arc::new(Cluster::start(&[&feature], |_| {}).await);
    // Nobody knows that they are equal until they are uploaded, so all of them are being heard then.
    let verdicts = at_once(&cluster, &feature, CALLS as u32, false, false).await;
    assert!(verdicts.iter().all(|verdict| verdict.genre == "jazz" && verdict.chunk_count == 3));
    assert!(verdicts.iter().any(|verdict| !verdict.cached));
    feature.wait_open(0).await;
}

#[tokio::test]
async fn an_upload_that_turns_out_to_be_known_does_not_wait_for_its_own_result() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let audio = audio(&[1]);
    cluster.stream(ClassifyOptions::default(), &audio).await.unwrap();
    feature.hold(true);
    assert!(cluster.stream(ClassifyOptions::default(), &audio).await.unwrap().cached);
    feature.wait_open(0).await;
}

#[tokio::test]
async fn followers_of_a_leader_that_fails_go_on() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let audio = audio(&[2]);
    let mut leader = cluster.open(claiming(&audio)).await;
    assert!(leader.accepted().await.audio_wanted);
    let mut follower = cluster.open(claiming(&audio)).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), follower.next()).await.is_err(), "held back");
    drop(leader);
    assert!(follower.accepted().await.audio_wanted);
    follower.send_audio(&audio).await;
    assert_eq!(follower.verdict().await.unwrap().genre, "rock");
}

#[tokio::test]
async fn nobody_waits_for_a_call_that_may_end_early() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let audio = audio(&[2]);
    let mut early = cluster.open(ClassifyOptions { early_error_rate: 0.1, ..claiming(&audio) }).await;
    assert!(early.accepted().await.audio_wanted);
    let mut equal = cluster.open(claiming(&audio)).await;
    assert!(equal.accepted().await.audio_wanted, "not held back");
    for mut call in [equal, early] {
        call.send_audio(&audio).await;
        assert_eq!(call.verdict().await.unwrap().genre, "rock");
    }
}

#[tokio::test]
async fn followers_wait_for_a_slow_leader_only_so_long() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |config| config.cache.shared_wait = Duration::from_millis(100)).await;
    let audio = audio(&[2]);
    let mut leader = cluster.open(claiming(&audio)).await;
    leader.accepted().await;
    assert!(!cluster.stream(claiming(&audio), &audio).await.unwrap().cached);
    assert!(cluster.stream(claiming(&audio), &audio).await.unwrap().cached);
}

#[tokio::test]
async fn verdicts_of_mixed_models_and_failures_are_not_kept() {
    let versions = vec!["v1".to_owned(), "v2".to_owned()];
    let feature = FakeFeature::start_with(Script { versions, ..Script::default() });
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let audio = audio(&[0, 0, 0]);
    let mixed = cluster.stream(ClassifyOptions::default(), &audio).await.unwrap();
    assert_eq!(mixed.model_version, "v2");
    let broken = Failure::new(Reason::AudioUnreadable, "damaged beyond use");
    feature.set(Script { fail_after: Some((1, broken.clone())), ..Script::default() });
    assert_eq!(cluster.stream(ClassifyOptions::default(), &audio).await.unwrap_err(), broken);
    feature.set(Script::default());
    assert!(!cluster.stream(ClassifyOptions::default(), &audio).await.unwrap().cached);
    assert!(cluster.stream(ClassifyOptions::default(), &audio).await.unwrap().cached);
}
