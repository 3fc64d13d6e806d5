//! Chunks find a replica that answers.

use std::time::Duration;

use bytes::Bytes;
use chorale_feature::{ChunkOptions, DispatchConfig, Dispatcher, FeatureMetrics};
use chorale_model::contract::CHUNK_CELLS;
use chorale_proto::v1::Priority;
use chorale_runtime::{connector::Connector, failure::Reason, metrics::Metrics, replicas::Replicas};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::Instant;

use crate::fake::{Action, FakeInference, fingerprint};

fn config() -> DispatchConfig {
    DispatchConfig {
        connect_patience: Duration::from_secs(1),
        overload_patience: Duration::from_millis(500),
        ..DispatchConfig::default()
    }
}

async fn dispatcher(fakes: &[&FakeInference]) -> (Dispatcher, Metrics) {
    let replicas = Replicas::discover(fakes.iter().map(|fake| fake.target()).collect(), Connector::default());
    replicas.found().await;
    let metrics = Metrics::new();
    (Dispatcher::new(replicas, config(), FeatureMetrics::register(&metrics)), metrics)
}

fn chunk(number: usize) -> Bytes {
    (0..CHUNK_CELLS).map(|cell| ((cell * 7 + number * 13) % 256) as u8).collect()
}

/// Classifies `count` chunks at the same time; each must get its own answer.
async fn classify_all(dispatcher: &Dispatcher, count: usize) {
    let mut answers: FuturesUnordered<_> = (0..count)
        .map(|number| async move { (number, dispatcher.classify(chunk(number), &ChunkOptions::default()).await) })
        .collect();
    let mut answered = 0;
    while let Some((number, prediction)) = answers.next().await {
        assert_eq!(prediction.unwrap().probabilities, [fingerprint(&chunk(number))], "chunk {number}");
        answered += 1;
    }
    assert_eq!(answered, count);
}

#[tokio::test]
async fn all_chunks_share_one_stream_a_replica_and_are_spread_evenly() {
    let fakes = [(); 2].map(|()| FakeInference::start(|nth| Action::AnswerAfter(Duration::from_millis(nth % 7))));
    let (dispatcher, _) = dispatcher(&[&fakes[0], &fakes[1]]).await;
    classify_all(&dispatcher, 200).await;
    for fake in &fakes {
        assert_eq!(fake.streams(), 1);
        assert!((80..=120).contains(&fake.asked()), "{} of 200", fake.asked());
    }
}

#[tokio::test]
async fn a_chunk_travels_with_its_priority() {
    let fake = FakeInference::obliging();
    let (dispatcher, _) = dispatcher(&[&fake]).await;
    for priority in [Priority::Bulk, Priority::Interactive, Priority::Unspecified] {
        dispatcher.classify(chunk(0), &ChunkOptions { priority, ..ChunkOptions::default() }).await.unwrap();
    }
    assert_eq!((fake.asked(), fake.bulk()), (3, 1));
}

#[tokio::test]
async fn chunks_on_a_replica_that_dies_go_to_another_one() {
    let dying = FakeInference::start(|nth| if nth < 20 { Action::Ignore } else { Action::Die });
    let living = FakeInference::start(|_| Action::AnswerAfter(Duration::from_millis(2)));
    let (dispatcher, metrics) = dispatcher(&[&dying, &living]).await;
    classify_all(&dispatcher, 100).await;
    assert_eq!(living.answered(), 100);
    assert!(metrics.encode().contains("chorale_feature_dispatch_retries_total{reason=\"lost\"}"));
}

#[tokio::test]
async fn a_draining_replica_answers_what_it_accepted_and_no_more() {
    let draining =
        FakeInference::start(
            |nth| {
                if nth < 10 { Action::AnswerAfter(Duration::from_millis(20)) } else { Action::Drain }
            },
        );
    let other = FakeInference::obliging();
    let (dispatcher, _) = dispatcher(&[&draining, &other]).await;
    classify_all(&dispatcher, 100).await;
    assert_eq!(draining.answered(), 10);
    assert_eq!(other.answered(), 90);
}

#[tokio::test]
async fn a_replica_that_comes_back_is_used_again() {
    let fake = FakeInference::start(|nth| if nth == 0 { Action::Drain } else { Action::Answer });
    let (dispatcher, _) = dispatcher(&[&fake]).await;
    let failure = dispatcher.classify(chunk(0), &ChunkOptions::default()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DependencyUnavailable, "{failure}");
    fake.recover();
    classify_all(&dispatcher, 10).await;
    assert_eq!(fake.streams(), 2);
}

#[tokio::test]
async fn overload_is_waited_out_or_handed_on() {
    let busy_at_first =
        FakeInference::start(|nth| if nth < 30 { Action::Refuse(Reason::Overloaded) } else { Action::Answer });
    let (patient, metrics) = dispatcher(&[&busy_at_first]).await;
    classify_all(&patient, 20).await;
    assert!(metrics.encode().contains("chorale_feature_dispatch_retries_total{reason=\"overloaded\"} 30"));

    let busy = FakeInference::start(|_| Action::Refuse(Reason::Overloaded));
    let (dispatcher, _) = dispatcher(&[&busy]).await;
    let failure = dispatcher.classify(chunk(0), &ChunkOptions::default()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Overloaded);
    assert!(failure.retry_after.is_some());
    assert!(busy.asked() < 20, "asked {} times: no pauses", busy.asked());
}

#[tokio::test]
async fn what_every_replica_would_say_fails_at_once() {
    for reason in [Reason::FeatureMismatch, Reason::Internal, Reason::RequestInvalid] {
        let fake = FakeInference::start(move |_| Action::Refuse(reason));
        let (dispatcher, _) = dispatcher(&[&fake]).await;
        assert_eq!(dispatcher.classify(chunk(0), &ChunkOptions::default()).await.unwrap_err().reason, reason);
        assert_eq!(fake.asked(), 1);
    }
}

