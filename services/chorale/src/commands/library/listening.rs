//! How folders are listened to, and how that stops.

use std::{num::NonZero, thread::available_parallelism};

use chorale_library::{ScanOptions, Stop, stop_signal};
use chorale_runtime::shutdown;

use crate::{cli::library::ListeningFlags, client::Patience, config::Config, listener::Listener};

/// A server that is restarted, or busy with others, comes back within a minute or two.
const ATTEMPTS: usize = 8;
/// One more than this waits while the others are heard: its file is read, and its chunks fill the next batch.
const MORE_THAN_CORES: usize = 2;
/// As of a process that a signal ended.
const INTERRUPTED: i32 = 130;

/// Connects to the server that `flags` name, or starts a cluster as `config` says.
pub(super) async fn listener(flags: &ListeningFlags, config: Config) -> anyhow::Result<Listener> {
    let patience = Patience { timeout: flags.listener.timeout, attempts: ATTEMPTS };
    Listener::start(&flags.listener, config, patience).await
}

/// How to scan, as `flags` say.
pub(super) fn scan_options(flags: &ListeningFlags) -> ScanOptions {
    let cores = available_parallelism().map_or(1, NonZero::get);
    ScanOptions {
        jobs: flags.jobs.map_or(cores + MORE_THAN_CORES, usize::from),
        early_error_rate: flags.early.error_rate(),
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
