//! The cluster as it is deployed: one process a role, and a Redis.

use chorale_proto::service_names::{CLASSIFIER, FEATURE, INFERENCE};

use crate::{Redis, Server};

/// Four processes: three roles and a Redis.
#[derive(Debug)]
pub struct Cluster {
    /// The gateway.
    pub gateway: Server,
    /// The feature service behind it.
    pub feature: Server,
    /// The inference worker behind that.
    pub inference: Server,
    /// Where the gateway caches.
    pub redis: Redis,
}

impl Cluster {
    /// Starts all four and waits until they serve. `None`, with a message, if there is no Redis.
    pub async fn start() -> Option<Self> {
        let redis = Redis::start().await?;
        let inference = Server::start("inference", &[]).await;
        inference.serving(INFERENCE).await;
        let feature = Server::start("feature", &["--inference", inference.endpoint()]).await;
        feature.serving(FEATURE).await;
        let gateway = Self::start_gateway(&feature, &redis).await;
        Some(Self { gateway, feature, inference, redis })
    }

    /// Starts a gateway in front of `feature` that caches in `redis`, and waits until it serves.
    pub async fn start_gateway(feature: &Server, redis: &Redis) -> Server {
        let gateway = Server::start("gateway", &["--feature", feature.endpoint(), "--cache-url", &redis.url()]).await;
        gateway.serving(CLASSIFIER).await;
        gateway
    }
}
