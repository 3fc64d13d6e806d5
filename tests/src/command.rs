//! The binary as a tool that runs to its end.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::binary::invocation;

/// Generous: training is one of the tools.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How a tool ended, and what it said.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote on standard output.
    pub stdout: String,
    /// What it wrote on standard error.
    pub stderr: String,
}

/// A line of `chorale classify --json` about a track that was classified.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The file, as it was named.
    pub path: String,
    /// The most probable genre.
    pub genre: String,
    /// What is nearest where the genre is unknown and something was heard.
    pub nearest: Option<String>,
    /// Its probability.
    pub confidence: f64,
    /// The probability of each genre.
    pub probabilities: BTreeMap<String, f64>,
    /// The chunks that each genre won.
    pub votes: BTreeMap<String, u32>,
    /// Chunks in the track.
    pub chunks: u32,
    /// Seconds of audio.
    pub duration_seconds: f64,
    /// The version of the model.
    pub model: String,
    /// True if the answer was known already.
    pub cached: bool,
    /// True if the rest of the track was not heard.
    pub early: bool,
    /// What was wrong with the file.
    pub warnings: Vec<String>,
    /// Runs of chunks with one winner.
    pub segments: Vec<serde_json::Value>,
    /// What was heard on average, if that was wanted.
    pub embedding: Option<Vec<f32>>,
}

/// A line of `chorale classify --json` about a track that was not classified.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The file, as it was named.
    pub path: String,
    /// Why.
    pub error: RefusalError,
}

/// Why a track was not classified.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalError {
    /// The name of a gRPC code.
    pub code: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Answer(Box<Answer>),
    Refusal(Refusal),
}

impl Finished {
    /// Fails the test unless the tool ended with `code`.
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The lines of `--json` about tracks that were classified, and about those that were not.
    #[must_use]
    pub fn json_lines(&self) -> (Vec<Answer>, Vec<Refusal>) {
        let (mut answers, mut refusals) = (Vec::new(), Vec::new());
        for line in self.stdout.lines() {
            match serde_json::from_str(line) {
                Ok(Line::Answer(answer)) => answers.push(*answer),
                Ok(Line::Refusal(refusal)) => refusals.push(refusal),
                Err(error) => panic!("{error}: {line}"),
            }
        }
        (answers, refusals)
    }

    /// The lines of `--json` of a run that classified everything.
    #[must_use]
    pub fn answers(&self) -> Vec<Answer> {
        let (answers, refusals) = self.json_lines();
        assert_eq!(refusals, [], "every track is classified");
        answers
    }
}

/// Runs `chorale` to its end.
pub fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Finished {
    run_with(arguments, &[], &[])
}

/// Runs `chorale` to its end with variables of the environment, and with `input` on standard input.
pub fn run_with(
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    environment: &[(&str, &str)],
    input: &[u8],
) -> Finished {
    let mut command = invocation();
    command.args(arguments).envs(environment.iter().copied());
    finish(command, input)
}

/// Runs `chorale` until `file` exists, and kills it then. Fails the test if the tool ends before.
pub fn kill_once_there(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, file: &Path) {
    let mut command = invocation();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} starts: {error}"));
    let started = Instant::now();
    while !file.exists() {
        let ended = child.try_wait().expect("the process can be waited for");
        if ended.is_some() || started.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("{command:?}: no {} ({ended:?})", file.display());
        }
        thread::sleep(POLL_INTERVAL);
    }
    child.kill().expect("the process can be killed");
    child.wait().expect("the process can be waited for");
}

/// Runs any command to its end with `input` on standard input. Fails the test if it does not end.
#[must_use]
pub fn finish(mut command: Command, input: &[u8]) -> Finished {
    let input = input.to_vec();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} starts: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A tool that has heard enough closes its end early.
    thread::spawn(move || stdin.write_all(&input));
    let stdout = read_all(child.stdout.take().expect("stdout is piped"));
    let stderr = read_all(child.stderr.take().expect("stderr is piped"));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the process can be waited for") {
            break status;
        }
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("{command:?} did not end within {PATIENCE:?}");
        }
        thread::sleep(POLL_INTERVAL);
    };
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8(reader.join().expect("no reader panics")).expect("output is UTF-8")
    };
    Finished { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn read_all(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}
