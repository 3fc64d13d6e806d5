//! Who listens to the tracks of a tool: a server elsewhere, or a cluster in this process.

use std::time::Duration;

use chorale_client::{Client, Target};
use chorale_runtime::{process::Process, shutdown::ShutdownConfig, telemetry};

use crate::{
    cli::{CredentialFlags, ModelFlags},
    client,
    cluster::Cluster,
    commands::serve::model_flags,
    config::Flags,
};

/// Nothing is in flight when the tool ends: the cluster needs no time to finish.
const AT_ONCE: ShutdownConfig = ShutdownConfig { delay: Duration::ZERO, grace: Duration::from_secs(1) };

/// Who listens.
pub(crate) struct Listener {
    pub(crate) client: Client,
    cluster: Option<Cluster>,
}

impl Listener {
    /// Connects to the server at `endpoint`, or starts a cluster with the model that `flags` name. A call may take `timeout`.
    pub(crate) async fn start(
        endpoint: Option<&Target>,
        credentials: &CredentialFlags,
        flags: &ModelFlags,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        if let Some(endpoint) = endpoint {
            return Ok(Self { client: client::connect(endpoint, credentials, timeout).await?, cluster: None });
        }
        let mut config = model_flags(Flags::default(), flags)?.load(None)?;
        // A tool's own words are its output; logs are for servers. Only what breaks is worth a line.
        config.log.level = "error".to_owned();
        telemetry::start(&config.log)?;
        let cluster = Cluster::start_private(config, &Process::default()).await?;
        let client = client::connect(&cluster.endpoint(), credentials, timeout).await?;
        Ok(Self { client, cluster: Some(cluster) })
    }

    /// Ends the cluster, if it was started for this.
    pub(crate) async fn end(self) {
        drop(self.client);
        if let Some(cluster) = self.cluster {
            cluster.drain(&AT_ONCE).await;
        }
    }
}
