//! Who listens to the tracks: a server elsewhere, or a cluster in this process.

use std::{num::NonZero, thread::available_parallelism, time::Duration};

use chorale_client::{Client, ClientOptions};
use chorale_library::{ScanOptions, Stop, stop_signal};
use chorale_runtime::{
    process::Process,
    shutdown::{self, ShutdownConfig},
    telemetry,
};

use crate::{
    cli::library::ListeningFlags,
    client,
    cluster::Cluster,
    commands::serve::model_flags,
    config::{Config, Flags},
};

/// A server that is restarted, or busy with others, comes back within a minute or two.
const ATTEMPTS: usize = 8;
/// One more than this waits while the others are heard: its file is read, and its chunks fill the next batch.
const MORE_THAN_CORES: usize = 2;
/// Nothing is in flight when the tool ends: the cluster needs no time to finish.
const AT_ONCE: ShutdownConfig = ShutdownConfig { delay: Duration::ZERO, grace: Duration::from_secs(1) };
/// As of a process that a signal ended.
const INTERRUPTED: i32 = 130;

/// Who listens.
pub(super) struct Listener {
    pub(super) client: Client,
    cluster: Option<Cluster>,
}

impl Listener {
    /// Connects to the server that `flags` name, or starts a cluster as `config` says.
    pub(super) async fn start(flags: &ListeningFlags, config: Config) -> anyhow::Result<Self> {
        let (cluster, endpoint) = match &flags.endpoint {
            Some(endpoint) => (None, endpoint.clone()),
            None => {
                telemetry::start(&config.log)?;
                let cluster = Cluster::start_private(config, &Process::default()).await?;
                let endpoint = cluster.endpoint();
                (Some(cluster), endpoint)
            }
        };
        let options = ClientOptions {
            tls: flags.credentials.tls(),
            token: client::token(&flags.credentials)?,
            timeout: flags.timeout,
            attempts: ATTEMPTS,
        };
        Ok(Self { client: Client::connect(&endpoint, options).await?, cluster })
    }

    /// Ends the cluster, if it was started for this.
    pub(super) async fn end(self) {
        drop(self.client);
        if let Some(cluster) = self.cluster {
            cluster.drain(&AT_ONCE).await;
        }
    }
}

/// The configuration of the cluster in this process.
pub(super) fn config(flags: &ListeningFlags) -> anyhow::Result<Config> {
    let mut config = model_flags(Flags::default(), &flags.model)?.load(None)?;
    // A tool's own words are its output; logs are for servers. Only what breaks is worth a line.
    config.log.level = "error".to_owned();
    Ok(config)
}

/// How to scan, as `flags` say.
pub(super) fn scan_options(flags: &ListeningFlags) -> ScanOptions {
    let cores = available_parallelism().map_or(1, NonZero::get);
    ScanOptions {
        jobs: flags.jobs.map_or(cores + MORE_THAN_CORES, usize::from),
        early_error_rate: flags.early.unwrap_or_default(),
        rescan: false,
        retry_failed: false,
    }
}

/// Hears of Ctrl-C and SIGTERM. The first one says `farewell` and is a wish to stop, the second one ends the process at once.
pub(super) fn stop_at_signal(farewell: &'static str) -> Stop {
    let (stopper, stop) = stop_signal();
    tokio::spawn(async move {
        if let Ok(_signal) = shutdown::signalled().await {
            anstream::eprintln!("{farewell}");
            stopper.stop();
        }
        if let Ok(_signal) = shutdown::signalled().await {
            std::process::exit(INTERRUPTED);
        }
        // Handlers that cannot be installed leave the signals as they are: they end the process.
        std::future::pending::<()>().await;
    });
    stop
}
