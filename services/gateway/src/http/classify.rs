//! `POST /v1/classify`: audio in the body, and the verdict as JSON, or events as they come.

use std::{convert::Infallible, future::ready, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
    response::{
        IntoResponse, Response,
        sse::{Event as SentEvent, KeepAlive, Sse},
    },
};
use chorale_proto::v1::classify_stream_response::Event;
use chorale_runtime::failure::{Failure, Reason};
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;

use super::{
    Face, events::EventJson, multipart, named, options::Asked, problem::Problem, upload, verdict::VerdictJson,
};
use crate::{
    call::gone,
    classifier::Refusal,
    metrics::Rpc,
    request::{Incoming, Upload},
    told::Told,
};

/// After so long without an event, a comment says that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The media types that a client sends when nobody told it what it sends.
const NO_HINTS: [&str; 2] = ["application/octet-stream", "application/x-www-form-urlencoded"];

type ToldReceiver = mpsc::Receiver<Result<Told, Failure>>;

pub(super) async fn classify(State(face): State<Face>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let metadata = MetadataMap::from_headers(parts.headers.clone());
    let call = match face.classifier.admit(Rpc::HttpClassify, &metadata, &parts.extensions) {
        Ok(call) => call,
        Err(refusal) => {
            let Refusal { failure, request_id } = *refusal;
            return named(&request_id, Problem::from(failure));
        }
    };
    let request_id = call.request_id().to_owned();
    let wants_events = wants_events(&parts.headers);
    let most_bytes = face.classifier.limits().max_audio_bytes.as_u64();
    let incoming = incoming(&parts, body, wants_events, most_bytes);
    let deadline = incoming.as_ref().ok().and_then(|incoming| incoming.deadline);
    let mut told = face.classifier.begin(call, ready(incoming), deadline);
    // What is refused at once has a status that says so, whichever answer is wanted.
    let answer = match told.recv().await.unwrap_or_else(|| Err(gone())) {
        Err(failure) => Problem::from(failure).into_response(),
        Ok(first) if wants_events => events(first, told).into_response(),
        Ok(first) => verdict(first, told).await.into_response(),
    };
    named(&request_id, answer)
}

/// Reads what the request says beside its audio.
fn incoming(parts: &Parts, body: Body, wants_events: bool, most_bytes: u64) -> Result<Incoming, Failure> {
    let mut asked = Asked::from_query(parts.uri.query().unwrap_or_default())?;
    let deadline = asked.deadline();
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let media_type = media_type(content_type);
    let upload = match media_type.as_str() {
        "multipart/form-data" => {
            let content_type = content_type.cloned().unwrap_or(HeaderValue::from_static(""));
            multipart::pieces(upload::pieces(body), content_type)
        }
        "application/json" => {
            let message = "expected audio in the body, found JSON: options are parameters of the query";
            return Err(Failure {
                field: Some("content-type".to_owned()),
                ..Failure::new(Reason::AudioUnsupported, message)
            });
        }
        media_type => {
            check_length(&parts.headers, most_bytes)?;
            if asked.options.content_type.is_empty() && !NO_HINTS.contains(&media_type) {
                media_type.clone_into(&mut asked.options.content_type);
            }
            upload::pieces(body)
        }
    };
    if !wants_events {
        asked.options.events.clear();
    }
    Ok(Incoming { options: asked.options, deadline, upload: Upload::Pieces(upload) })
}

/// Refuses what says itself that it is too long, before it is sent.
fn check_length(headers: &HeaderMap, most: u64) -> Result<(), Failure> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match length.filter(|length| *length > most) {
        None => Ok(()),
        Some(found) => {
            let message = format!("expected at most {most} bytes of audio, found {found}");
            Err(Failure::limit("max_audio_bytes", most, message))
        }
    }
}

/// Without its parameters; empty if there is none.
fn media_type(content_type: Option<&HeaderValue>) -> String {
    let text = content_type.and_then(|content_type| content_type.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accepted| accepted.to_str().ok());
    let mut types = accepted.flat_map(|accepted| accepted.split(','));
    types.any(|accepted| media_type(HeaderValue::from_str(accepted.trim()).ok().as_ref()) == "text/event-stream")
}

async fn verdict(first: Told, mut told: ToldReceiver) -> Result<Json<VerdictJson>, Problem> {
    let mut next = Ok(first);
    loop {
        if let Event::Verdict(verdict) = next?.event {
            return Ok(Json(verdict.into()));
        }
        next = told.recv().await.unwrap_or_else(|| Err(gone()));
    }
}

/// The events, which to stop reading cancels the call.
fn events(first: Told, told: ToldReceiver) -> impl IntoResponse {
    let told = stream::iter([Ok(first)]).chain(ReceiverStream::new(told));
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        // Proxies must not wait for more before they hand it on.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Sse::new(sent(told)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn sent(
    told: impl Stream<Item = Result<Told, Failure>> + Send,
) -> impl Stream<Item = Result<SentEvent, Infallible>> + Send {
    told.map(|told| {
        let EventJson { event, data } = EventJson::of(told);
        // The data have no member that JSON cannot say.
        let text = serde_json::to_string(&data).unwrap_or_default();
        Ok(SentEvent::default().event(event).data(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(HeaderName, &'static str)], query: &str) -> Parts {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("/v1/classify?{query}").parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    fn read(headers: &[(HeaderName, &'static str)], query: &str) -> Result<Incoming, Failure> {
        incoming(&request(headers, query), Body::empty(), false, 1_000)
    }

    #[tokio::test]
    async fn the_media_type_is_a_hint_unless_the_query_has_one() {
        let hint =
            |content_type, query| read(&[(header::CONTENT_TYPE, content_type)], query).unwrap().options.content_type;
        assert_eq!(hint("Audio/MPEG; charset=x", ""), "audio/mpeg");
        assert_eq!(hint("audio/mpeg", "content_type=mp3"), "mp3");
        assert_eq!(hint("application/octet-stream", ""), "");
        assert_eq!(hint("multipart/form-data; boundary=b", ""), "");
        assert_eq!(read(&[], "").unwrap().options.content_type, "");
        let json = read(&[(header::CONTENT_TYPE, "application/json")], "").unwrap_err();
        assert_eq!((json.http_status(), json.reason), (415, Reason::AudioUnsupported));
    }

    #[test]
    fn a_body_that_says_that_it_is_too_long_is_not_read() {
        assert!(read(&[(header::CONTENT_LENGTH, "1000")], "").is_ok());
        let failure = read(&[(header::CONTENT_LENGTH, "1001")], "").unwrap_err();
        assert_eq!(failure.metadata["limit"], "max_audio_bytes");
    }

    #[test]
    fn events_are_for_who_accepts_them() {
        let accepts = |accept| wants_events(&request(&[(header::ACCEPT, accept)], "").headers);
        assert!(accepts("text/event-stream") && accepts("application/json;q=0.5, Text/Event-Stream; q=1"));
        assert!(!accepts("application/json") && !accepts("*/*") && !accepts("text/event-streams"));
        assert!(!wants_events(&HeaderMap::new()));
        assert!(read(&[], "events=mel").unwrap().options.events.is_empty());
    }
}
