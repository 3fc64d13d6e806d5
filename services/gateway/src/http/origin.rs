//! Whose pages may call: our own, and those of sites that the configuration names.
//!
//! Browsers let any page send simple requests and open WebSockets anywhere, and only keep it from reading most answers. Here
//! such requests are refused, by the header `origin`, which no page can forge.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use chorale_runtime::connections::Peer;

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
    let host = host(request.headers(), request.uri());
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.address);
    if host.is_some_and(|host| is_of(&origin, host) && !may_be_rebound(host, peer)) {
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

/// What the caller believes that it calls.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let host = uri.authority().map(Authority::as_str);
    host.or_else(|| headers.get(header::HOST)?.to_str().ok())
}

/// Whether `origin` is the site `host`. Only host and port count: in front of us, somebody else may speak TLS.
fn is_of(origin: &HeaderValue, host: &str) -> bool {
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_scheme, host)| host);
    page.is_some_and(|page| page.eq_ignore_ascii_case(host))
}

/// Whether `host` may be a name of somebody else's who led it to this machine (DNS rebinding): on the machine itself, a page of
/// ours is called by an address or as `localhost`.
fn may_be_rebound(host: &str, peer: Option<IpAddr>) -> bool {
    if !peer.is_some_and(|address| address.to_canonical().is_loopback()) {
        return false;
    }
    let Ok(authority) = host.parse::<Authority>() else { return true };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    name != "localhost" && !name.ends_with(".localhost") && name.parse::<IpAddr>().is_err()
}

fn is_allowed(origin: &HeaderValue, allowed: &[AllowedOrigin]) -> bool {
    allowed.iter().any(|allowed| allowed.as_str().as_bytes() == origin.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(origin: &'static str, host: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
        is_of(&HeaderValue::from_static(origin), super::host(&headers, &Uri::from_static("/v1/classify")).unwrap())
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
        assert_eq!(super::host(&HeaderMap::new(), &Uri::from_static("/")), None);
    }

    #[test]
    fn on_the_machine_itself_only_its_own_names_are_ours() {
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"].map(|peer| Some(peer.parse().unwrap())) {
            for own in ["127.0.0.1:8080", "[::1]:8080", "localhost:8080", "LOCALHOST", "a.localhost:1", "10.0.0.1"] {
                assert!(!may_be_rebound(own, peer), "{own}");
            }
            for other in ["evil.example:8080", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example", ""] {
                assert!(may_be_rebound(other, peer), "{other}");
            }
        }
        for peer in [None, Some("10.0.0.1".parse().unwrap())] {
            assert!(!may_be_rebound("genres.example", peer));
        }
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
