//! `chorale healthcheck`: whether a process is ready, as an exit code, for containers that have no HTTP client.

use super::block_on;
use crate::{admin, cli::HealthcheckArguments, exit::Exit};

pub(crate) fn run(arguments: &HealthcheckArguments) -> anyhow::Result<Exit> {
    let (status, services) = block_on(admin::get(&arguments.endpoint, "/readyz"))?;
    anstream::println!("{services}");
    Ok(Exit::unless(status != 200))
}
