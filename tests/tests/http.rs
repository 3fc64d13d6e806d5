//! The gateway over HTTP: the same answers, limits and errors as over gRPC.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chorale_proto::v1::{
    ClassifyOptions, ClassifyRequest, ClassifyResponse, EventKind, Verdict, classify_stream_response::Event,
};
use chorale_tests::{
    Authority, HttpClient, OpenApi, Server, command, fixtures, http,
    http::{form, pieces},
    skip_without_tool, sound, until,
};
use prost::Message;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster, and a caller of it over HTTP.
async fn start(arguments: &[&str]) -> (Server, HttpClient, OpenApi) {
    let server = Server::start("up", arguments).await;
    let client = HttpClient::new(server.http());
    let description = OpenApi::new(client.get("/openapi.json").await.ok());
    (server, client, description)
}

/// Fails the test unless `json` is what `verdict` says.
fn assert_same(json: &Value, verdict: &Verdict) {
    assert_eq!(json["genre"], verdict.genre);
    assert_eq!(json["chunk_count"], verdict.chunk_count);
    assert_close(&json["duration_seconds"], verdict.duration_seconds);
    assert_eq!(json["model_version"], verdict.model_version);
    let digest = <[u8; 32]>::try_from(verdict.blake3_digest.as_ref()).unwrap();
    assert_eq!(json["blake3_digest"], blake3::Hash::from(digest).to_string());
    assert_eq!(json["scores"].as_array().unwrap().len(), verdict.scores.len());
    for (json, score) in json["scores"].as_array().unwrap().iter().zip(&verdict.scores) {
        assert_eq!((&json["genre"], &json["votes"]), (&score.genre.clone().into(), &score.votes.into()));
        assert_close(&json["probability"], score.probability);
    }
    let segments = json["segments"].as_array().unwrap();
    assert_eq!(segments.len(), verdict.segments.len());
    for (json, segment) in segments.iter().zip(&verdict.segments) {
        assert_eq!(
            (&json["genre"], &json["chunk_count"]),
            (&segment.genre.clone().into(), &segment.chunk_count.into())
        );
        assert_close(&json["start_seconds"], segment.start_seconds);
        assert_close(&json["end_seconds"], segment.end_seconds);
        assert_close(&json["confidence"], segment.confidence);
    }
}

fn assert_close(json: &Value, expected: f64) {
    let found = json.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

fn data<'a>(events: &'a [(String, Value)], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|(found, _)| found == name).map(|(_, data)| data).collect()
}

fn genre(name: &str) -> PathBuf {
    fixtures::genres().into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == name)).unwrap()
}

