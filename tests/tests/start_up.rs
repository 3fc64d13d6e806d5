//! A server starts quickly, and only when everything is right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{fs, net::TcpListener, time::Duration};

use chorale_tests::{Server, command, note};

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_cluster_is_ready_in_a_moment() {
    let server = Server::start("up", &[]).await;
    note(format_args!("ready after {:.0?}", server.start_time()));
    assert_eq!(server.readyz().unwrap(), 200);
    assert!(server.metrics().ends_with("# EOF\n"));
    assert!(server.start_time() < Duration::from_secs(5));
}

#[test]
fn an_unknown_key_is_named_before_a_port_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chorale.toml");
    fs::write(&file, "[gateway.cache]\nttll = '1h'\n").unwrap();
    let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for role in ["up", "gateway", "feature", "inference"] {
        let config = ["--config", file.to_str().unwrap()];
        let finished = command::run([role].into_iter().chain(ports).chain(config)).expect_code(2);
        assert_eq!(finished.stdout, "");
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
        assert!(finished.stderr.contains("ttll"), "{}", finished.stderr);
    }
}

#[test]
fn a_wrong_value_is_named_wherever_it_comes_from() {
    let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let arguments = || ["up"].into_iter().chain(ports);
    let variable = |name, value| command::run_with(arguments(), &[(name, value)], &[]);
    let finished = variable("CHORALE_GATEWAY__CACHE__TTL", "often").expect_code(2);
    assert!(finished.stderr.to_lowercase().contains("ttl"), "{}", finished.stderr);
    let finished = variable("CHORALE_GATEWAY__NO_SUCH_KEY", "1").expect_code(2);
    assert!(finished.stderr.contains("no_such_key"), "{}", finished.stderr);
    let finished = command::run(arguments().chain(["--cache-url", "http://nowhere"])).expect_code(2);
    assert!(finished.stderr.contains("redis://"), "{}", finished.stderr);
    let finished = command::run(arguments().chain(["--max-batch", "0"])).expect_code(2);
    assert!(finished.stderr.contains("max_batch"), "{}", finished.stderr);
    let finished = command::run(arguments().chain(["--config", "/no/such/file.toml"])).expect_code(2);
    assert!(finished.stderr.contains("/no/such/file.toml"), "{}", finished.stderr);
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = ["--listen", "--http-listen", "--admin-listen"];
    for taken in flags {
        let flags = flags.into_iter().flat_map(|flag| [flag, if flag == taken { &address } else { "127.0.0.1:0" }]);
        let finished = command::run(["up", "--log-level", "error"].into_iter().chain(flags)).expect_code(1);
        assert_eq!(finished.stdout, "");
        let [line] = finished.stderr.lines().collect::<Vec<_>>()[..] else {
            panic!("expected one line, found {:?}", finished.stderr);
        };
        assert!(line.contains(&address) && line.contains("choose another address"), "{line}");
    }
}
