//! `chorale library watch`: classify what comes, until Ctrl-C.

use std::path::PathBuf;

use chorale_library::{Index, ScanLock, Scanner, Stop, Watch};

use super::{
    index_path, listening,
    report::Report,
    scan::{existing, scan},
};
use crate::{cli::library::WatchArguments, commands::block_on, exit::Exit, listener};

const FAREWELL: &str = "stopping when what is in flight is done; Ctrl-C again stops at once";

pub(crate) fn run(arguments: &WatchArguments) -> anyhow::Result<Exit> {
    let config = listener::config(&arguments.listening.listener.model)?;
    let path = index_path(&arguments.index)?;
    let index = Index::create(&path)?;
    let _lock = ScanLock::take(&path)?;
    let mut report = Report::new(arguments.json);
    let roots = existing(&arguments.folders, &mut report)?;
    block_on(async {
        let mut stop = listening::stop_at_signal(FAREWELL);
        // Before the scan: what changes meanwhile is not missed.
        let mut watch = Watch::start(&roots, arguments.settle)?;
        let listener = listening::listener(&arguments.listening, config).await?;
        let scanner =
            Scanner::start(index, listener.client.clone(), listening::scan_options(&arguments.listening)).await?;
        let followed = follow(&mut watch, &scanner, &roots, &mut stop, &mut report).await;
        listener.end().await;
        followed.map(|()| Exit::Done)
    })
}

async fn follow(
    watch: &mut Watch,
    scanner: &Scanner,
    roots: &[PathBuf],
    stop: &mut Stop,
    report: &mut Report,
) -> anyhow::Result<()> {
    let ended = scan(scanner, roots, stop, report).await?;
    report.finish(ended.left);
    if let Some(error) = ended.trouble {
        return Err(error.into());
    }
    report.follow();
    report.note(&format!("watching {}; Ctrl-C ends it", names(roots)));
    Ok(watch.follow(scanner, stop, &mut |event| report.event(&event)).await?)
}

fn names(roots: &[PathBuf]) -> String {
    roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ")
}
