//! The body of a request, as it comes.
//!
//! Nothing is read before it is wanted: until then, the caller waits, and one that asked `expect: 100-continue` sends nothing.
//! If the answer is there before the end of the body, the rest is read for a moment and thrown away: who closes a connection
//! while the other side still sends makes it lose the answer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    extract::Request,
    http::header,
};
use bytes::Bytes;
use chorale_runtime::failure::{Failure, Reason};
use futures::{Stream, StreamExt};
use tokio::{runtime::Handle, time::timeout};

use crate::request::Pieces;

/// For how long, and how much of it, the rest of a body is read that nobody wants.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: usize = 64 << 20;

/// Lets the body of every request linger.
pub(super) async fn linger(request: Request) -> Request {
    let waits_to_be_asked = request.headers().contains_key(header::EXPECT);
    request.map(|body| Body::from_stream(Lingering { body: Some(body.into_data_stream()), waits_to_be_asked }))
}

/// The audio in `body`.
pub(super) fn pieces(body: Body) -> Pieces {
    let gone = |error| Failure::new(Reason::Cancelled, format!("the caller went away: {error}"));
    body.into_data_stream().map(move |piece| piece.map_err(gone)).boxed()
}

/// A body that is read to its end, even if nobody wants it.
struct Lingering {
    /// None after the end.
    body: Option<BodyDataStream>,
    /// Whether the caller must be told to send it.
    waits_to_be_asked: bool,
}

impl Stream for Lingering {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.waits_to_be_asked = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let piece = ready!(body.poll_next_unpin(context));
        if !matches!(piece, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(piece)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|_| !self.waits_to_be_asked) else { return };
        // Without a runtime there is no connection either.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(LINGER, discard(body)));
        }
    }
}

async fn discard(mut body: BodyDataStream) {
    let mut left = MAX_LINGER_BYTES;
    while let Some(Ok(piece)) = body.next().await {
        match left.checked_sub(piece.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// A request whose body counts how often it is asked for a piece.
    async fn request(expects: bool) -> (Request, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let pieces = futures::stream::repeat_with(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok::<_, axum::Error>(Bytes::from_static(&[0; 1 << 16]))
        });
        let mut request = Request::new(Body::from_stream(pieces.take(100)));
        if expects {
            request.headers_mut().insert(header::EXPECT, axum::http::HeaderValue::from_static("100-continue"));
        }
        (linger(request).await, asked)
    }

    #[tokio::test]
    async fn what_nobody_wants_is_read_unless_it_was_not_asked_for() {
        let (unwanted, asked) = request(false).await;
        drop(unwanted);
        while asked.load(Ordering::Relaxed) < 100 {
            tokio::task::yield_now().await;
        }
        let (unasked, asked) = request(true).await;
        drop(unasked);
        let (wanted, all) = request(true).await;
        assert_eq!(pieces(wanted.into_body()).count().await, 100);
        assert_eq!((asked.load(Ordering::Relaxed), all.load(Ordering::Relaxed)), (0, 100));
    }
}
