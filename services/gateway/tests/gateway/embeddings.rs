//! What was heard on average, for those who want it.

use std::time::Duration;

use chorale_model::embedding::MAX_EMBEDDING;
use chorale_proto::v1::{
    ClassifyOptions, DeadlinePolicy, EventKind, Verdict, classify_stream_request::Payload,
    classify_stream_response::Event,
};
use chorale_runtime::failure::{Failure, Reason};

use crate::{
    cluster::Cluster,
    feature::{FakeFeature, SILENT, Script, audio},
};

const NONE: [f32; 0] = [];

fn wanting() -> ClassifyOptions {
    ClassifyOptions { want_embedding: true, ..ClassifyOptions::default() }
}

fn claiming(audio: &[u8], options: ClassifyOptions) -> ClassifyOptions {
    ClassifyOptions { blake3_digest: blake3::hash(audio).as_bytes().to_vec().into(), ..options }
}

/// Fails the test unless the embedding is `direction`, made as long as 1.
fn assert_points(verdict: &Verdict, direction: [f32; 3]) {
    let length = direction.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert_eq!(verdict.embedding.len(), direction.len(), "{:?}", verdict.embedding);
    for (found, expected) in verdict.embedding.iter().zip(direction) {
        assert!((found - expected / length).abs() < 1e-6, "{:?} instead of {direction:?}", verdict.embedding);
    }
}

#[tokio::test]
async fn the_embedding_is_the_mean_over_voting_chunks_if_it_is_wanted() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let track = audio(&[0, 0, SILENT, 2]);
    for unary in [true, false] {
        let anew = |options| ClassifyOptions { bypass_cache: true, ..options };
        let ask = async |options: ClassifyOptions| {
            let verdict =
                if unary { cluster.classify(options, &track).await } else { cluster.stream(options, &track).await };
            verdict.unwrap()
        };
        assert_points(&ask(anew(wanting())).await, [2.0, 0.0, 1.0]);
        assert_eq!(ask(anew(ClassifyOptions::default())).await.embedding, NONE);
    }
    let silence = cluster.stream(wanting(), &audio(&[SILENT])).await.unwrap();
    assert_eq!((silence.genre.as_str(), silence.embedding.as_slice()), ("unknown", &NONE[..]));
    assert!(cluster.stream(wanting(), &audio(&[SILENT])).await.unwrap().cached, "there is none to wait for");
}

#[tokio::test]
async fn a_verdict_that_is_known_has_an_embedding_for_those_who_want_one_alone() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let plain = ClassifyOptions::default;
    let ask = async |options, winners: &[u8]| {
        let track = audio(winners);
        cluster.stream(claiming(&track, options), &track).await.unwrap()
    };

    let first = ask(plain(), &[1, 2]).await;
    let computed = ask(wanting(), &[1, 2]).await;
    assert!(!computed.cached, "what is known has no embedding");
    assert_points(&computed, [0.0, 1.0, 1.0]);
    assert_eq!(ask(wanting(), &[1, 2]).await, Verdict { cached: true, ..computed });
    let again = ask(plain(), &[1, 2]).await;
    assert_eq!((again.cached, again.embedding.as_slice(), again.scores), (true, &NONE[..], first.scores));

    let with = ask(wanting(), &[2, 2]).await;
    let without = ask(plain(), &[2, 2]).await;
    assert_eq!(without, Verdict { cached: true, embedding: Vec::new(), ..with }, "one verdict serves both");
    assert_eq!(feature.opened(), 3);
}

#[tokio::test]
async fn nobody_waits_for_an_equal_call_that_has_no_embedding() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let track = audio(&[0, 1]);
    let mut plain = cluster.open(claiming(&track, ClassifyOptions::default())).await;
    assert!(plain.accepted().await.audio_wanted);
    let mut leader = cluster.open(claiming(&track, wanting())).await;
    assert!(leader.accepted().await.audio_wanted, "not held back");
    let mut follower = cluster.open(claiming(&track, wanting())).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), follower.next()).await.is_err(), "held back");
    leader.send_audio(&track).await;
    assert_points(&leader.verdict().await.unwrap(), [1.0, 1.0, 0.0]);
    assert!(!follower.accepted().await.audio_wanted);
    let shared = follower.verdict().await.unwrap();
    assert!(shared.cached);
    assert_points(&shared, [1.0, 1.0, 0.0]);
}

