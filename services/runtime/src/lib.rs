//! How a Chorale service starts, stops, logs, measures and fails.
//!
//! Every role is built from the same parts, in this order: [`config`] is loaded and checked before a port is bound,
//! [`telemetry`] starts, with [`trace`]s if they are wanted, the role's [`server`] binds and serves with health and reflection,
//! [`admin`] answers probes and metrics, what a process knows of itself is there to [`inspect`], and [`shutdown`] ends it all
//! in order. [`failure`] is the one table of errors and codes, [`replicas`] finds and balances the other side, [`deadline`]
//! reads how long a caller waits, [`overload`] says what may wait and who goes first, [`shares`] what each caller may have of
//! it, [`priority`] that answers come before work. [`connections`] are taken by a server, for gRPC and for [`http`], and made by
//! a [`connector`], over [`tls`] if so configured, and [`rpcs`] are measured; [`reload`] follows the files behind that. [`open_inference`] is the protocol
//! of other servers' clients, and [`oversize`] explains a limit that the transport keeps.

pub mod admin;
pub mod config;
pub mod connections;
pub mod connector;
pub mod deadline;
pub mod failure;
pub mod health;
pub mod http;
pub mod inspect;
pub mod metrics;
pub mod open_inference;
pub mod overload;
pub mod oversize;
pub mod priority;
pub mod process;
pub mod reload;
pub mod replicas;
pub mod rpcs;
pub mod server;
pub mod shares;
pub mod shutdown;
mod stall;
pub mod telemetry;
pub mod tls;
pub mod trace;

/// The metadata key under which a request's id travels through the cluster.
pub const REQUEST_ID: &str = "x-request-id";
/// The metadata key under which a gateway tells a feature service who calls, so that callers have fair shares of it: any text
/// that is different for each, and says nothing of them.
pub const CALLER: &str = "x-chorale-caller";
