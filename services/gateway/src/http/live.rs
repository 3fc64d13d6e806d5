//! `GET /v1/classify/live`: a WebSocket for audio that is still being made, and for callers that read while they send.
//!
//! ```text
//!   caller   {"pcm": "s16le,22050,1"}   <bytes>   <bytes> …   end
//!   gateway      {"event": "accepted", …}   {"event": "chunk_vote", …} …   {"event": "verdict", …}   close
//! ```

use std::{future::pending, pin::pin, time::Duration};

use axum::{
    extract::{
        FromRequestParts, Request, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chorale_runtime::{failure::Failure, oversize::too_large};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;

use super::{
    Face,
    events::EventJson,
    named,
    options::{Asked, quote},
    problem::Problem,
};
use crate::{
    call::{Call, gone},
    classifier::{Classifier, Refusal},
    metrics::Rpc,
    request::{Incoming, Upload},
    told::Told,
};

/// The largest message, in bytes. A message is in memory as a whole before any of it is heard.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The protocol that is spoken, for callers who must name one.
const PROTOCOL: &str = "chorale.v1";
/// Pages cannot send the header `authorization` with a WebSocket: they offer a protocol of this name, with the token behind it.
const TOKEN_PROTOCOL: &str = "bearer.";
/// What says that no more audio comes.
const END: &str = "end";
/// How long the caller has to answer the end.
const LINGER: Duration = Duration::from_secs(2);

pub(super) async fn live(State(face): State<Face>, request: Request) -> Response {
    let (mut parts, _body) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            let detail = format!("expected the handshake of a WebSocket: {}", rejection.body_text());
            let title = "The request is not as described";
            return Problem::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "REQUEST_INVALID", title, detail)
                .into_response();
        }
    };
    let metadata = MetadataMap::from_headers(with_token(parts.headers));
    let call = match face.classifier.admit(Rpc::HttpLive, &metadata, &parts.extensions) {
        Ok(call) => call,
        Err(refusal) => {
            let Refusal { failure, request_id } = *refusal;
            return named(&request_id, Problem::from(failure));
        }
    };
    let request_id = call.request_id().to_owned();
    let Face { classifier, sockets, .. } = face;
    // From now on: the connection may be over before the socket is there.
    let open = sockets.token();
    let answer =
        upgrade.protocols([PROTOCOL]).max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES).on_upgrade(
            move |socket| async move {
                converse(socket, classifier, call).await;
                drop(open);
            },
        );
    named(&request_id, answer)
}

/// The headers, with the token that a page offered as a protocol where it belongs.
fn with_token(mut headers: HeaderMap) -> HeaderMap {
    if headers.contains_key(header::AUTHORIZATION) {
        return headers;
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|offered| offered.to_str().ok());
    let token =
        offered.flat_map(|offered| offered.split(',')).find_map(|name| name.trim().strip_prefix(TOKEN_PROTOCOL));
    if let Some(token) = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok()) {
        headers.insert(header::AUTHORIZATION, token);
    }
    headers
}

/// Listens and speaks until the verdict, or until the caller goes away.
async fn converse(socket: WebSocket, classifier: Classifier, call: Call) {
    let (voice, ear) = socket.split();
    let (asked, options) = oneshot::channel();
    let (audio, upload) = mpsc::channel(1);
    let incoming = async move {
        let asked: Asked = options.await.map_err(|_| gone())??;
        let deadline = asked.deadline();
        let upload = Upload::Pieces(ReceiverStream::new(upload).boxed());
        Ok(Incoming { options: asked.options, deadline, upload })
    };
    let told = classifier.begin(call, incoming, None);
    let mut listening = pin!(listen(ear, asked, audio));
    tokio::select! {
        () = listening.as_mut() => return,
        () = speak(voice, told) => {}
    }
    let _ = timeout(LINGER, listening).await;
}

