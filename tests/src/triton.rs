//! The public client of Triton, which speaks the Open Inference Protocol and knows nothing of us.

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::{command, skip::skip_without_tool, workspace};

/// A Python with the package `tritonclient`.
#[derive(Debug)]
pub struct Triton(PathBuf);

impl Triton {
    /// Finds it where `tests/run` puts it, or on the path. `None`, with a message, if it is nowhere.
    #[must_use]
    pub fn find() -> Option<Self> {
        let installed = workspace().join("target/tools/tests/bin/python3");
        let found = [installed, PathBuf::from("python3")].into_iter().find(|program| {
            let import = Command::new(program).args(["-c", "import tritonclient.grpc"]).output();
            import.is_ok_and(|output| output.status.success())
        });
        if found.is_none() {
            skip_without_tool("tritonclient", "pip install 'tritonclient[grpc]'");
        }
        found.map(Self)
    }

    /// Does `steps` one after the other at `address`: what came of each. `triton.py` says what a step is.
    #[must_use]
    pub fn run(&self, address: &str, token: Option<&str>, steps: &[Value]) -> Vec<Value> {
        let mut command = Command::new(&self.0);
        command.arg(workspace().join("tests/src/triton.py"));
        let task = json!({"address": address, "token": token, "steps": steps}).to_string();
        let finished = command::finish(command, task.as_bytes()).expect_code(0);
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.stdout))
    }
}
