//! Several versions of the model at a time.

use std::{collections::BTreeMap, time::Duration};

use chorale_proto::v1::{ClassifyOptions, EventKind, GetModelRequest, classify_stream_response::Event};
use chorale_runtime::failure::{Failure, Reason};

use crate::{
    cluster::Cluster,
    feature::{FakeFeature, Script, audio},
};

fn serving(served: &[(&str, u32)]) -> Script {
    let served = served.iter().map(|&(version, weight)| (version.to_owned(), weight)).collect();
    Script { served, strict: true, ..Script::default() }
}

fn pinned(version: &str) -> ClassifyOptions {
    ClassifyOptions { model_version: version.to_owned(), ..ClassifyOptions::default() }
}

fn claiming(audio: &[u8]) -> ClassifyOptions {
    let digest = blake3::hash(audio).as_bytes().to_vec();
    ClassifyOptions { blake3_digest: digest.into(), ..ClassifyOptions::default() }
}

/// Waits until the gateway serves `versions`, the heaviest first.
async fn learnt(cluster: &Cluster, versions: &[&str]) {
    for _ in 0..500 {
        let answer = cluster.client.clone().get_model(GetModelRequest {}).await.unwrap().into_inner();
        let served: Vec<_> = answer.models.into_iter().map(|served| served.model.unwrap().version).collect();
        if served == versions {
            assert_eq!(answer.model.unwrap().version, versions[0]);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the gateway does not learn of {versions:?}");
}

#[tokio::test]
async fn digests_are_shared_by_weight_and_each_always_gets_the_same_version() {
    let feature = FakeFeature::start_with(serving(&[("v1", 1), ("v2", 1)]));
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let mut counts = BTreeMap::new();
    for index in 0..60 {
        let audio = audio(&[1, 2, index]);
        let unary = cluster.classify(ClassifyOptions::default(), &audio).await.unwrap();
        let streamed =
            cluster.stream(ClassifyOptions { bypass_cache: true, ..claiming(&audio) }, &audio).await.unwrap();
        assert_eq!(streamed.model_version, unary.model_version, "sticky, whichever way it comes");
        *counts.entry(unary.model_version).or_insert(0) += 1;
    }
    // Less than one in a million that a fair coin is further off.
    assert!(counts["v1"] >= 11 && counts["v2"] >= 11, "{counts:?}");
    let counted: u64 = ["v1", "v2"]
        .iter()
        .map(|version| cluster.metric(&format!("chorale_gateway_model_verdicts_total{{version=\"{version}\"}}")))
        .sum();
    assert_eq!(counted, 120);
}

#[tokio::test]
async fn a_stream_without_a_digest_gets_the_heaviest_version() {
    let feature = FakeFeature::start_with(serving(&[("v1", 40), ("v2", 60)]));
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    for index in 0..20 {
        let verdict = cluster.stream(ClassifyOptions::default(), &audio(&[1, index])).await.unwrap();
        assert_eq!(verdict.model_version, "v2");
    }
}

#[tokio::test]
async fn a_verdict_of_one_version_is_no_answer_for_another() {
    let feature = FakeFeature::start_with(serving(&[("v1", 1), ("v2", 0)]));
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let audio = audio(&[1, 2, 2]);
    for (version, cached) in [("v1", false), ("v2", false), ("v1", true), ("v2", true)] {
        for options in [pinned(version), ClassifyOptions { model_version: version.to_owned(), ..claiming(&audio) }] {
            let verdict = cluster.classify(options, &audio).await.unwrap();
            assert_eq!(verdict.model_version, version);
            assert!(verdict.cached || !cached);
        }
    }
    assert_eq!(feature.completed(), 2, "each version has heard it once");
    assert!(cluster.classify(ClassifyOptions::default(), &audio).await.unwrap().cached);

    let failure = cluster.classify(pinned("v3"), &audio).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ModelUnknown);
    assert!(failure.message.contains("v1") && failure.message.contains("v2"), "{failure}");
}

#[tokio::test]
async fn a_track_whose_version_is_gone_is_begun_again_with_the_next_unless_somebody_was_told() {
    let feature = FakeFeature::start_with(serving(&[("v1", 1)]));
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    // No inference replica has the version any more when a call comes to this chunk.
    let begin = async |gone_at: u32, options: ClassifyOptions| {
        let gone = Failure::new(Reason::DependencyUnavailable, "no inference replica has v1");
        feature.set(Script { fail_after: Some((gone_at, gone)), ..serving(&[("v1", 1)]) });
        let mut call = cluster.open(ClassifyOptions { bypass_cache: true, ..options }).await;
        assert_eq!(call.accepted().await.model_version, "v1");
        call
    };
    let votes = ClassifyOptions { events: vec![EventKind::ChunkVote.into()], ..ClassifyOptions::default() };
    let mut untold = begin(1, ClassifyOptions::default()).await;
    let mut fixed = begin(1, pinned("v1")).await;
    let mut told = begin(1, votes).await;
    feature.set(serving(&[("v2", 1)]));
    learnt(&cluster, &["v2"]).await;

    untold.send_audio(&audio(&[1, 2])).await;
    let verdict = untold.verdict().await.unwrap();
    assert_eq!((verdict.model_version.as_str(), verdict.chunk_count), ("v2", 2));
    for call in [&mut fixed, &mut told] {
        call.send_audio(&audio(&[1, 2])).await;
        let failure = loop {
            match call.next().await {
                Ok(Some(Event::ChunkVote(vote))) => assert_eq!(vote.index, 0),
                Ok(other) => panic!("expected a failure, found {other:?}"),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.reason, Reason::DependencyUnavailable, "{failure}");
        assert!(failure.retry_after.is_some());
    }
}