/// Takes what the caller sends, until it is gone.
async fn listen(
    mut ear: SplitStream<WebSocket>,
    asked: oneshot::Sender<Result<Asked, Failure>>,
    audio: mpsc::Sender<Result<Bytes, Failure>>,
) {
    let mut caller = Caller::Speaks;
    let options = match next(&mut ear).await {
        None => return,
        Some(Ok(Heard::Text(text))) => Asked::from_json(&text),
        Some(Ok(Heard::Audio(_))) => {
            let message = "expected the options in the first message, as text, found bytes";
            Err(Failure::invalid("options", message))
        }
        Some(Err(failure)) => {
            caller = Caller::IsNotUnderstood;
            Err(failure)
        }
    };
    let is_welcome = options.is_ok();
    // A call that has ended is not interested.
    let _ = asked.send(options);
    if is_welcome {
        caller = hear_audio(&mut ear, audio).await;
    }
    match caller {
        Caller::IsGone => {}
        // Nothing more is of interest but that it goes away.
        Caller::Speaks => while let Some(Ok(_)) = next(&mut ear).await {},
        // It is told so, and goes away then.
        Caller::IsNotUnderstood => pending().await,
    }
}

/// Whether there is more to hear of a caller.
enum Caller {
    Speaks,
    IsGone,
    /// Nothing that follows can be read.
    IsNotUnderstood,
}

/// Hands the audio on, until the caller says that it ends, or says something else.
async fn hear_audio(ear: &mut SplitStream<WebSocket>, audio: mpsc::Sender<Result<Bytes, Failure>>) -> Caller {
    let (failure, caller) = loop {
        match next(ear).await {
            None => return Caller::IsGone,
            Some(Ok(Heard::Audio(piece))) => {
                if audio.send(Ok(piece)).await.is_err() {
                    return Caller::Speaks;
                }
            }
            Some(Ok(Heard::Text(text))) if text == END => return Caller::Speaks,
            Some(Ok(Heard::Text(text))) => {
                let found = quote(&text);
                let message = format!("expected audio as bytes, or the text {END:?} after it, found the text {found}");
                break (Failure::invalid("audio", message), Caller::Speaks);
            }
            Some(Err(failure)) => break (failure, Caller::IsNotUnderstood),
        }
    };
    let _ = audio.send(Err(failure)).await;
    caller
}

/// What a caller sends.
enum Heard {
    Text(String),
    Audio(Bytes),
}

/// The next message; `None` when the caller is gone.
async fn next(ear: &mut SplitStream<WebSocket>) -> Option<Result<Heard, Failure>> {
    loop {
        return match ear.next().await? {
            Ok(Message::Text(text)) => Some(Ok(Heard::Text(text.as_str().to_owned()))),
            Ok(Message::Binary(audio)) => Some(Ok(Heard::Audio(audio))),
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Close(_)) => None,
            Err(error) => refused(&error),
        };
    }
}

/// What an error of the connection means: a message over the limit is worth an answer.
fn refused(error: &axum::Error) -> Option<Result<Heard, Failure>> {
    let error = error.to_string();
    error.contains("too long").then(|| Err(too_large(&error).with("value", MAX_MESSAGE_BYTES)))
}

/// Sends what the caller is to be told, until the last of it.
async fn speak(mut voice: SplitSink<WebSocket, Message>, mut told: mpsc::Receiver<Result<Told, Failure>>) {
    while let Some(told) = told.recv().await {
        let event = EventJson::of(told);
        let Ok(text) = serde_json::to_string(&event) else { return };
        if voice.send(Message::text(text)).await.is_err() {
            return;
        }
        if event.is_last() {
            break;
        }
    }
    let close = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    let _ = voice.send(Message::Close(Some(close))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_sends_its_token_as_a_protocol() {
        let authorization = |headers: &[(axum::http::HeaderName, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            with_token(headers.collect()).get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned())
        };
        let protocols = header::SEC_WEBSOCKET_PROTOCOL;
        assert_eq!(authorization(&[(protocols.clone(), "chorale.v1, bearer.a.b-c")]).unwrap(), "Bearer a.b-c");
        assert_eq!(authorization(&[(protocols.clone(), "chorale.v1")]), None);
        let both = [(protocols, "bearer.x"), (header::AUTHORIZATION, "Bearer y")];
        assert_eq!(authorization(&both).unwrap(), "Bearer y");
    }
}
