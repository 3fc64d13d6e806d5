//! Ports that stay free while their process is away.

use std::{net::TcpListener, ops::Range};

use rand::RngExt;

/// Below what Linux gives to outgoing connections: one of those would hold the port of a process that is to come back.
const PORTS: Range<u16> = 15_000..32_000;

/// A port on the loopback interface that nobody has now.
///
/// Of two processes that ask at the same time, both may get the same one, though it is not likely.
#[must_use]
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    (0..1_000)
        .map(|_| random.random_range(PORTS))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}
