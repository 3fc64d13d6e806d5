//! What callers see when the feature service fails.

use std::{net::SocketAddr, time::Duration};

use bytesize::ByteSize;
use chorale_gateway::{GatewayConfig, GatewayError, HttpConfig};
use chorale_proto::{
    service_names::CLASSIFIER,
    v1::{ClassifyOptions, EventKind, Verdict, classify_stream_response::Event},
};
use chorale_runtime::{
    failure::{Failure, Reason},
    process::Process,
};

use crate::{
    cluster::Cluster,
    feature::{FakeFeature, SILENT, Script, audio},
};

#[tokio::test]
async fn what_the_feature_service_says_reaches_the_caller() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let said = Failure::new(Reason::AudioUnsupported, "no known container; expected mp3 or flac").with("byte", 0);
    feature.set(Script { refuse: Some(said.clone()), ..Script::default() });
    assert_eq!(cluster.stream(ClassifyOptions::default(), &audio(&[1])).await.unwrap_err(), said);
    feature.set(Script { fail_after: Some((1, said.clone())), ..Script::default() });
    assert_eq!(cluster.stream(ClassifyOptions::default(), &audio(&[1; 9])).await.unwrap_err(), said);
    assert_eq!(cluster.classify(ClassifyOptions::default(), &audio(&[1; 9])).await.unwrap_err(), said);
}

#[tokio::test]
async fn a_replica_that_dies_in_the_middle_is_an_outage_to_retry() {
    let mut feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    let mut call = cluster.open(ClassifyOptions::default()).await;
    call.accepted().await;
    call.send_audio(&audio(&[1])).await;
    feature.wait_open(1).await;
    feature.kill();
    let failure = call.next().await.unwrap_err();
    assert_eq!(failure.reason, Reason::DependencyUnavailable, "{failure}");
    assert!(failure.retry_after.is_some());

    let away = cluster.stream(ClassifyOptions::default(), &audio(&[1])).await.unwrap_err();
    assert_eq!(away.reason, Reason::DependencyUnavailable);
    let back = FakeFeature::start_at(feature.address, Script::default());
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.stream(ClassifyOptions::default(), &audio(&[1])).await.unwrap();
    assert_eq!(back.completed(), 1);
}

#[tokio::test]
async fn a_track_goes_on_at_another_replica_where_the_first_one_left_it() {
    let (mut first, second) = (FakeFeature::start(), FakeFeature::start());
    let cluster = Cluster::start(&[&first], |_| {}).await;
    let expected = cluster.stream(ClassifyOptions::default(), &audio(&[1, 2, SILENT, 2, 2])).await.unwrap();
    let cluster = Cluster::start(&[&first, &second], |config| config.limits.replay_window = ByteSize::kb(4)).await;
    // Which replica is taken is left to chance.
    second.set(Script { refuse: Some(Failure::new(Reason::Draining, "not yet")), ..Script::default() });
    let options =
        ClassifyOptions { events: vec![EventKind::ChunkVote.into()], bypass_cache: true, ..ClassifyOptions::default() };
    let begin = async |winners: &[u8]| {
        let mut call = cluster.open(options.clone()).await;
        call.accepted().await;
        call.send_audio(&audio(winners)).await;
        for index in 0..winners.len() {
            let Some(Event::ChunkVote(vote)) = call.next().await.unwrap() else { panic!("expected a vote") };
            assert_eq!(vote.index as usize, index);
        }
        call
    };
    let mut short = begin(&[1, 2]).await;
    let mut long = begin(&[1, 2, SILENT, 2, 2]).await;
    second.set(Script::default());
    first.kill();

    let failure = long.next().await.unwrap_err();
    assert_eq!(failure.reason, Reason::DependencyUnavailable, "{failure}");
    assert!(failure.retry_after.is_some());

    short.send_audio(&audio(&[SILENT, 2, 2])).await;
    let mut events = short.events().await.unwrap();
    let Some(Event::Verdict(verdict)) = events.pop() else { panic!("expected a verdict last") };
    let votes: Vec<u32> = events
        .iter()
        .map(|event| match event {
            Event::ChunkVote(vote) => vote.index,
            other => panic!("expected a vote, found {other:?}"),
        })
        .collect();
    assert_eq!(votes, [2, 3, 4], "no vote comes twice");
    assert_eq!(Verdict { timing: None, ..verdict }, Verdict { timing: None, ..expected });
    assert_eq!(cluster.metric("chorale_gateway_replays_total"), 1);
}

