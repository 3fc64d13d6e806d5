//! The three roles in this process, as `chorale up` runs them, and what it takes to call them.

use std::{net::SocketAddr, path::PathBuf, sync::LazyLock, time::Duration};

use bytesize::ByteSize;
use chorale_feature::{FeatureConfig, FeatureLimits};
use chorale_gateway::{GatewayConfig, HttpConfig, LimitsConfig};
use chorale_inference::InferenceConfig;
use chorale_proto::v1::{GetModelRequest, classifier_service_client::ClassifierServiceClient};
use chorale_runtime::{process::Process, server::RunningRole};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};

/// A running cluster.
pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    pub(crate) gateway: Channel,
    pub(crate) feature: Channel,
    pub(crate) inference: Channel,
    _roles: [RunningRole; 3],
}

/// The cluster of this process.
pub(crate) static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (channels, roles) = runtime.block_on(start());
    let [gateway, feature, inference] = channels;
    Cluster { runtime, gateway, feature, inference, _roles: roles }
});

async fn start() -> ([Channel; 3], [RunningRole; 3]) {
    let process = Process::default();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let model = Some(PathBuf::from("small"));
    let inference = InferenceConfig { listen, model, ..InferenceConfig::default() };
    let inference = chorale_inference::start(inference, &process).await.expect("an inference worker");
    let limits = FeatureLimits {
        max_audio_bytes: ByteSize::mib(1),
        max_duration: Duration::from_secs(20),
        max_channels: 8,
        max_sample_rate: 96_000,
        max_decode_time: Duration::from_secs(60),
    };
    let feature =
        FeatureConfig { listen, inference: vec![inference.address().into()], limits, ..FeatureConfig::default() };
    let feature = chorale_feature::start(feature, &process).await.expect("a feature service");
    let limits = LimitsConfig {
        max_audio_bytes: ByteSize::mib(1),
        max_message_bytes: ByteSize::kib(16),
        ..LimitsConfig::default()
    };
    let http = HttpConfig { enabled: false, ..HttpConfig::default() };
    let replicas = vec![feature.address().into()];
    let gateway = GatewayConfig { listen, http, feature: replicas, limits, ..GatewayConfig::default() };
    let gateway = chorale_gateway::start(gateway, &process).await.expect("a gateway");

    let roles = [gateway, feature, inference];
    let channels = roles
        .each_ref()
        .map(|role| Endpoint::from_shared(format!("http://{}", role.address())).expect("an address").connect_lazy());
    let mut client = ClassifierServiceClient::new(channels[0].clone());
    // The gateway answers before it knows its model.
    for _ in 0..500 {
        if client.get_model(GetModelRequest {}).await.is_ok() {
            return (channels, roles);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the gateway does not learn its model");
}
