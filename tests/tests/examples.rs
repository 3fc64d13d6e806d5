//! The examples of clients do what they show: verdicts, votes, errors that a program can decide by, another attempt where the
//! server asks for one, tokens, TLS and deadlines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{path::Path, time::Duration};

use chorale_proto::v1::{ClassifyOptions, Verdict};
use chorale_tests::{
    Authority, Server,
    command::Finished,
    examples::Example,
    fixtures,
    grpcurl::{Grpcurl, base64},
    until,
};
use serde_json::Value;

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
