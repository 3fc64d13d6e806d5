//! A gateway between real clients and a scripted feature service, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster;
mod embeddings;
mod failures;
mod feature;
mod limits;
mod models;
mod open_inference;
mod redis_server;
mod sharing;
mod streaming;
