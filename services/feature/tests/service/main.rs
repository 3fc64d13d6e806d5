//! The feature service against inference servers that follow a script.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod analyze;
mod dispatch;
mod fake;