#[tokio::test]
async fn a_verdict_over_a_part_has_the_embedding_of_that_part() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let early = ClassifyOptions { early_error_rate: 0.05, ..wanting() };
    let mut call = cluster.open(early).await;
    call.accepted().await;
    call.send_audio(&audio(&[2; 60])).await;
    let Some(Event::Verdict(verdict)) = call.next().await.unwrap() else { panic!("expected a verdict") };
    assert!(verdict.early);
    assert_points(&verdict, [0.0, 0.0, 1.0]);

    let partial = ClassifyOptions { deadline_policy: DeadlinePolicy::Partial.into(), ..wanting() };
    let mut call = cluster.open_within(partial, Some(Duration::from_millis(500))).await;
    call.accepted().await;
    call.send(Payload::Audio(audio(&[1, 1, 0]).into())).await;
    let Some(Event::Verdict(verdict)) = call.next().await.unwrap() else { panic!("expected a verdict") };
    assert_points(&verdict, [1.0, 2.0, 0.0]);
}

#[tokio::test]
async fn a_chunk_that_is_heard_again_by_another_replica_counts_once() {
    let (mut first, second) = (FakeFeature::start(), FakeFeature::start());
    let cluster = Cluster::start(&[&first, &second], |_| {}).await;
    // Which replica is taken is left to chance.
    second.set(Script { refuse: Some(Failure::new(Reason::Draining, "not yet")), ..Script::default() });
    let options = ClassifyOptions { events: vec![EventKind::ChunkVote.into()], ..wanting() };
    let mut call = cluster.open(options).await;
    call.accepted().await;
    call.send_audio(&audio(&[0, 0, 2])).await;
    for _ in 0..3 {
        assert!(matches!(call.next().await.unwrap(), Some(Event::ChunkVote(_))));
    }
    second.set(Script::default());
    first.kill();
    call.send_audio(&audio(&[1])).await;
    assert_points(&call.verdict().await.unwrap(), [2.0, 1.0, 1.0]);
    assert_eq!(cluster.metric("chorale_gateway_replays_total"), 1);
}

#[tokio::test]
async fn replicas_that_know_no_embeddings_give_verdicts_without_that_are_not_kept_as_such() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    for (winners, embeddings) in [([0, 1], vec![Vec::new()]), ([0, 2], vec![vec![1.0], Vec::new()])] {
        feature.set(Script { embeddings, ..Script::default() });
        let track = audio(&winners);
        let without = cluster.stream(wanting(), &track).await.unwrap();
        assert_eq!(without.embedding, NONE);
        let known = cluster.stream(ClassifyOptions::default(), &track).await.unwrap();
        assert!(known.cached, "nothing is missing for who wants none");
        feature.set(Script::default());
        let with = cluster.stream(wanting(), &track).await.unwrap();
        assert!(!with.cached && !with.embedding.is_empty());
    }
    let versions = vec!["v1".to_owned(), "v2".to_owned()];
    feature.set(Script { versions, ..Script::default() });
    let mixed = cluster.stream(wanting(), &audio(&[1, 1])).await.unwrap();
    assert_eq!(mixed.embedding, NONE, "two models have nothing in common");
}

#[tokio::test]
async fn an_embedding_that_is_none_is_a_bug_of_the_feature_service() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let wrong = [
        vec![vec![f32::NAN, 0.0]],
        vec![vec![1.0], vec![f32::NEG_INFINITY]],
        vec![vec![1.0, 2.0], vec![1.0]],
        vec![vec![0.5; MAX_EMBEDDING + 1]],
    ];
    for embeddings in wrong {
        feature.set(Script { embeddings, ..Script::default() });
        let failure = cluster.stream(wanting(), &audio(&[1, 1])).await.unwrap_err();
        assert_eq!(failure.reason, Reason::Internal, "{failure}");
        assert!(failure.message.contains("embedding"), "{failure}");
        cluster.stream(ClassifyOptions::default(), &audio(&[1, 1])).await.unwrap();
    }
}
