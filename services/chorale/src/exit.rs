//! Exit codes, and the one line that an error prints.

use std::process::ExitCode;

use chorale_runtime::config::ConfigError;

use crate::render::RED;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: everything was done.
    Done,
    /// 1: something failed; what could be done was done.
    Failed,
    /// 2: the command line or the configuration is wrong; nothing was done.
    Usage,
}

/// A command line that parses but cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

impl Exit {
    /// [`Exit::Done`], unless some of the work failed.
    pub(crate) fn unless(some_failed: bool) -> Self {
        if some_failed { Self::Failed } else { Self::Done }
    }

    /// Prints `error` with its causes as one line on standard error, and says how to end.
    pub(crate) fn of_error(error: &anyhow::Error) -> Self {
        let mut message = String::new();
        for cause in error.chain().map(ToString::to_string) {
            // Some errors name their cause themselves.
            if !message.contains(&cause) {
                message.push_str(if message.is_empty() { "" } else { ": " });
                message.push_str(&cause);
            }
        }
        anstream::eprintln!("{}error:{} {message}", RED.render(), RED.render_reset());
        let wrong_usage = error.chain().any(|cause| cause.is::<ConfigError>() || cause.is::<UsageError>());
        if wrong_usage { Self::Usage } else { Self::Failed }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        })
    }
}
