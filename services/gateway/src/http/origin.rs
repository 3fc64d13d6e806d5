//! Whose pages may call: our own, and those of sites that the configuration names.
//!
//! Browsers let any page send simple requests and open WebSockets anywhere, and only keep it from reading most answers. Here such
//! requests are refused, by the header `origin`, which no page can forge.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{AllowedOrigin, Face, problem::Problem};

const METHODS: &str = "GET, POST";
const REQUEST_HEADERS: &str =
    "authorization, content-type, accept, traceparent, x-grpc-web, x-user-agent, grpc-timeout";
const RESPONSE_HEADERS: &str = "x-request-id, retry-after, grpc-status, grpc-message, grpc-status-details-bin";
/// How long a browser may remember it, in seconds.
const MAX_AGE: &str = "600";

/// Lets pass who may call, and tells browsers so.
pub(super) async fn check(State(face): State<Face>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else { return next.run(request).await };
    if is_own(&origin, request.headers(), request.uri()) {
        return next.run(request).await;
    }
    if !is_allowed(&origin, &face.allowed_origins) {
        let detail = "expected a page of this gateway, or of a site that `gateway.http.allowed_origins` names";
        let title = "Pages of this site may not call";
        return Problem::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "ORIGIN_NOT_ALLOWED", title, detail)
            .into_response();
    }
    let asks =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    let mut say = |name, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    if asks {
        say(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        say(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        say(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    } else {
        say(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    }
    say(header::VARY, "origin");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response
}

/// Whether a page of `origin` is ours. Only host and port count: in front of us, somebody else may speak TLS.
fn is_own(origin: &HeaderValue, headers: &HeaderMap, uri: &Uri) -> bool {
    let host = uri.authority().map(Authority::as_str);
    let host = host.or_else(|| headers.get(header::HOST)?.to_str().ok());
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_scheme, host)| host);
    matches!((page, host), (Some(page), Some(host)) if page.eq_ignore_ascii_case(host))
}

fn is_allowed(origin: &HeaderValue, allowed: &[AllowedOrigin]) -> bool {
    allowed.iter().any(|allowed| allowed.as_str().as_bytes() == origin.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(origin: &'static str, host: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
        is_own(&HeaderValue::from_static(origin), &headers, &Uri::from_static("/v1/classify"))
    }

    #[test]
    fn only_pages_of_the_host_that_was_called_are_our_own() {
        assert!(own("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(own("https://Genres.example", "genres.example"));
        for (origin, host) in [
            ("http://127.0.0.1:8081", "127.0.0.1:8080"),
            ("https://evil.example", "genres.example"),
            ("https://genres.example.evil.example", "genres.example"),
            ("null", "genres.example"),
            ("genres.example", "genres.example"),
        ] {
            assert!(!own(origin, host), "{origin}");
        }
        assert!(!is_own(&HeaderValue::from_static("http://a"), &HeaderMap::new(), &Uri::from_static("/")));
    }

    #[test]
    fn other_sites_are_those_that_were_named_to_the_letter() {
        let allowed = ["https://music.example".parse().unwrap()];
        assert!(is_allowed(&HeaderValue::from_static("https://music.example"), &allowed));
        for other in ["http://music.example", "https://music.example.evil.example", "null"] {
            assert!(!is_allowed(&HeaderValue::from_static(other), &allowed), "{other}");
        }
    }
}
