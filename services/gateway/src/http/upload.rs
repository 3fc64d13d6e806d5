//! The audio in the body of a request, as it comes.
//!
//! Nothing is read before it is wanted: until then, the caller waits, and one that asked `expect: 100-continue` sends nothing. If
//! a call ends before its body, the rest is read for a moment and thrown away: who closes a connection while the other side
//! still sends makes it lose the answer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use chorale_runtime::failure::{Failure, Reason};
use futures::{Stream, StreamExt};
use tokio::{runtime::Handle, time::timeout};

/// For how long, and how much of it, the rest of a body is read that nobody wants.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: usize = 64 << 20;

/// The pieces of a body.
pub(super) struct BodyPieces {
    /// None after the end.
    body: Option<BodyDataStream>,
    /// Whether the caller must be told to send it.
    waits_to_be_asked: bool,
}

impl BodyPieces {
    pub(super) fn new(body: Body, waits_to_be_asked: bool) -> Self {
        Self { body: Some(body.into_data_stream()), waits_to_be_asked }
    }
}

impl Stream for BodyPieces {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.waits_to_be_asked = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let piece = ready!(body.poll_next_unpin(context));
        if !matches!(piece, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(piece.map(|piece| piece.map_err(broke_off)))
    }
}

impl Drop for BodyPieces {
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

fn broke_off(error: axum::Error) -> Failure {
    Failure::new(Reason::Cancelled, format!("the caller went away: {error}"))
}
