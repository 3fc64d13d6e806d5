//! Says in the words of our protocols that a request message is too large.
//!
//! A unary request is decoded before the service sees it, and the transport refuses one over the limit with a bare
//! `OUT_OF_RANGE`. This layer turns that into `LIMIT_EXCEEDED`.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

use crate::failure::{Failure, Reason};

/// A request message over the limit. `found` is what the transport says about it.
#[must_use]
pub fn too_large(found: &str) -> Failure {
    let message = format!("one request message is too large, send what it holds in smaller ones: {found}");
    Failure::new(Reason::LimitExceeded, message).with("limit", "max_message_bytes")
}

/// A service whose refusals of large messages are explained.
#[derive(Debug, Clone)]
pub struct ExplainOversize<S>(pub S);
impl<S: NamedService> NamedService for ExplainOversize<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for ExplainOversize<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let response = self.0.call(request);
        Box::pin(async move {
            let response = response.await?;
            // A refusal is a response of headers alone. The service itself never says `OUT_OF_RANGE`.
            let refusal = Status::from_header_map(response.headers());
            Ok(match refusal.filter(|status| status.code() == Code::OutOfRange) {
                Some(status) => Status::from(too_large(status.message())).into_http(),
                None => response,
            })
        })
    }
}
