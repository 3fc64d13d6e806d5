//! Audio that is still being made, over a WebSocket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use bytes::Bytes;
use chorale_tests::{HttpClient, OpenApi, Server, fixtures, sound, until};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};

const PATIENCE: Duration = Duration::from_secs(30);

struct Live(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Live {
    async fn connect(server: &Server, headers: &[(&'static str, &str)]) -> Result<Self, Box<Error>> {
        let url = format!("{}/v1/classify/live", server.http().replace("http://", "ws://"));
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        Ok(Self(connect_async(request).await?.0))
    }

    async fn open(server: &Server, options: Value) -> Self {
        let mut live = Self::connect(server, &[]).await.unwrap();
        live.say(&options.to_string()).await;
        live
    }

    async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn play(&mut self, audio: impl Into<Bytes>) {
        self.0.send(Message::Binary(audio.into())).await.unwrap();
    }

    /// The next event; `None` when the server has closed the socket.
    async fn event(&mut self) -> Option<(String, Value)> {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("the server answers")?.unwrap() {
                Message::Text(text) => {
                    let event: Value = serde_json::from_str(&text).unwrap();
                    return Some((event["event"].as_str().unwrap().to_owned(), event["data"].clone()));
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    async fn until(&mut self, name: &str) -> Value {
        loop {
            let (found, data) = self.event().await.unwrap_or_else(|| panic!("no {name}"));
            if found == name {
                return data;
            }
        }
    }
}

fn refusal(error: Error) -> (u16, Value) {
    let Error::Http(response) = error else { panic!("{error}") };
    (response.status().as_u16(), serde_json::from_slice(response.body().as_ref().unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_classified_while_they_are_made() {
    let server = Server::start("up", &[]).await;
    let description = OpenApi::new(HttpClient::new(server.http()).get("/openapi.json").await.ok());
    let samples = sound::chord(12.0, 9);
    let expected = server.client().await.classify(sound::wav(&samples)).await.unwrap();
    let bytes: Bytes = samples.into_iter().flat_map(i16::to_le_bytes).collect();

    let options = json!({"pcm": "s16le,22050,1", "events": ["chunk_vote", "mel", "envelope", "progress"]});
    description.assert_fits("LiveOptions", &options);
    let mut live = Live::open(&server, options).await;
    let (first, accepted) = live.event().await.unwrap();
    assert!(first == "accepted" && accepted["audio_wanted"] == true);
    for piece in bytes.slice(..bytes.len() / 2).chunks(4_410) {
        live.play(Bytes::copy_from_slice(piece)).await;
    }
    let vote = live.until("chunk_vote").await;
    assert_eq!((vote["index"].as_u64(), vote["mel"].as_str().unwrap().len()), (Some(0), 128 * 96 * 4 / 3));
    live.play(bytes.slice(bytes.len() / 2..)).await;
    live.say("end").await;
    let mut names = vec!["chunk_vote".to_owned()];
    let verdict = loop {
        let (name, data) = live.event().await.unwrap();
        description.assert_fits("LiveEvent", &json!({"event": name, "data": data}));
        if name == "verdict" {
            break data;
        }
        names.push(name);
    };
    assert_eq!(live.event().await, None, "the verdict is the last event");
    assert_eq!(names.iter().filter(|name| *name == "chunk_vote").count(), expected.chunk_count as usize);
    assert!(names.contains(&"envelope".to_owned()));
    assert_eq!((&verdict["genre"], &verdict["duration_seconds"]), (&expected.genre.into(), &12.0.into()));
    assert!(server.metrics().contains("chorale_gateway_calls_total{rpc=\"HttpLive\",code=\"OK\"} 1"));

    // Any file as well.
    let mut live = Live::open(&server, json!({"top_k": 1})).await;
    live.play(fixtures::clip()).await;
    live.say("end").await;
    let verdict = live.until("verdict").await;
    description.assert_fits("Verdict", &verdict);
    assert_eq!(verdict["scores"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_described_is_the_last_event() {
    let limits = ["--set", "gateway.limits.idle_timeout=2s"];
    let server = Server::start("up", &limits).await;
    let failure = async |first: Message, then: Option<Message>| {
        let mut live = Live::connect(&server, &[]).await.unwrap();
        live.0.send(first).await.unwrap();
        if let Some(then) = then {
            // What is too long is not read to its end.
            let _ = tokio::time::timeout(Duration::from_secs(1), live.0.send(then)).await;
        }
        let problem = live.until("error").await;
        assert_eq!(live.event().await, None);
        (problem["reason"].as_str().unwrap().to_owned(), problem)
    };
    let options = || Message::text("{}");
    for first in
        [Message::Binary(Bytes::from_static(b"RIFF")), Message::text("audio, please"), Message::text("{\"x\":1}")]
    {
        assert_eq!(failure(first, None).await.0, "REQUEST_INVALID");
    }
    assert_eq!(failure(options(), Some(Message::text("stop"))).await.0, "REQUEST_INVALID");
    assert_eq!(failure(options(), Some(Message::text("end"))).await.0, "AUDIO_EMPTY");
    let (reason, problem) = failure(options(), Some(Message::Binary(vec![0; (1 << 20) + 1].into()))).await;
    assert_eq!((reason.as_str(), &problem["metadata"]["limit"]), ("LIMIT_EXCEEDED", &"max_message_bytes".into()));
    let (reason, problem) = failure(options(), None).await;
    assert_eq!((reason.as_str(), &problem["metadata"]["limit"]), ("LIMIT_EXCEEDED", &"idle_timeout".into()));
    // Nobody who says nothing at all keeps a place.
    let mut silent = Live::connect(&server, &[]).await.unwrap();
    assert_eq!(silent.until("error").await["metadata"]["limit"], "idle_timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_and_callers_without_a_token_do_not_get_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callers.toml");
    std::fs::write(&file, format!("[studio]\ntoken_blake3 = '{}'\n", blake3::hash(b"sesame"))).unwrap();
    let setting = format!("gateway.auth.callers_file={}", file.to_str().unwrap());
    let server = Server::start("up", &["--set", &setting]).await;
    let token = ("authorization", "Bearer sesame");
    let origin = |origin| ("origin", origin);

    let (status, problem) = refusal(*Live::connect(&server, &[]).await.err().unwrap());
    assert_eq!((status, &problem["reason"]), (401, &"UNAUTHENTICATED".into()));
    let evil = Live::connect(&server, &[token, origin("https://evil.example")]).await.err().unwrap();
    let (status, problem) = refusal(*evil);
    assert_eq!((status, &problem["reason"]), (403, &"ORIGIN_NOT_ALLOWED".into()));
    assert!(Live::connect(&server, &[token, origin(server.http())]).await.is_ok());
    let offered = ("sec-websocket-protocol", "chorale.v1, bearer.sesame");
    assert!(Live::connect(&server, &[offered, origin(server.http())]).await.is_ok());
    assert!(!server.log().contains("sesame"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_is_forgotten_and_one_that_stays_is_waited_for() {
    let mut server = Server::start("up", &[]).await;
    let options = || json!({"pcm": "s16le,22050,1"});
    let bytes: Bytes = sound::chord(10.0, 2).into_iter().flat_map(i16::to_le_bytes).collect();
    let mut gone = Live::open(&server, options()).await;
    gone.play(bytes.slice(..300_000)).await;
    gone.until("chunk_vote").await;
    drop(gone);
    let open = ["chorale_gateway_open_streams", "chorale_feature_open_streams"];
    until("nothing is open", PATIENCE, async || {
        open.iter().all(|metric| server.metric(metric) == Some(0.0)).then_some(())
    })
    .await;

    let mut stays = Live::open(&server, options()).await;
    stays.play(bytes.slice(..300_000)).await;
    stays.until("chunk_vote").await;
    server.terminate();
    let address = server.http().trim_start_matches("http://").to_owned();
    until("new connections are refused", PATIENCE, async || std::net::TcpStream::connect(&address).err()).await;
    stays.play(bytes.slice(300_000..)).await;
    stays.say("end").await;
    assert_eq!(stays.until("verdict").await["duration_seconds"], 10.0);
    drop(stays);
    assert!(server.ended().await.success());
}
