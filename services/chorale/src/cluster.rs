//! The whole cluster in one process: real roles that talk gRPC over loopback.

use std::net::{Ipv4Addr, SocketAddr};

use chorale_gateway::AuthConfig;
use chorale_runtime::{process::Process, replicas::Target, server::RunningRole, shutdown::ShutdownConfig};

use crate::config::Config;

const FREE_LOOPBACK_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A gateway, a feature service and an inference worker.
#[derive(Debug)]
pub(crate) struct Cluster {
    inference: RunningRole,
    feature: RunningRole,
    gateway: RunningRole,
}

impl Cluster {
    /// As [`Cluster::start`], on a free port for the use of this process alone.
    pub(crate) async fn start_private(mut config: Config, process: &Process) -> anyhow::Result<Self> {
        config.gateway.listen = FREE_LOOPBACK_PORT;
        // Nobody else calls, and this process knows itself.
        config.gateway.http.enabled = false;
        config.gateway.tls = None;
        config.gateway.auth = AuthConfig::default();
        Self::start(config, process).await
    }

    /// Starts the three roles and waits until they are ready. The gateway listens where `config` says, the other two
    /// on free ports of the loopback interface.
    pub(crate) async fn start(mut config: Config, process: &Process) -> anyhow::Result<Self> {
        (config.inference.listen, config.inference.tls) = (FREE_LOOPBACK_PORT, None);
        let inference = chorale_inference::start(config.inference, process).await?;
        (config.feature.listen, config.feature.tls) = (FREE_LOOPBACK_PORT, None);
        config.feature.inference = vec![Target::from(inference.address())];
        let feature = chorale_feature::start(config.feature, process).await?;
        config.gateway.feature = vec![Target::from(feature.address())];
        let gateway = chorale_gateway::start(config.gateway, process).await?;
        for role in [&inference, &feature, &gateway] {
            role.ready().await;
        }
        Ok(Self { inference, feature, gateway })
    }

    /// Where the gateway answers.
    pub(crate) fn endpoint(&self) -> Target {
        self.gateway.target().clone()
    }

    /// Where the gateway has its page, if it has one.
    pub(crate) fn page(&self) -> Option<&Target> {
        self.gateway.http()
    }

    /// Waits until one of the roles ends, which none should.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            result = self.gateway.ended() => result?,
            result = self.feature.ended() => result?,
            result = self.inference.ended() => result?,
        }
        Ok(())
    }

    /// Finishes the calls in flight, from the public face inwards.
    pub(crate) async fn drain(self, shutdown: &ShutdownConfig) {
        self.gateway.drain(shutdown).await;
        // Nobody outside sees the inner roles: no load balancer needs to notice.
        let shutdown = ShutdownConfig { delay: std::time::Duration::ZERO, ..shutdown.clone() };
        self.feature.drain(&shutdown).await;
        self.inference.drain(&shutdown).await;
    }
}
