//! Names the genre of audio files with a Chorale server, and shows each chunk's vote while the upload runs.
//!
//! ```sh
//! chorale up &
//! cargo run --release --package chorale-client --example classify -- song.mp3
//! ```
//!
//! A bearer token is taken from the environment variable `CHORALE_TOKEN`. The exit code is 0 if every file has a verdict, else
//! 1.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use chorale_client::{
    BearerToken, ChunkVote, ClassifyOptions, Client, ClientError, ClientOptions, ClientTlsConfig, Event, EventKind,
    Target, Verdict,
};
use clap::Parser;

/// Names the genre of audio files with a Chorale server, and shows each chunk's vote while the upload runs
#[derive(Parser)]
struct Arguments {
    /// Audio of any format that Chorale reads
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    endpoint: Target,
    /// Certificates (PEM) that an https:// server is believed by [default: those of this system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Give up on a file after this long
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    timeout: Duration,
    /// How often a file is tried, where trying again helps
    #[arg(long, value_name = "N", default_value_t = 5)]
    attempts: usize,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "expected a number of seconds".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match classify_all(&arguments).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_failures) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many files have no verdict.
async fn classify_all(arguments: &Arguments) -> Result<usize, ClientError> {
    // One connection serves any number of calls at the same time: `Client` is cheap to clone.
    let client = Client::connect(
        &arguments.endpoint,
        ClientOptions {
            tls: ClientTlsConfig { ca: arguments.ca.clone(), ..ClientTlsConfig::default() },
            token: BearerToken::find(None)?,
            timeout: arguments.timeout,
            attempts: arguments.attempts,
        },
    )
    .await?;
    let mut failures = 0;
    for file in &arguments.files {
        match classify(&client, file).await {
            Ok(verdict) => print_verdict(file, &verdict),
            Err(error) => {
                failures += 1;
                eprintln!("{}: {}", file.display(), describe(&error));
            }
        }
    }
    Ok(failures)
}

async fn classify(client: &Client, file: &Path) -> Result<Verdict, ClientError> {
    let options = ClassifyOptions { events: vec![EventKind::ChunkVote.into()], top_k: 3, ..ClassifyOptions::default() };
    // Digests the file, uploads it only if the server does not know its verdict, and tries again where that helps.
    client
        .classify_file(file, options, |event| {
            if let Event::ChunkVote(vote) = event {
                print_vote(&vote);
            }
        })
        .await
}

fn print_vote(vote: &ChunkVote) {
    let (start, end) = (clock(vote.start_seconds), clock(vote.end_seconds));
    if vote.silent {
        println!("  {start} to {end}  silence");
    } else {
        let probability = vote.probabilities.iter().copied().fold(0.0, f32::max);
        println!("  {start} to {end}  {:<10}{:5.1} %", vote.genre, 100.0 * probability);
    }
}

fn print_verdict(file: &Path, verdict: &Verdict) {
    println!(
        "{}: {}, {:.0} % sure ({}, {} chunks, model {}{})",
        file.display(),
        verdict.genre,
        100.0 * verdict.confidence,
        clock(verdict.duration_seconds),
        verdict.chunk_count,
        verdict.model_version,
        if verdict.cached { ", known already" } else { "" },
    );
    for warning in &verdict.warnings {
        println!("  warning: {}", warning.message);
    }
}

/// The code and, from a server, the reason and the field that is wrong: what a program decides by, before the words for people.
fn describe(error: &ClientError) -> String {
    let mut said = vec![error.code().to_owned()];
    if let ClientError::Server(failure) = error {
        said.extend((failure.reason.name() != error.code()).then(|| failure.reason.name().to_owned()));
        said.extend(failure.field.clone());
    }
    format!("{}: {error}", said.join(" "))
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