#[tokio::test]
async fn a_track_that_kills_replicas_is_given_up() {
    let gone = Failure::new(Reason::DependencyUnavailable, "the decoder took the process with it");
    let script = || Script { fail_after: Some((1, gone.clone())), ..Script::default() };
    let replicas = [FakeFeature::start_with(script()), FakeFeature::start_with(script())];
    let cluster = Cluster::start(&[&replicas[0], &replicas[1]], |_| {}).await;
    let failure = cluster.stream(ClassifyOptions::default(), &audio(&[1, 1])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DependencyUnavailable);
    assert_eq!(replicas[0].opened() + replicas[1].opened(), 4);
}

#[tokio::test]
async fn a_track_that_a_replica_has_no_time_for_goes_to_another_one() {
    let full = Failure::new(Reason::Overloaded, "tracks wait for a core already");
    let busy = FakeFeature::start_with(Script { fail_after: Some((0, full)), ..Script::default() });
    let free = FakeFeature::start();
    let cluster = Cluster::start(&[&free, &busy], |_| {}).await;
    for index in 0..8 {
        cluster.classify(ClassifyOptions::default(), &audio(&[1, index])).await.unwrap();
    }
    let cluster = Cluster::start(&[&busy], |_| {}).await;
    let failure = cluster.classify(ClassifyOptions::default(), &audio(&[1])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Overloaded);
    assert!(failure.retry_after.is_some());
    assert_eq!(cluster.metric("chorale_gateway_replays_total"), 0);
}

#[tokio::test]
async fn another_replica_is_asked_if_one_is_away_or_full() {
    let (alive, mut dead) = (FakeFeature::start(), FakeFeature::start());
    let full = Failure::new(Reason::Overloaded, "the queue is full");
    let busy = FakeFeature::start_with(Script { refuse: Some(full), ..Script::default() });
    let cluster = Cluster::start(&[&alive, &dead], |_| {}).await;
    dead.kill();
    for index in 0..8 {
        cluster.classify(ClassifyOptions::default(), &audio(&[1, index])).await.unwrap();
    }
    let cluster = Cluster::start(&[&alive, &busy], |_| {}).await;
    for index in 0..8 {
        cluster.classify(ClassifyOptions::default(), &audio(&[1, index])).await.unwrap();
    }
    let cluster = Cluster::start(&[&busy], |_| {}).await;
    let failure = cluster.classify(ClassifyOptions::default(), &audio(&[1])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Overloaded);
    assert_eq!(cluster.metric("chorale_gateway_feature_retries_total"), 2);
}

#[tokio::test]
async fn a_feature_service_that_breaks_its_protocol_is_a_bug() {
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], |_| {}).await;
    for script in [Script { no_summary: true, ..Script::default() }, Script { out_of_order: true, ..Script::default() }]
    {
        feature.set(script);
        let failure = cluster.stream(ClassifyOptions::default(), &audio(&[1])).await.unwrap_err();
        assert_eq!(failure.reason, Reason::Internal, "{failure}");
    }
}

#[tokio::test]
async fn a_gateway_is_ready_once_it_knows_a_model_of_its_own_contract() {
    let mut feature = FakeFeature::start();
    let address = feature.address;
    feature.kill();
    let cluster = Cluster::start_unready([address], |_| {}).await;
    assert!(!cluster.process.readiness.snapshot()[CLASSIFIER]);
    let failure = cluster.classify(ClassifyOptions::default(), &audio(&[1])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DependencyUnavailable);

    let other = FakeFeature::start_at(address, Script { feature_id: Some("other".to_owned()), ..Script::default() });
    let mismatch = async {
        loop {
            let failure = cluster.classify(ClassifyOptions::default(), &audio(&[1])).await.unwrap_err();
            if failure.reason == Reason::FeatureMismatch {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), mismatch).await.unwrap();
    assert!(!cluster.process.readiness.snapshot()[CLASSIFIER]);

    other.set(Script::default());
    tokio::time::timeout(Duration::from_secs(5), cluster.gateway.ready()).await.unwrap();
    cluster.classify(ClassifyOptions::default(), &audio(&[1])).await.unwrap();
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_before_a_port_is_bound() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen: SocketAddr = taken.local_addr().unwrap();
    let http = HttpConfig { enabled: false, ..HttpConfig::default() };
    let mut config = GatewayConfig { listen, http, feature: Vec::new(), ..GatewayConfig::default() };
    let start =
        async |config: &GatewayConfig| chorale_gateway::start(config.clone(), &Process::default()).await.err().unwrap();
    assert!(matches!(start(&config).await, GatewayError::Config { key: "gateway.feature", .. }));
    config.feature = GatewayConfig::default().feature;
    assert!(matches!(start(&config).await, GatewayError::Server(_)));
}
