//! Who listens to the tracks of a tool: a server elsewhere, or a cluster in this process.

use std::time::Duration;

use chorale_client::Client;
use chorale_runtime::{process::Process, shutdown::ShutdownConfig, telemetry};

use crate::{
    cli::listener::{ListenerFlags, ModelFlags},
    client::{self, Patience},
    cluster::Cluster,
    commands::serve::model_flags,
    config::{Config, Flags},
};

/// Nothing is in flight when the tool ends: the cluster needs no time to finish.
const AT_ONCE: ShutdownConfig = ShutdownConfig { delay: Duration::ZERO, grace: Duration::from_secs(1) };

/// Who listens.
pub(crate) struct Listener {
    pub(crate) client: Client,
    cluster: Option<Cluster>,
}

/// The configuration of a cluster in this process, with the model that `flags` name.
pub(crate) fn config(flags: &ModelFlags) -> anyhow::Result<Config> {
    let mut config = model_flags(Flags::default(), flags)?.load(None)?;
    // A tool's own words are its output; logs are for servers. Only what breaks is worth a line.
    config.log.level = "error".to_owned();
    Ok(config)
}

impl Listener {
    /// Connects to the server that `flags` name, or starts a cluster as `config` says.
    pub(crate) async fn start(flags: &ListenerFlags, config: Config, patience: Patience) -> anyhow::Result<Self> {
        let ListenerFlags { endpoint, credentials, .. } = flags;
        if let Some(endpoint) = endpoint {
            return Ok(Self { client: client::connect(endpoint, credentials, patience).await?, cluster: None });
        }
        telemetry::start(&config.log)?;
        let cluster = Cluster::start_private(config, &Process::default()).await?;
        let client = client::connect(&cluster.endpoint(), credentials, patience).await?;
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
