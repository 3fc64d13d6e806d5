//! The audio in a `multipart/form-data` body: its part `audio`, as it comes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Multipart, Request, multipart::MultipartError},
    http::{HeaderValue, header},
};
use bytes::Bytes;
use chorale_runtime::failure::{Failure, Reason};
use futures::{Stream, StreamExt, future::ready, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::options::quote;
use crate::request::Pieces;

type PieceSender = mpsc::Sender<Result<Bytes, Failure>>;

/// The part that has the audio.
const AUDIO: &str = "audio";
/// The most that may come without any audio in it, in bytes: the headers of parts, and what is read at once.
const MAX_WITHOUT_AUDIO: usize = 256 * 1024;

/// The audio in `body`, whose media type is `content_type`. Nothing is read before the first piece is wanted.
pub(super) fn pieces(body: Pieces, content_type: HeaderValue) -> Pieces {
    let reading = async move { begin(body, content_type) };
    stream::once(reading).flatten().boxed()
}

fn begin(body: Pieces, content_type: HeaderValue) -> ReceiverStream<Result<Bytes, Failure>> {
    let (pieces, upload) = mpsc::channel(1);
    tokio::spawn(async move {
        let read = async {
            if let Err(failure) = read(body, content_type, &pieces).await {
                // A call that has ended wants no more.
                let _ = pieces.send(Err(failure)).await;
            }
        };
        tokio::select! {
            () = read => {}
            () = pieces.closed() => {}
        }
    });
    ReceiverStream::new(upload)
}

async fn read(body: Pieces, content_type: HeaderValue, pieces: &PieceSender) -> Result<(), Failure> {
    let without_audio = Arc::new(AtomicUsize::new(0));
    let mut request = Request::new(Body::from_stream(measured(body, Arc::clone(&without_audio))));
    request.headers_mut().insert(header::CONTENT_TYPE, content_type);
    // The call's own limits count.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut parts = Multipart::from_request(request, &()).await.map_err(|rejection| invalid(rejection.body_text()))?;
    let mut found = false;
    while let Some(mut part) = parts.next_field().await.map_err(|error| unreadable(&error))? {
        let name = part.name().unwrap_or_default();
        if name != AUDIO || found {
            let found = if found { "another one" } else { "a part" };
            let message = format!("expected one part, named {AUDIO:?}, found {found} named {}", quote(name));
            return Err(Failure::invalid(AUDIO, message));
        }
        found = true;
        while let Some(piece) = part.chunk().await.map_err(|error| unreadable(&error))? {
            without_audio.store(0, Ordering::Relaxed);
            if pieces.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
    }
    if found { Ok(()) } else { Err(invalid(format!("found no part named {AUDIO:?}"))) }
}

/// `body`, in portions that the parser gets one by one: by itself, it buffers whatever is there, and headers without end. The
/// end comes by itself, too: where it comes with the first boundary, the parser does not look for that any more.
fn measured(body: Pieces, without_audio: Arc<AtomicUsize>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let with_end = body.map(Some).chain(stream::iter([None]));
    let portions = with_end.then(move |piece| {
        let without_audio = Arc::clone(&without_audio);
        async move {
            tokio::task::yield_now().await;
            piece.map(|piece| count(piece.map_err(io::Error::other)?, &without_audio))
        }
    });
    portions.filter_map(ready)
}

/// Counts `piece`, of which nothing is known to be audio yet.
fn count(piece: Bytes, without_audio: &AtomicUsize) -> io::Result<Bytes> {
    let before = without_audio.fetch_add(piece.len(), Ordering::Relaxed);
    if before.saturating_add(piece.len()) > MAX_WITHOUT_AUDIO {
        let message = format!("expected audio, found {MAX_WITHOUT_AUDIO} bytes of something else");
        return Err(io::Error::other(invalid(message)));
    }
    Ok(piece)
}

/// What an error of the parser means: a failure of ours that passed through it, or a body that is not as it should be.
fn unreadable(error: &MultipartError) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        let inner = found.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(failure) = inner.and_then(|inner| inner.downcast_ref::<Failure>()) {
            return failure.clone();
        }
        cause = found.source();
    }
    invalid(error.body_text())
}

