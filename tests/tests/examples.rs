//! The examples of clients do what they show: verdicts, votes, errors that a program can decide by, another attempt where that
//! helps, tokens, TLS and deadlines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{collections::HashMap, path::Path, time::Duration};

use chorale_proto::v1::{ClassifyOptions, Verdict};
use chorale_tests::{
    Authority, Server, StandIn,
    command::Finished,
    examples::Example,
    fixtures,
    grpcurl::{Grpcurl, base64},
    until,
};
use futures::future::join_all;
use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const PATIENCE: Duration = Duration::from_secs(30);

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The line about a file that has this verdict.
fn expected_line(file: &str, verdict: &Verdict) -> String {
    format!("{file}: {}, {:.0} % sure (", verdict.genre, 100.0 * verdict.confidence)
}

/// How many votes were shown.
fn votes(finished: &Finished) -> usize {
    finished.stdout.lines().filter(|line| line.starts_with("  ") && line.ends_with(" %")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_shows_the_votes_and_the_verdict_of_the_rpc() {
    let server = Server::start("up", &[]).await;
    server.ready().await;
    let client = server.client().await;
    // A file of its own for each: a verdict that is known already has no votes.
    for (example, path) in Example::all().into_iter().zip(fixtures::genres()) {
        let file = text(&path);
        let arguments = ["--endpoint", server.endpoint(), file];
        let first = example.run(&arguments).expect_code(0);
        let verdict = client.classify(fixtures::read(&path)).await.unwrap();
        let line = first.stdout.lines().last().unwrap_or_default();
        assert!(line.starts_with(&expected_line(file, &verdict)), "{}: {line}", example.language);
        assert!(line.contains(&verdict.model_version) && !line.contains("known already"), "{line}");
        assert_eq!(votes(&first), verdict.chunk_count as usize, "{}: {}", example.language, first.stdout);

        // Without a digest, votes may come before the server knows what it hears.
        let again = example.run(&arguments).expect_code(0).stdout;
        let line = again.lines().last().unwrap_or_default();
        assert!(line.starts_with(&expected_line(file, &verdict)) && line.contains("known already"), "{again}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_says_what_is_wrong_with_a_file_and_goes_on() {
    let server = Server::start("up", &[]).await;
    server.ready().await;
    let (broken, good, unknown) =
        (fixtures::broken("text.mp3"), fixtures::genres().remove(0), fixtures::genres().remove(1));
    for example in Example::all() {
        let files = [text(&broken), "no-such-file.mp3", text(&good)];
        let finished = example.run(&[&["--endpoint", server.endpoint()][..], &files].concat()).expect_code(1);
        let language = example.language;
        let line = format!("{}: INVALID_ARGUMENT AUDIO_UNSUPPORTED: a text file cannot be decoded", files[0]);
        assert!(finished.stderr.contains(&line), "{language}: {}", finished.stderr);
        assert!(finished.stderr.contains("no-such-file.mp3: "), "{language}: {}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 2, "{language}: {}", finished.stderr);
        assert!(finished.stdout.contains(files[2]), "{language}: {}", finished.stdout);

        // What is known already may be answered even so soon.
        let late =
            example.run(&["--endpoint", server.endpoint(), "--timeout", "0.0001", text(&unknown)]).expect_code(1);
        assert!(late.stderr.contains("DEADLINE_EXCEEDED: "), "{language}: {}", late.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_comes_back_when_an_overloaded_server_asks_for_it() {
    let server = Server::start("up", &["--set", "gateway.limits.max_streams_per_caller=1"]).await;
    server.ready().await;
    let client = server.client().await;
    let refusals = || server.metric("chorale_gateway_limits_hit_total").unwrap_or_default();
    for example in Example::all() {
        let mut upload = client.upload(ClassifyOptions::default()).await.unwrap();
        upload.accepted().await.unwrap();
        let (before, language) = (refusals(), example.language);
        let (endpoint, path) = (server.endpoint().to_owned(), fixtures::genres().remove(0));
        let run = move || example.run(&["--endpoint", &endpoint, "--attempts", "20", text(&path)]);
        let running = tokio::task::spawn_blocking(run);
        until("the example is refused", PATIENCE, async || (refusals() > before).then_some(())).await;
        drop(upload);
        let finished = running.await.unwrap().expect_code(0);
        assert!(finished.stdout.contains(" % sure"), "{language}: {}", finished.stdout);
    }
}

/// A way to `server` whose first connection breaks in the middle of an upload.
async fn way_that_breaks_once(server: &str) -> String {
    const BYTES: u64 = 20_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, server) = (listener.local_addr().unwrap(), server.to_owned());
    tokio::spawn(async move {
        for connection in 0.. {
            let Ok((mut caller, _)) = listener.accept().await else { return };
            let mut gateway = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move {
                if connection > 0 {
                    let _ = tokio::io::copy_bidirectional(&mut caller, &mut gateway).await;
                    return;
                }
                let ((upload, mut to_caller), (mut answers, mut to_gateway)) = (caller.split(), gateway.split());
                let mut upload = upload.take(BYTES);
                tokio::select! {
                    _ = tokio::io::copy(&mut upload, &mut to_gateway) => {}
                    _ = tokio::io::copy(&mut answers, &mut to_caller) => {}
                }
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sends_a_track_again_whose_connection_broke() {
    let server = Server::start("up", &[]).await;
    server.ready().await;
    // A file of its own for each: what is known already is not uploaded.
    for (example, path) in Example::all().into_iter().zip(fixtures::genres()) {
        let (endpoint, language) = (way_that_breaks_once(server.address()).await, example.language);
        let run = move || example.run(&["--endpoint", &endpoint, text(&path)]);
        let finished = tokio::task::spawn_blocking(run).await.unwrap().expect_code(0);
        assert!(finished.stdout.contains(" % sure"), "{language}: {}", finished.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tries_again_what_may_help_and_nothing_else() {
    let without_details = [
        Status::unavailable("the connection is refused"),
        Status::cancelled("the stream was reset"),
        Status::internal("the stream was reset"),
        Status::unknown("the connection is closed"),
        Status::resource_exhausted("calm down"),
    ];
    let after = |seconds| ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds)));
    let asked = Duration::from_secs(2);
    let explained = ErrorDetails::with_error_info("A_REASON", "somebody.else", HashMap::new());
    let final_ones = [
        Status::with_error_details(Code::Unavailable, "and will stay so", explained.clone()),
        Status::with_error_details(Code::Internal, "a bug", explained),
        Status::invalid_argument("this will not do"),
        Status::deadline_exceeded("too late"),
        // Later than the caller's deadline.
        Status::with_error_details(Code::Unavailable, "come back in an hour", after(3600)),
    ];
    let asks = Status::with_error_details(Code::ResourceExhausted, "come back", after(asked.as_secs()));
    let again: Vec<Status> = std::iter::once(asks).chain(without_details).collect();
    let endings = again.iter().cloned().flat_map(|status| [Some(status), None]);
    let endings: Vec<_> = endings.chain(final_ones.iter().cloned().map(Some)).collect();
    let file = fixtures::genres().remove(0);
    let files = vec![text(&file).to_owned(); again.len() + final_ones.len()];

    let runs = Example::all().into_iter().map(async |example| {
        let server = StandIn::start(endings.clone()).await;
        let (endpoint, language, files) = (server.endpoint().to_owned(), example.language, files.clone());
        let run = move || {
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            example.run(&[&["--endpoint", &endpoint, "--timeout", "60"][..], &files].concat())
        };
        let finished = tokio::task::spawn_blocking(run).await.unwrap().expect_code(1);
        let (said, calls) = (format!("{language}: {}{}", finished.stdout, finished.stderr), server.calls());
        assert_eq!(finished.stdout.matches(" % sure").count(), again.len(), "{said}");
        assert_eq!(calls.len(), endings.len(), "each is sent again once, or never: {said}");
        assert!(calls[1] - calls[0] >= asked, "not before the server asked for it: {said}");
        for pair in calls[2..2 * again.len()].chunks(2) {
            assert!(pair[1] - pair[0] >= Duration::from_millis(400), "not at once: {said}");
        }
        for status in &final_ones {
            assert!(finished.stderr.contains(status.message()), "{said}");
        }
    });
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_believes_an_authority_and_shows_its_token() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (ca, identity) = (authority.certificate(), authority.issue("server"));
    let callers = folder.path().join("callers.toml");
    let hash = blake3::hash(b"the-token-of-the-studio");
    std::fs::write(&callers, format!("[studio]\ntoken_blake3 = '{hash}'\n")).unwrap();
    let environment = [
        ("CHORALE_GATEWAY__TLS__CERTIFICATE", text(&identity.certificate)),
        ("CHORALE_GATEWAY__TLS__KEY", text(&identity.key)),
        ("CHORALE_GATEWAY__AUTH__CALLERS_FILE", text(&callers)),
    ];
    let server = Server::start_with("up", &[], &environment).await;
    server.ready().await;
    let (stranger, path) = (Authority::new(), fixtures::genres().remove(0));
    let strange = stranger.certificate();
    let arguments = ["--endpoint", server.endpoint(), "--ca", text(&ca), text(&path)];
    for example in Example::all() {
        let with_token = example.run_with(&arguments, &[("CHORALE_TOKEN", "the-token-of-the-studio")]);
        assert!(with_token.expect_code(0).stdout.contains(" % sure"), "{}", example.language);
        let without = example.run(&arguments).expect_code(1);
        assert!(without.stderr.contains(": UNAUTHENTICATED: "), "{}: {}", example.language, without.stderr);
        let arguments = ["--endpoint", server.endpoint(), "--ca", text(&strange), "--attempts", "1", text(&path)];
        assert!(!example.run(&arguments).expect_code(1).stdout.contains(" % sure"), "{}", example.language);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_for_grpcurl_show_every_call() {
    let Some(grpcurl) = Grpcurl::find() else { return };
    let example = Example::grpcurl().with_program(grpcurl.program());
    let server = Server::start("up", &[]).await;
    server.ready().await;
    let path = fixtures::genres().remove(0);
    let verdict = server.client().await.classify(fixtures::read(&path)).await.unwrap();
    let shown = example.run(&[text(&path), server.address()]).expect_code(0).stdout;
    // Headings stand between the answers.
    let json: String = shown.lines().filter(|line| !line.starts_with("==") && !line.starts_with("chorale.")).collect();
    let answers: Vec<Value> = serde_json::Deserializer::from_str(&json).into_iter().map(Result::unwrap).collect();
    let said = |key: &str| answers.iter().filter(|answer| !answer[key].is_null()).collect::<Vec<_>>();
    assert_eq!((said("status").len(), said("model").len(), said("accepted").len()), (1, 1, 1), "{shown}");
    assert_eq!(said("chunkVote").len(), verdict.chunk_count as usize, "{shown}");
    let verdicts = said("verdict");
    assert_eq!(verdicts.len(), 2, "{shown}");
    for answer in verdicts {
        assert_eq!(answer["verdict"]["genre"], verdict.genre);
        assert_eq!(answer["verdict"]["blake3Digest"], base64(&verdict.blake3_digest));
    }

    let refused = example.run(&[text(&fixtures::broken("text.mp3")), server.address()]);
    assert!(refused.code != Some(0) && refused.stderr.contains("AUDIO_UNSUPPORTED"), "{}", refused.stderr);
}
