//! A caller of the gateway over HTTP, at the pace of a test.

use std::{pin::Pin, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, Method, Request, StatusCode},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

/// Generous: the machine may be building something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A caller with connections of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: Client<HttpConnector, Body>,
    endpoint: String,
}

/// What came back, as a whole.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Server-sent events as they come. Dropping it goes away.
pub struct HttpEvents {
    /// The headers.
    pub headers: HeaderMap,
    body: Pin<Box<BodyDataStream>>,
    text: String,
}

/// The other end of a request's body. Dropping it ends the body.
pub type HttpUpload = mpsc::Sender<Result<Bytes, std::io::Error>>;

impl HttpClient {
    /// A caller of `endpoint`, `http://host:port`.
    #[must_use]
    pub fn new(endpoint: &str) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), endpoint: endpoint.to_owned() }
    }

    /// Gets `path`.
    pub async fn get(&self, path: &str) -> HttpAnswer {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    /// Posts `body` to `path`.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> HttpAnswer {
        self.send(Method::POST, path, headers, body.into()).await
    }

    /// Sends a request, and waits for all of the answer.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> HttpAnswer {
        let (status, headers, body) = self.begin(method, path, headers, body).await;
        let body = timeout(PATIENCE, axum::body::to_bytes(body, usize::MAX)).await.expect("the answer ends");
        HttpAnswer { status: status.as_u16(), headers, body: body.expect("the answer arrives") }
    }

    /// Posts `body` to `path`, for events.
    pub async fn events(&self, path: &str, body: impl Into<Body>) -> HttpEvents {
        let headers = [("accept", "text/event-stream")];
        let (status, headers, body) = self.begin(Method::POST, path, &headers, body.into()).await;
        assert_eq!(
            (status, &headers["content-type"]),
            (StatusCode::OK, &"text/event-stream".parse().expect("a value"))
        );
        HttpEvents { headers, body: Box::pin(body.into_data_stream()), text: String::new() }
    }

    async fn begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> (StatusCode, HeaderMap, Body) {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = self.client.request(request.body(body).expect("a request"));
        let response =
            timeout(PATIENCE, request).await.expect("the server answers").expect("the server takes the request");
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, Body::new(body))
    }
}

/// A body that the test feeds itself.
pub fn upload() -> (HttpUpload, Body) {
    let (pieces, body) = mpsc::channel(1);
    (pieces, Body::from_stream(ReceiverStream::new(body)))
}

impl HttpAnswer {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The same, of an answer that is a success.
    #[must_use]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The problem that it is, with the status that it has as well.
    #[must_use]
    pub fn problem(&self, status: u16, reason: &str) -> Value {
        let problem = self.json();
        assert_eq!((self.status, problem["reason"].as_str()), (status, Some(reason)), "{problem}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(problem["status"], status);
        problem
    }

    /// A header; empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl HttpEvents {
    /// The next event, its name and its data; `None` at the end.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let found = line("event:").zip(line("data:"));
                let found = found.map(|(name, data)| (name.to_owned(), serde_json::from_str(data).expect("JSON")));
                self.text = rest.to_owned();
                match found {
                    Some(found) => return Some(found),
                    // A comment.
                    None => continue,
                }
            }
            let piece = timeout(PATIENCE, self.body.next()).await.expect("events come")?.expect("events arrive");
            self.text.push_str(std::str::from_utf8(&piece).expect("text"));
        }
    }

    /// All that are left.
    pub async fn all(mut self) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// A body of one form with these parts.
#[must_use]
pub fn form(parts: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    const BOUNDARY: &str = "----a-boundary-that-no-audio-has";
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"a\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={BOUNDARY}"), body)
}

/// Pieces of `audio`, one after the other.
pub fn pieces(audio: &Bytes, each: usize) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + use<> {
    let starts = (0..audio.len()).step_by(each);
    let pieces: Vec<_> = starts.map(|start| Ok(audio.slice(start..audio.len().min(start + each)))).collect();
    futures::stream::iter(pieces)
}