fn invalid(found: impl std::fmt::Display) -> Failure {
    let message = format!("expected multipart/form-data with the audio in the part {AUDIO:?}: {found}");
    Failure { field: Some(AUDIO.to_owned()), ..Failure::new(Reason::RequestInvalid, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("multipart/form-data; boundary=b");

    /// What comes out of a body that arrives in these portions.
    async fn heard(portions: Vec<&'static [u8]>) -> Result<Vec<u8>, Failure> {
        let body = futures::stream::iter(portions.into_iter().map(|portion| Ok(Bytes::from_static(portion))));
        let mut pieces = pieces(body.boxed(), CONTENT_TYPE);
        let mut heard = Vec::new();
        while let Some(piece) = pieces.next().await {
            heard.extend_from_slice(&piece?);
        }
        Ok(heard)
    }

    #[tokio::test]
    async fn the_audio_comes_through_however_it_is_cut() {
        let body: &[u8] =
            b"--b\r\nContent-Disposition: form-data; name=\"audio\"; filename=\"a.wav\"\r\n\r\nab\r\n-cd\r\n--b--\r\n";
        assert_eq!(heard(vec![body]).await.unwrap(), b"ab\r\n-cd");
        assert_eq!(heard(body.chunks(1).collect()).await.unwrap(), b"ab\r\n-cd");
    }

    #[tokio::test]
    async fn a_form_is_not_read_before_it_is_wanted() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let body = stream::repeat_with(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from_static(b"--b--\r\n"))
        });
        let mut pieces = pieces(body.take(1).boxed(), CONTENT_TYPE);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        assert!(pieces.next().await.unwrap().is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_form_may_be_as_long_as_any_body() {
        static AUDIO_PIECE: [u8; 64 * 1024] = [7; 64 * 1024];
        let mut portions: Vec<&'static [u8]> = vec![b"--b\r\nContent-Disposition: form-data; name=\"audio\"\r\n\r\n"];
        portions.extend(std::iter::repeat_n(AUDIO_PIECE.as_slice(), 100));
        portions.push(b"\r\n--b--\r\n");
        assert_eq!(heard(portions).await.unwrap().len(), 100 * AUDIO_PIECE.len());
    }

    #[tokio::test]
    async fn other_parts_and_no_parts_and_no_end_are_errors() {
        let audio: &[u8] = b"--b\r\nContent-Disposition: form-data; name=\"audio\"\r\n\r\nab\r\n";
        let other: &[u8] = b"--b\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nx\r\n";
        let end: &[u8] = b"--b--\r\n";
        for (portions, said) in [
            (vec![other, end], "\"title\""),
            (vec![audio, other, end], "\"title\""),
            (vec![audio, audio, end], "another one"),
            (vec![end], "multipart/form-data"),
            (vec![audio], "multipart/form-data"),
            (vec![], "multipart/form-data"),
        ] {
            let failure = heard(portions).await.unwrap_err();
            assert_eq!(
                (failure.reason, failure.field.as_deref()),
                (Reason::RequestInvalid, Some("audio")),
                "{failure}"
            );
            assert!(failure.message.contains(said), "{failure}");
        }
    }

    #[tokio::test]
    async fn headers_without_end_are_not_kept() {
        static JUNK: [u8; 1024] = [b'x'; 1024];
        let mut portions: Vec<&'static [u8]> = vec![b"--b\r\nContent-Disposition: "];
        portions.extend(std::iter::repeat_n(JUNK.as_slice(), 2 * MAX_WITHOUT_AUDIO / JUNK.len()));
        let failure = heard(portions).await.unwrap_err();
        assert!(failure.message.contains("something else"), "{failure}");
    }
}
