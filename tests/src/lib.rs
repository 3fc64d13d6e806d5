//! Real Chorale processes on free ports, and what a test needs around them.
//!
//! One file of `tests/` holds one behaviour. A [`Server`] is a process of the `chorale` binary, a [`Cluster`] is four
//! of them with a Redis, [`command::run`] is a tool run to its end, and a [`Client`] uploads audio at its own pace.
//! Every process ends with the value that stands for it; a test that fails shows what its servers logged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod admin;
mod binary;
mod browser;
mod cluster;
mod collector;
mod memory;
mod port;
mod proxy;
mod redis;
mod running;
mod server;
mod skip;
mod stand_in;
mod wait;

pub mod certificates;
pub mod client;
pub mod command;
pub mod examples;
pub mod fixtures;
pub mod grpcurl;
pub mod http;
pub mod markdown;
pub mod music;
pub mod openapi;
pub mod sound;
pub mod triton;
pub mod verdict;
pub mod walkthrough;

pub use binary::{chorale, workspace};
pub use browser::Browser;
pub use certificates::{Authority, Identity};
pub use client::{Client, Upload};
pub use cluster::Cluster;
pub use collector::{CollectedSpan, Collector};
pub use http::HttpClient;
pub use memory::{Handles, MIB, Memory};
pub use openapi::OpenApi;
pub use port::free_port;
pub use proxy::Proxy;
pub use redis::Redis;
pub use running::Running;
pub use server::{Server, health};
pub use skip::{note, skip, skip_without_tool};
pub use stand_in::StandIn;
pub use wait::until;
