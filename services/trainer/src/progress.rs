//! What a person at a terminal sees while they wait.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether to draw progress bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is drawn.
    Hidden,
    /// Bars on standard error, where that is a terminal.
    Terminal,
}

impl Progress {
    pub(crate) fn bar(self, task: &'static str, steps: usize) -> ProgressBar {
        let target = match self {
            Self::Hidden => ProgressDrawTarget::hidden(),
            Self::Terminal => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target).with_prefix(task);
        match ProgressStyle::with_template("{prefix:>10} [{bar:32}] {pos}/{len} {msg} {eta}") {
            Ok(style) => bar.with_style(style.progress_chars("=> ")),
            Err(_) => bar,
        }
    }
}