/// The cells of every chunk of a file, as the tool writes them.
fn features(path: &Path) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("chunks.npy");
    command::run(["features", path.to_str().unwrap(), "--out", out.to_str().unwrap()]).expect_code(0);
    let array = npyz::NpyFile::new(std::io::BufReader::new(std::fs::File::open(out).unwrap())).unwrap();
    let cells: Vec<u8> = array.into_vec().unwrap();
    cells.chunks(128 * 96).map(<[u8]>::to_vec).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_or_a_form_gets_the_verdict_that_grpc_gets() {
    let (server, client, description) = start(&[]).await;
    let audio = fixtures::clip();
    let expected = server.client().await.classify(audio.clone()).await.unwrap();

    let path = "/v1/classify?bypass_cache=true";
    let raw = client.post(path, &[("content-type", "audio/mpeg")], audio.clone()).await;
    assert_eq!(raw.header("x-request-id").len(), 32);
    let raw = raw.ok();
    assert_same(&raw, &expected);
    assert_eq!(raw["audio_format"]["codec"], expected.audio_format.as_ref().unwrap().codec);
    let (content_type, body) = form(&[("audio", &audio)]);
    let multipart = client.post(path, &[("content-type", &content_type)], body).await.ok();
    assert_same(&multipart, &expected);
    // Without a length, in pieces.
    let streamed = client.post(path, &[], Body::from_stream(pieces(&audio, 1_000))).await.ok();
    assert_same(&streamed, &expected);
    assert!(!raw["cached"].as_bool().unwrap() && !multipart["cached"].as_bool().unwrap());

    let cached = client.post("/v1/classify?top_k=2", &[], audio.clone()).await.ok();
    assert!(cached["cached"].as_bool().unwrap(), "gRPC has left it in the cache");
    assert_eq!(cached["scores"].as_array().unwrap().len(), 2);
    let digest = cached["blake3_digest"].as_str().unwrap();
    let known = client.post(&format!("/v1/classify?blake3_digest={digest}"), &[], Body::empty()).await.ok();
    assert!(known["cached"].as_bool().unwrap(), "nothing needs to be sent");

    let samples: Vec<u8> = sound::chord(8.0, 5).into_iter().flat_map(i16::to_le_bytes).collect();
    let wav = server.client().await.classify(sound::wav(&sound::chord(8.0, 5))).await.unwrap();
    let pcm = client.post("/v1/classify?pcm=s16le,22050,1", &[], samples).await.ok();
    assert_eq!((&pcm["genre"], &pcm["chunk_count"]), (&wav.genre.into(), &wav.chunk_count.into()));
    for verdict in [&raw, &multipart, &cached, &pcm] {
        description.assert_fits("Verdict", verdict);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_all_that_the_network_heard() {
    let (server, client, description) = start(&[]).await;
    // Its genre changes twice.
    let path = genre("reggae");
    let audio = fixtures::read(&path);
    let verdict = server.client().await.classify(audio.clone()).await.unwrap();
    assert_eq!(verdict.segments.len(), 3);

    let plain = client.events("/v1/classify", audio.clone()).await;
    assert_eq!(plain.headers["cache-control"], "no-store");
    assert_eq!(names(&plain.all().await), ["accepted", "progress", "verdict"], "it is in the cache");

    let events = client.events("/v1/classify?events=mel,envelope,progress", audio.clone()).await.all().await;
    assert_eq!((events.first().unwrap().0.as_str(), events.last().unwrap().0.as_str()), ("accepted", "verdict"));
    assert_same(&events.last().unwrap().1, &verdict);
    assert_eq!(events.last().unwrap().1["cached"], false, "chunks are not in the cache");
    let votes = data(&events, "chunk_vote");
    let indices: Vec<_> = votes.iter().map(|vote| vote["index"].as_u64().unwrap()).collect();
    assert!(indices.iter().copied().eq(0..u64::from(verdict.chunk_count)), "{indices:?}");
    let expected = features(&path);
    assert_eq!(votes.len(), expected.len());
    for (vote, cells) in votes.iter().zip(&expected) {
        assert_eq!(&STANDARD.decode(vote["mel"].as_str().unwrap()).unwrap(), cells, "{}", vote["index"]);
        let genre = vote["genre"].as_str().unwrap();
        let probabilities = vote["probabilities"].as_object().unwrap();
        assert!(probabilities.values().all(|other| other.as_f64() <= probabilities[genre].as_f64()), "{vote}");
    }

    let mut end = 0.0;
    for envelope in data(&events, "envelope") {
        assert!((envelope["start_seconds"].as_f64().unwrap() - end).abs() < 1e-6, "no gap, and nothing twice");
        let (minima, maxima) = (envelope["minima"].as_array().unwrap(), envelope["maxima"].as_array().unwrap());
        assert!(minima.iter().zip(maxima).all(|(lowest, highest)| lowest.as_f64() <= highest.as_f64()));
        end += envelope["span_seconds"].as_f64().unwrap() * minima.len() as f64;
    }
    assert!((end - verdict.duration_seconds).abs() < 0.2, "{end} of {} s", verdict.duration_seconds);
    for (name, schema) in [
        ("accepted", "Accepted"),
        ("chunk_vote", "ChunkVote"),
        ("envelope", "Envelope"),
        ("progress", "Progress"),
        ("verdict", "Verdict"),
    ] {
        let found = data(&events, name);
        assert!(!found.is_empty(), "no {name}");
        found.iter().for_each(|data| description.assert_fits(schema, data));
    }
    // What was computed for its chunks answers others, too.
    let other = fixtures::read(&genre("rock"));
    let heard = client.events("/v1/classify?events=envelope", other.clone()).await.all().await;
    assert_eq!(data(&heard, "chunk_vote").len(), 0);
    until("the verdict is in the cache", PATIENCE, async || {
        let again = client.post("/v1/classify", &[], other.clone()).await.ok();
        again["cached"].as_bool().unwrap().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_has_the_same_events() {
    let server = Server::start("up", &[]).await;
    let audio = fixtures::clip();
    let kinds = [EventKind::Mel, EventKind::Envelope];
    let options = ClassifyOptions { events: kinds.map(Into::into).to_vec(), ..ClassifyOptions::default() };
    let (mut votes, mut spans) = (Vec::new(), 0);
    let mut upload = server.client().await.upload(options).await.unwrap();
    upload.send(audio).await;
    upload.close();
    while let Some(event) = upload.event().await.unwrap() {
        match event {
            Event::ChunkVote(vote) => votes.push(vote.mel.to_vec()),
            Event::Envelope(envelope) => spans += envelope.minima.len(),
            Event::Verdict(verdict) => assert!((spans as f64 * 0.1 - verdict.duration_seconds).abs() < 0.2),
            _ => {}
        }
    }
    let clip = fixtures::formats().into_iter().find(|path| path.ends_with("clip.mp3")).unwrap();
    assert_eq!(votes, features(&clip));
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_come_while_the_track_is_still_being_sent() {
    let (server, client, _) = start(&[]).await;
    let track = sound::wav(&sound::chord(20.0, 3));
    let (upload, body) = http::upload();
    let first = track.slice(..track.len() / 2);
    let sending = tokio::spawn(async move {
        upload.send(Ok(first)).await.unwrap();
        upload
    });
    let mut events = client.events("/v1/classify", body).await;
    while events.next().await.unwrap().0 != "chunk_vote" {}
    assert_eq!(server.metric("chorale_gateway_open_streams"), Some(1.0));
    let upload = sending.await.unwrap();
    upload.send(Ok(track.slice(track.len() / 2..))).await.unwrap();
    drop(upload);
    let rest = events.all().await;
    assert_eq!(rest.last().unwrap().0, "verdict");
    assert_close(&rest.last().unwrap().1["duration_seconds"], 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_with_the_status_that_fits() {
    let limits = ["--set", "gateway.limits.max_audio_bytes=1MiB", "--set", "gateway.limits.max_duration=20s"];
    let (_server, client, description) = start(&limits).await;
    let text = [("content-type", "text/plain")];
    let post = async |query: &str, headers: &[(&str, &str)], body: Bytes| {
        client.post(&format!("/v1/classify{query}"), headers, body).await
    };
    let clip = fixtures::clip();
    let (title, with_title) = form(&[("title", b"x"), ("audio", &clip)]);
    let (plain, without_audio) = form(&[]);
    let long = sound::wav(&sound::chord(21.0, 1));
    let problems = [
        post("", &[], Bytes::new()).await.problem(400, "AUDIO_EMPTY"),
        post("", &text, Bytes::from_static(&[b'x'; 4_000])).await.problem(415, "AUDIO_UNSUPPORTED"),
        post("", &[("content-type", "application/json")], Bytes::from_static(b"{}"))
            .await
            .problem(415, "AUDIO_UNSUPPORTED"),
        post("", &[], sound::wav(&sound::chord(0.5, 1))).await.problem(422, "AUDIO_TOO_SHORT"),
        post(&format!("?blake3_digest={}", blake3::hash(b"")), &[], clip.clone()).await.problem(422, "DIGEST_MISMATCH"),
        post("?genre=jazz", &[], clip.clone()).await.problem(400, "REQUEST_INVALID"),
        post("?pcm=s16le,0,1", &[], clip.clone()).await.problem(400, "REQUEST_INVALID"),
        post("", &[("content-type", &title)], with_title.into()).await.problem(400, "REQUEST_INVALID"),
        post("", &[("content-type", &plain)], without_audio.into()).await.problem(400, "REQUEST_INVALID"),
        post("?model_version=none", &[], clip.clone()).await.problem(404, "MODEL_UNKNOWN"),
        post("", &[], long).await.problem(413, "LIMIT_EXCEEDED"),
        client.get("/v2/classify").await.problem(404, "NOT_FOUND"),
        client.get("/v1/classify").await.problem(405, "METHOD_NOT_ALLOWED"),
        client.get("/v1/classify/live").await.problem(400, "REQUEST_INVALID"),
    ];
    for problem in &problems {
        description.assert_fits("Problem", problem);
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    let field = |index: usize| problems[index]["field"].as_str().unwrap();
    assert_eq!([field(5), field(6), field(7), field(8)], ["genre", "pcm.sample_rate", "audio", "audio"]);
    assert!(problems[7]["detail"].as_str().unwrap().contains("\"title\""), "{}", problems[7]);
    assert_eq!(problems[10]["metadata"]["limit"], "max_duration_seconds");
    assert_eq!(client.get("/v1/classify").await.header("allow"), "POST");

    // A body that is too long is refused by what it says of itself, and else when it is.
    let too_long = vec![0_u8; (1 << 20) + 1];
    let announced = client.post("/v1/classify", &[], too_long.clone()).await.problem(413, "LIMIT_EXCEEDED");
    let streamed = Body::from_stream(pieces(&too_long.into(), 64 * 1024));
    let found = client.post("/v1/classify?pcm=u8,192000,1", &[], streamed).await.problem(413, "LIMIT_EXCEEDED");
    assert_eq!(
        (&announced["metadata"], &announced["metadata"]["limit"]),
        (&found["metadata"], &"max_audio_bytes".into())
    );

    // Errors that come later are events.
    let (upload, body) = http::upload();
    upload.send(Ok(sound::wav(&sound::chord(6.0, 1)))).await.unwrap();
    let mut events = client.events("/v1/classify?timeout=3s", body).await;
    let last = loop {
        let (name, data) = events.next().await.unwrap();
        if name == "error" {
            break data;
        }
    };
    assert_eq!((&last["reason"], &last["status"]), (&"DEADLINE_EXCEEDED".into(), &504.into()));
    assert!(events.next().await.is_none());
    drop(upload);
    let (upload, body) = http::upload();
    upload.send(Ok(sound::wav(&sound::chord(6.0, 1)))).await.unwrap();
    let late = client.post("/v1/classify?timeout=500ms", &[], body).await;
    let _ = late.problem(504, "DEADLINE_EXCEEDED");
    drop(upload);
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_is_that_of_grpc() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callers.toml");
    std::fs::write(&file, format!("[studio]\ntoken_blake3 = '{}'\nmax_streams = 1\n", blake3::hash(b"sesame")))
        .unwrap();
    let setting = format!("gateway.auth.callers_file={}", file.to_str().unwrap());
    let (server, client, _) = start(&["--set", &setting]).await;
    let token = [("authorization", "Bearer sesame")];

    let stranger = client.post("/v1/classify", &[], fixtures::clip()).await;
    let _ = stranger.problem(401, "UNAUTHENTICATED");
    assert_eq!(stranger.header("www-authenticate"), "Bearer");
    let _ = client.get("/v1/model").await.problem(401, "UNAUTHENTICATED");
    assert_eq!(client.get("/").await.status, 200, "the page itself is no secret");
    let model = client.send(axum::http::Method::GET, "/v1/model", &token, Body::empty()).await.ok();
    assert_eq!(model["limits"]["max_streams_per_caller"], 1);

    let (upload, body) = http::upload();
    upload.send(Ok(fixtures::clip().slice(..1_000))).await.unwrap();
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.post("/v1/classify", &token, body).await }
    });
    until("the first call is open", PATIENCE, async || {
        (server.metric("chorale_gateway_open_streams")? == 1.0).then_some(())
    })
    .await;
    let second = client.post("/v1/classify", &token, fixtures::clip()).await;
    let problem = second.problem(429, "OVERLOADED");
    assert_eq!((second.header("retry-after"), &problem["metadata"]["limit"]), ("1", &"max_streams_per_caller".into()));
    upload.send(Ok(fixtures::clip().slice(1_000..))).await.unwrap();
    drop(upload);
    let _ = first.await.unwrap().ok();

    let log = server.log();
    assert!(log.contains("token:studio") && log.contains("HttpClassify") && !log.contains("sesame"), "{log}");
    let counted = |code: &str| format!("chorale_gateway_calls_total{{rpc=\"HttpClassify\",code=\"{code}\"}} 1");
    for code in ["OK", "UNAUTHENTICATED", "OVERLOADED"] {
        assert!(server.metrics().contains(&counted(code)), "{code}: {}", server.metrics());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_away_leave_nothing_behind() {
    let (server, client, _) = start(&[]).await;
    let track = sound::wav(&sound::chord(10.0, 1));
    let half = track.slice(..track.len() * 2 / 3);
    let (upload, body) = http::upload();
    upload.send(Ok(half.clone())).await.unwrap();
    let mut events = client.events("/v1/classify", body).await;
    while events.next().await.unwrap().0 != "chunk_vote" {}
    let (other_upload, body) = http::upload();
    other_upload.send(Ok(half)).await.unwrap();
    let json = tokio::spawn({
        let client = client.clone();
        async move { client.post("/v1/classify", &[], body).await }
    });
    let open = ["chorale_gateway_open_streams", "chorale_feature_open_streams"];
    let all_are = |count: f64| open.iter().all(|metric| server.metric(metric) == Some(count));
    until("both calls are open", PATIENCE, async || all_are(2.0).then_some(())).await;
    drop(events);
    json.abort();
    until("nothing is open", PATIENCE, async || all_are(0.0).then_some(())).await;
    drop((upload, other_upload));
    let cancelled = "chorale_gateway_calls_total{rpc=\"HttpClassify\",code=\"CANCELLED\"} 2";
    assert!(server.metrics().contains(cancelled), "{}", server.metrics());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_connection_up_loses_it() {
    let settings = ["gateway.http.header_timeout=300ms", "gateway.limits.idle_timeout=1s"];
    let (server, client, _) = start(&["--set", settings[0], "--set", settings[1]]).await;
    let address = server.http().trim_start_matches("http://").to_owned();
    let ask = |sent: &'static [u8]| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(sent).unwrap();
        let mut answer = Vec::new();
        // Ends before the patience does.
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert_eq!(ask(b"").split(' ').nth(1).unwrap_or("408"), "408");
    assert_eq!(ask(b"POST /v1/classify HTTP/1.1\r\nhost: a\r\nx-slow: ").split(' ').nth(1).unwrap_or("408"), "408");
    let stalled = ask(b"POST /v1/classify HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\nRIFF");
    assert!(stalled.starts_with("HTTP/1.1 408") && stalled.contains("idle_timeout"), "{stalled}");
    let head = [b"GET / HTTP/1.1\r\nhost: a\r\nx-long: ".as_slice(), &[b'a'; 300_000], b"\r\n\r\n"].concat();
    let mut stream = TcpStream::connect(&address).unwrap();
    // It may be refused before it was sent.
    let _ = stream.write_all(&head);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    let _ = client.post("/v1/classify", &[], fixtures::clip()).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_what_a_page_may_do() {
    let site = "https://music.example";
    let allowed = format!("gateway.http.allowed_origins=[\"{site}\"]");
    let (_server, client, _) = start(&["--set", &allowed]).await;
    let page = client.get("/").await;
    assert!(page.status == 200 && page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert!(page.header("permissions-policy").contains("microphone=(self)"));
    let known = [("if-none-match", page.header("etag"))];
    let again = client.send(axum::http::Method::GET, "/", &known, Body::empty()).await;
    assert_eq!((again.status, again.body.len(), again.header("cache-control")), (304, 0, "no-cache"));
    for path in ["/page.js", "/page.css", "/docs", "/docs.js"] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }

    let model = async |origin: &str| {
        client.send(axum::http::Method::GET, "/v1/model", &[("origin", origin)], Body::empty()).await
    };
    let _ = model("https://evil.example").await.problem(403, "ORIGIN_NOT_ALLOWED");
    let _ = model("null").await.problem(403, "ORIGIN_NOT_ALLOWED");
    let theirs = model(site).await;
    assert_eq!((theirs.status, theirs.header("access-control-allow-origin")), (200, site));
    assert_eq!(theirs.header("vary"), "origin", "no cache between gives it to another site");
    let asked = [("origin", site), ("access-control-request-method", "POST")];
    let preflight = client.send(axum::http::Method::OPTIONS, "/v1/classify", &asked, Body::empty()).await;
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-headers").contains("authorization"));
    assert_eq!(client.get("/v1/model").await.header("access-control-allow-origin"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_described_as_over_grpc() {
    let (server, client, description) = start(&[]).await;
    let found = client.get("/v1/model").await.ok();
    description.assert_fits("Description", &found);
    let model = server.client().await.rpc.get_model(chorale_proto::v1::GetModelRequest {}).await.unwrap().into_inner();
    let expected = model.model.unwrap();
    assert_eq!(
        (&found["model"]["version"], &found["model"]["name"]),
        (&expected.version.into(), &expected.name.into())
    );
    assert_eq!(found["model"]["labels"].as_array().unwrap().len(), expected.labels.len());
    assert_eq!(found["limits"]["max_audio_bytes"], model.limits.unwrap().max_audio_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_calls_the_same_service() {
    let (server, client, _) = start(&[]).await;
    let audio = fixtures::clip();
    let expected = server.client().await.classify(audio.clone()).await.unwrap();
    let message = ClassifyRequest { options: None, audio }.encode_to_vec();
    let frame = [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
    let headers = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
    let path = "/chorale.v1.ClassifierService/Classify";
    let answer = client.post(path, &headers, frame).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc-web+proto"));
    let length = u32::from_be_bytes(answer.body[1..5].try_into().unwrap()) as usize;
    let response = ClassifyResponse::decode(&answer.body[5..5 + length]).unwrap();
    chorale_tests::verdict::assert_same(&response.verdict.unwrap(), &expected);
    let trailers = String::from_utf8_lossy(&answer.body[5 + length..]).into_owned();
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
    assert_eq!(answer.header("x-request-id").len(), 32);
    assert_eq!(client.post(path, &[("content-type", "application/grpc")], Body::empty()).await.status, 400);
}

/// Runs a client that we did not write. `None`, with a message, if it is not there.
fn curl(arguments: &[&str]) -> Option<command::Finished> {
    let mut curl = Command::new("curl");
    if Command::new("curl").arg("--version").output().is_err() {
        skip_without_tool("curl", "apt-get install curl");
        return None;
    }
    curl.args(["--silent", "--show-error", "--max-time", "60"]).args(arguments);
    Some(command::finish(curl, b""))
}

#[tokio::test(flavor = "multi_thread")]
async fn over_mutual_tls_it_is_the_same_gateway() {
    let authority = Authority::new();
    let (server, caller) = (authority.issue("server"), authority.issue("caller"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let ca = text(&authority.certificate());
    let server = Server::start_with(
        "up",
        &[],
        &[
            ("CHORALE_GATEWAY__TLS__CERTIFICATE", &text(&server.certificate)),
            ("CHORALE_GATEWAY__TLS__KEY", &text(&server.key)),
            ("CHORALE_GATEWAY__TLS__CLIENT_CA", &ca),
        ],
    )
    .await;
    assert!(server.http().starts_with("https://"), "{}", server.http());
    let (url, audio) = (format!("{}/v1/classify", server.http()), format!("@{}", text(&genre("jazz"))));
    let (certificate, key) = (text(&caller.certificate), text(&caller.key));
    let known = ["--cacert", &ca, "--cert", &certificate, "--key", &key, "--data-binary", &audio, &url];
    let Some(answer) = curl(&known) else { return };
    let verdict: Value = serde_json::from_str(&answer.expect_code(0).stdout).unwrap();
    assert_eq!(verdict["genre"], "jazz");
    assert!(server.log().contains("\"caller\":\"certificate:"), "who shows a certificate is known by it");
    assert_ne!(curl(&["--cacert", &ca, &url]).unwrap().code, Some(0), "nobody else gets in");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_has_every_path_and_its_examples_work() {
    let (server, client, description) = start(&[]).await;
    for (path, methods) in description.json()["paths"].as_object().unwrap() {
        if methods.get("get").is_some() && path != "/v1/classify/live" {
            assert_eq!(client.get(path).await.status, 200, "{path}");
        }
    }
    let examples = description.json()["paths"]["/v1/classify"]["post"]["x-examples"].as_array().unwrap();
    let audio = genre("jazz");
    for example in examples {
        let line = example["curl"].as_str().unwrap();
        // Those that are a line of curl alone.
        let Some(arguments) = line.strip_prefix("curl ").filter(|line| !line.contains('$')) else { continue };
        let arguments = arguments.replace("ORIGIN", server.http()).replace("song.mp3", audio.to_str().unwrap());
        let arguments = arguments.replace("'accept: text/event-stream'", "accept:text/event-stream").replace('\'', "");
        let arguments: Vec<_> = arguments.split(' ').collect();
        let Some(answer) = curl(&arguments) else { return };
        assert!(answer.expect_code(0).stdout.contains("\"genre\":\"jazz\",\"confidence\""), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_ends_with_its_verdict_and_new_ones_are_refused() {
    let mut server = Server::start("up", &[]).await;
    let client = HttpClient::new(server.http());
    let track = sound::wav(&sound::chord(12.0, 7));
    let (upload, body) = http::upload();
    upload.send(Ok(track.slice(..track.len() / 2))).await.unwrap();
    let mut events = client.events("/v1/classify", body).await;
    while events.next().await.unwrap().0 != "chunk_vote" {}
    server.terminate();
    let address = server.http().trim_start_matches("http://").to_owned();
    until("new connections are refused", PATIENCE, async || TcpStream::connect(&address).err()).await;
    upload.send(Ok(track.slice(track.len() / 2..))).await.unwrap();
    drop(upload);
    assert_eq!(events.all().await.last().unwrap().0, "verdict");
    assert!(server.ended().await.success());
}
