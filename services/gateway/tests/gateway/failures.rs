//! What callers see when the feature service fails.

use std::{net::SocketAddr, time::Duration};

use chorale_gateway::{GatewayConfig, GatewayError};
use chorale_proto::{service_names::CLASSIFIER, v1::ClassifyOptions};
use chorale_runtime::{
    failure::{Failure, Reason},
    process::Process,
};

use crate::{
    cluster::Cluster,
    feature::{FakeFeature, Script, audio},
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
    let mut config = GatewayConfig { listen, feature: Vec::new(), ..GatewayConfig::default() };
    let start =
        async |config: &GatewayConfig| chorale_gateway::start(config.clone(), &Process::default()).await.err().unwrap();
    assert!(matches!(start(&config).await, GatewayError::Config { key: "gateway.feature", .. }));
    config.feature = GatewayConfig::default().feature;
    assert!(matches!(start(&config).await, GatewayError::Server(_)));
}