#[tokio::test]
async fn a_chunk_that_kills_replicas_does_not_kill_them_all() {
    let fakes: Vec<_> = (0..8).map(|_| FakeInference::start(|_| Action::Die)).collect();
    let (dispatcher, _) = dispatcher(&fakes.iter().collect::<Vec<_>>()).await;
    let failure = dispatcher.classify(chunk(0), &ChunkOptions::default()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DependencyUnavailable, "{failure}");
    assert!(failure.message.contains("no answer in 5 attempts"), "{failure}");
    assert_eq!(fakes.iter().map(FakeInference::asked).sum::<u64>(), 5);
}

#[tokio::test]
async fn nobody_there_is_told_within_the_patience() {
    let gone = FakeInference::obliging();
    gone.die();
    let (dispatcher, _) = dispatcher(&[&gone]).await;
    let began = Instant::now();
    let failure = dispatcher.classify(chunk(0), &ChunkOptions::default()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DependencyUnavailable);
    assert!(failure.retry_after.is_some());
    assert!((Duration::from_millis(900)..Duration::from_secs(4)).contains(&began.elapsed()));
    assert_eq!(dispatcher.describe().await.unwrap_err().reason, Reason::DependencyUnavailable);
}

#[tokio::test]
async fn a_deadline_ends_the_wait() {
    let silent = FakeInference::start(|_| Action::Ignore);
    let (dispatcher, _) = dispatcher(&[&silent]).await;
    let deadline = Instant::now() + Duration::from_millis(200);
    let options = ChunkOptions { deadline: Some(deadline), ..ChunkOptions::default() };
    let failure = dispatcher.classify(chunk(0), &options).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DeadlineExceeded);
    assert!(deadline.elapsed() < Duration::from_millis(200));
}

#[tokio::test]
async fn a_cancelled_chunk_leaves_its_stream_to_the_others() {
    let fake = FakeInference::start(|_| Action::AnswerAfter(Duration::from_millis(50)));
    let (dispatcher, _) = dispatcher(&[&fake]).await;
    for number in 0..10 {
        let cancelled = tokio::time::timeout(
            Duration::from_millis(5),
            dispatcher.classify(chunk(number), &ChunkOptions::default()),
        )
        .await;
        assert!(cancelled.is_err());
    }
    classify_all(&dispatcher, 10).await;
    assert_eq!(fake.streams(), 1);
}

#[tokio::test]
async fn a_model_of_another_contract_is_refused() {
    let same = FakeInference::obliging();
    let (dispatcher_of_same, _) = dispatcher(&[&same]).await;
    assert_eq!(dispatcher_of_same.describe().await.unwrap().len(), 1);
    let other = FakeInference::with_feature_id("another", |_| Action::Answer);
    let (dispatcher, _) = dispatcher(&[&other]).await;
    assert_eq!(dispatcher.describe().await.unwrap_err().reason, Reason::FeatureMismatch);
}

fn of_version(model_version: &str) -> ChunkOptions {
    ChunkOptions { model_version: model_version.to_owned(), ..ChunkOptions::default() }
}

#[tokio::test]
async fn a_chunk_goes_to_the_replicas_that_have_its_version() {
    let fakes = [(); 3].map(|()| FakeInference::obliging());
    fakes[0].serve(&["v1"]);
    fakes[1].serve(&["v1", "v2"]);
    // A replica of an older release answers with what it has, whatever is asked for.
    let (dispatcher, metrics) = dispatcher(&[&fakes[0], &fakes[1], &fakes[2]]).await;
    for number in 0..40 {
        let prediction = dispatcher.classify(chunk(number), &of_version("v2")).await.unwrap();
        assert_eq!(prediction.model_version, "v2");
    }
    assert_eq!(fakes[1].answered(), 40);
    assert!(fakes[0].asked() + fakes[2].asked() < 10, "who lacks a version is not asked for every chunk");
    assert!(metrics.encode().contains("chorale_feature_dispatch_retries_total{reason=\"lacking\"}"));
    for number in 0..40 {
        dispatcher.classify(chunk(number), &of_version("v1")).await.unwrap();
    }
    assert!(fakes[0].answered() > 0, "a replica that lacks one version is as good as any for another");
}

#[tokio::test]
async fn a_version_that_no_replica_has_is_waited_for_and_then_told() {
    let fakes = [(); 2].map(|()| FakeInference::obliging());
    fakes.iter().for_each(|fake| fake.serve(&["v1"]));
    let (dispatcher, _) = dispatcher(&[&fakes[0], &fakes[1]]).await;
    let failure = dispatcher.classify(chunk(0), &of_version("v2")).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DependencyUnavailable);
    assert!(failure.retry_after.is_some() && failure.message.contains("\"v2\""), "{failure}");

    let options = of_version("v2");
    let (answer, ()) = tokio::join!(dispatcher.classify(chunk(0), &options), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fakes[1].serve(&["v2"]);
    });
    assert_eq!(answer.unwrap().model_version, "v2");
}

#[tokio::test]
async fn what_most_replicas_serve_is_described() {
    let fakes = [(); 4].map(|()| FakeInference::obliging());
    for fake in &fakes[..2] {
        fake.serve(&["v1", "v2"]);
    }
    fakes[2].serve(&["v3"]);
    fakes[3].die();
    let (dispatcher, _) = dispatcher(&fakes.iter().collect::<Vec<_>>()).await;
    let described = dispatcher.describe().await.unwrap();
    let versions: Vec<_> = described.into_iter().map(|served| served.model.unwrap().version).collect();
    assert_eq!(versions, ["v1", "v2"]);
}
