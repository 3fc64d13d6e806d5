//! How a Chorale service starts, stops, logs, measures and fails.
//!
//! Every role is built from the same parts, in this order: [`config`] is loaded and checked before a port is bound,
//! [`telemetry`] starts, the role's [`server`] binds and serves with health and reflection, [`admin`] answers probes
//! and metrics, and [`shutdown`] ends it all in order. [`failure`] is the one table of errors and codes, [`replicas`]
//! finds and balances the other side, [`deadline`] reads how long a caller waits, [`overload`] says what may wait and who goes
//! first.

pub mod admin;
pub mod config;
pub mod deadline;
pub mod failure;
pub mod health;
pub mod metrics;
pub mod overload;
pub mod process;
pub mod replicas;
pub mod server;
pub mod shutdown;
pub mod telemetry;
