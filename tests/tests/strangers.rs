//! Who may call, and who may listen: TLS on every hop, tokens, and secrets that nobody sees.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chorale_proto::v1::{ClassifyOptions, GetModelRequest};
use chorale_tests::{
    Authority, Identity, Redis, Server, client::reason, command, fixtures, free_port, grpcurl::Grpcurl, until,
    verdict::assert_coherent,
};
use tempfile::TempDir;
use tonic::{Code, Request};

const PATIENCE: Duration = Duration::from_secs(30);

fn genre(name: &str) -> PathBuf {
    fixtures::genres().into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == name)).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The environment of a role that serves over TLS, and asks its callers for a certificate.
fn mutual<'a>(section: &'a [String; 3], identity: &'a Identity, authority: &'a str) -> Vec<(&'a str, &'a str)> {
    let [certificate, key, client_ca] = section;
    vec![
        (certificate.as_str(), text(&identity.certificate)),
        (key.as_str(), text(&identity.key)),
        (client_ca.as_str(), authority),
    ]
}

fn keys(section: &str) -> [String; 3] {
    ["CERTIFICATE", "KEY", "CLIENT_CA"].map(|key| format!("CHORALE_{section}__TLS__{key}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hop_speaks_mutual_tls_and_follows_new_certificates() {
    let authority = Authority::new();
    let ca = authority.certificate();
    let ca = text(&ca);
    let identity = authority.issue("server");
    let (certificate, key) = (text(&identity.certificate), text(&identity.key));

    let section = keys("INFERENCE");
    let inference = Server::start_with("inference", &[], &mutual(&section, &identity, ca)).await;
    assert!(inference.endpoint().starts_with("https://"), "{}", inference.endpoint());
    let section = keys("FEATURE");
    let mut environment = mutual(&section, &identity, ca);
    environment.extend([
        ("CHORALE_FEATURE__INFERENCE_TLS__CA", ca),
        ("CHORALE_FEATURE__INFERENCE_TLS__CERTIFICATE", certificate),
        ("CHORALE_FEATURE__INFERENCE_TLS__KEY", key),
    ]);
    let feature = Server::start_with("feature", &["--inference", inference.endpoint()], &environment).await;
    let section = keys("GATEWAY");
    let mut environment = mutual(&section, &identity, ca);
    environment.extend([
        ("CHORALE_GATEWAY__FEATURE_TLS__CA", ca),
        ("CHORALE_GATEWAY__FEATURE_TLS__CERTIFICATE", certificate),
        ("CHORALE_GATEWAY__FEATURE_TLS__KEY", key),
    ]);
    let gateway = Server::start_with("gateway", &["--feature", feature.endpoint()], &environment).await;
    gateway.ready().await;

    // A caller with a certificate is served; one without, or one who knows another authority, is not.
    let caller = authority.issue("caller");
    let classify = |ca: &str, identity: Option<&Identity>| {
        let path = genre("reggae");
        let mut arguments = vec!["classify", text(&path), "--json", "--endpoint", gateway.endpoint(), "--tls-ca", ca];
        if let Some(Identity { certificate, key }) = identity {
            arguments.extend(["--tls-certificate", text(certificate), "--tls-key", text(key)]);
        }
        command::run(arguments)
    };
    assert_eq!(classify(ca, Some(&caller)).expect_code(0).answers()[0].genre, "reggae");
    let stranger = Authority::new();
    for refused in [
        classify(ca, None),
        classify(ca, Some(&stranger.issue("caller"))),
        classify(text(&stranger.certificate()), Some(&caller)),
    ] {
        assert_ne!(refused.code, Some(0), "{}", refused.stdout);
    }
    assert!(gateway.metric("chorale_gateway_failed_handshakes_total").unwrap() >= 3.0);

    // A client that we did not write.
    if let Some(grpcurl) = Grpcurl::find() {
        let (certificate, key) = (text(&caller.certificate), text(&caller.key));
        let list = ["-cacert", ca, "-cert", certificate, "-key", key, gateway.address(), "list"];
        assert!(grpcurl.run_secure(&list, "").expect_code(0).stdout.contains("chorale.v1.ClassifierService"));
        assert_ne!(grpcurl.run(&[gateway.address(), "list"], "").code, Some(0), "no plain text");
    }

    // A new certificate of a new authority replaces both without a restart.
    let successor = Authority::new();
    let renewed = successor.issue("server");
    for (from, to) in [
        (renewed.certificate, &identity.certificate),
        (renewed.key, &identity.key),
        (successor.certificate(), &authority.certificate()),
    ] {
        std::fs::rename(from, to).unwrap();
    }
    let caller = successor.issue("caller");
    let successor_ca = authority.certificate();
    until("the new certificates are in use", PATIENCE, async || {
        (classify(text(&successor_ca), Some(&caller)).code == Some(0)).then_some(())
    })
    .await;
    assert!(gateway.readyz().unwrap() == 200 && feature.readyz().unwrap() == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_go_over_tls_and_only_to_a_collector_that_is_vouched_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let [certificate, key, _] = keys("INFERENCE");
    let identity = authority.issue("collector");
    let environment = [(certificate.as_str(), text(&identity.certificate)), (key.as_str(), text(&identity.key))];
    // In a collector's place, a role of ours that counts the exports, which it does not know.
    let collector = Server::start_with("inference", &[], &environment).await;
    let exported = || {
        let metrics = collector.metrics();
        let unknown = "chorale_inference_rpcs_total{rpc=\"unknown\",code=\"UNIMPLEMENTED\"} ";
        metrics.lines().any(|line| line.strip_prefix(unknown).is_some_and(|count| count != "0"))
    };
    for (authority, arrive) in [(&stranger, false), (&authority, true)] {
        let ca = authority.certificate();
        let environment = [
            ("CHORALE_TELEMETRY__OTLP_ENDPOINT", collector.endpoint()),
            ("CHORALE_TELEMETRY__OTLP_TLS__CA", text(&ca)),
            ("CHORALE_TELEMETRY__SAMPLE_RATIO", "1"),
        ];
        let mut server = Server::start_with("up", &[], &environment).await;
        server.client().await.classify(fixtures::clip()).await.unwrap();
        // The last spans are sent at the end.
        server.terminate();
        assert!(server.ended().await.success());
        assert_eq!(exported(), arrive);
    }
}

/// A file of callers with their tokens' hashes.
fn callers(folder: &TempDir, entries: &[(&str, &str, &str)]) -> String {
    let entry = |(name, token, more): &(&str, &str, &str)| {
        format!("[{name}]\ntoken_blake3 = '{}'\n{more}\n", blake3::hash(token.as_bytes()))
    };
    let path = folder.path().join("callers.toml");
    // Renamed into place, so that no half of it is ever read.
    let written = folder.path().join("callers.toml.new");
    std::fs::write(&written, entries.iter().map(entry).collect::<String>()).unwrap();
    std::fs::rename(written, &path).unwrap();
    text(&path).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_nobody_is_served_and_each_caller_has_its_own_limit() {
    let folder = tempfile::tempdir().unwrap();
    let file =
        callers(&folder, &[("studio", "token-of-the-studio", "max_streams = 2"), ("radio", "token-of-the-radio", "")]);
    let server = Server::start_with("up", &[], &[("CHORALE_GATEWAY__AUTH__CALLERS_FILE", &file)]).await;
    let stranger = server.client().await;
    for client in [stranger.clone(), stranger.clone().with_token("guessed")] {
        let refusal = client.classify(fixtures::clip()).await.unwrap_err();
        assert_eq!((refusal.code(), reason(&refusal)), (Code::Unauthenticated, "UNAUTHENTICATED".to_owned()));
    }
    let refusal = stranger.rpc.clone().get_model(GetModelRequest {}).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);

    let (studio, radio) =
        (stranger.clone().with_token("token-of-the-studio"), stranger.clone().with_token("token-of-the-radio"));
    let first = studio.classify(fixtures::clip()).await.unwrap();
    assert_coherent(&first);
    assert!(studio.classify(fixtures::clip()).await.unwrap().cached);
    assert!(!radio.classify(fixtures::clip()).await.unwrap().cached, "what others sent is not given away");

    let mut open = Vec::new();
    for _ in 0..2 {
        let mut upload = studio.upload(ClassifyOptions::default()).await.unwrap();
        upload.accepted().await.unwrap();
        open.push(upload);
    }
    let refusal = studio.classify(fixtures::clip()).await.unwrap_err();
    assert_eq!((refusal.code(), reason(&refusal)), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    assert!(refusal.message().contains("2 calls"), "{refusal}");
    assert_coherent(&radio.classify(fixtures::clip()).await.unwrap());
    let hit = "chorale_gateway_limits_hit_total{limit=\"max_streams_per_caller\"} 1";
    assert!(server.metrics().contains(hit), "{}", server.metrics());
    drop(open);
    let mut request = Request::new(GetModelRequest {});
    request.metadata_mut().insert("authorization", "Bearer token-of-the-studio".parse().unwrap());
    let limits = stranger.rpc.clone().get_model(request).await.unwrap().into_inner().limits.unwrap();
    assert_eq!(limits.max_streams_per_caller, 2);

    // Tokens come and go without a restart.
    callers(&folder, &[("radio", "token-of-the-radio", "")]);
    until("the studio's token is not good any more", PATIENCE, async || {
        studio
            .classify(fixtures::clip())
            .await
            .is_err_and(|status| status.code() == Code::Unauthenticated)
            .then_some(())
    })
    .await;
    assert!(radio.classify(fixtures::clip()).await.is_ok());

    let log = server.log();
    assert!(log.contains("token:studio") && log.contains("token:radio"), "calls are logged by caller");
    assert!(!log.contains("token-of-the") && !log.contains("guessed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_makes_tokens_and_sends_them() {
    let made = command::run(["token", "studio"]).expect_code(0);
    let token = made.stdout.trim();
    assert!(token.len() == 64 && !made.stderr.contains(token), "{}", made.stderr);
    let entry = &made.stderr[made.stderr.find("[\"studio\"]").unwrap()..];
    let entry = &entry[..entry.find("\n\n").unwrap()];

    let folder = tempfile::tempdir().unwrap();
    let (file, token_file) = (folder.path().join("callers.toml"), folder.path().join("token"));
    std::fs::write(&file, entry).unwrap();
    std::fs::write(&token_file, token).unwrap();
    let server = Server::start("up", &["--set", &format!("gateway.auth.callers_file={}", text(&file))]).await;
    let path = genre("jazz");
    let arguments = ["classify", text(&path), "--json", "--endpoint", server.endpoint()];
    let refused = command::run(arguments);
    assert_eq!(refused.json_lines().1[0].error.code, "UNAUTHENTICATED");
    let with_file = [&arguments[..], &["--token-file", text(&token_file)]].concat();
    assert_eq!(command::run(with_file).expect_code(0).answers().len(), 1);
    let with_variable = command::run_with(arguments, &[("CHORALE_TOKEN", token)], &[]);
    assert_eq!(with_variable.expect_code(0).answers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_reached_over_tls_with_a_user_and_a_password_from_a_file() {
    let authority = Authority::new();
    let (ca, identity) = (authority.certificate(), authority.issue("redis"));
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let Some(_redis) = Redis::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        text(&identity.certificate),
        "--tls-key-file",
        text(&identity.key),
        "--tls-ca-cert-file",
        text(&ca),
        "--user",
        "default",
        "off",
        "--user",
        "chorale",
        "on",
        ">the-password-of-redis",
        "~chorale:*",
        "+getrange",
        "+set",
        "+client",
        "+hello",
        "+ping",
    ])
    .await
    else {
        return;
    };
    let password = folder.path().join("password");
    std::fs::write(&password, "the-password-of-redis\n").unwrap();
    let caller = authority.issue("gateway");
    let server = Server::start_with(
        "up",
        &["--cache-url", &format!("rediss://chorale@127.0.0.1:{port}"), "--log-level", "debug"],
        &[
            ("CHORALE_GATEWAY__CACHE__PASSWORD_FILE", text(&password)),
            ("CHORALE_GATEWAY__CACHE__TIMEOUT", "5s"),
            ("CHORALE_GATEWAY__CACHE__TLS__CA", text(&ca)),
            ("CHORALE_GATEWAY__CACHE__TLS__CERTIFICATE", text(&caller.certificate)),
            ("CHORALE_GATEWAY__CACHE__TLS__KEY", text(&caller.key)),
        ],
    )
    .await;
    let client = server.client().await;
    client.classify(fixtures::clip()).await.unwrap();
    until("the verdict comes from Redis", PATIENCE, async || {
        client.classify(fixtures::clip()).await.unwrap();
        server.metrics().contains("backend=\"redis\",result=\"hit\"").then_some(())
    })
    .await;
    assert!(!server.log().contains("the-password-of-redis"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_are_named_before_a_port_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n").unwrap();
    let authority = Authority::new();
    let identity = authority.issue("server");
    let (certificate, missing) = (text(&identity.certificate), folder.path().join("missing.pem"));
    for (settings, named) in [
        (
            vec![format!("gateway.tls.certificate={certificate}"), format!("gateway.tls.key={}", text(&missing))],
            "missing.pem",
        ),
        (
            vec![format!("gateway.tls.certificate={certificate}"), format!("gateway.tls.key={}", text(&key))],
            "server.pem",
        ),
        (vec![format!("gateway.auth.callers_file={}", text(&key))], "gateway.auth"),
        (vec!["gateway.tls.certificate=x".to_owned()], "key"),
        (vec!["gateway.limits.max_streams_per_caller=0".to_owned()], "max_streams_per_caller"),
    ] {
        let mut arguments = vec!["gateway", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let refused = command::run(arguments);
        assert_ne!(refused.code, Some(0));
        assert!(refused.stderr.contains(named) && !refused.stderr.contains("c2VjcmV0"), "{}", refused.stderr);
        assert!(!refused.stdout.contains("listening"), "{}", refused.stdout);
    }
}
