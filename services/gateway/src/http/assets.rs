//! What is for people: the studio page, the description of the interface, and the page that shows it. All of it is in the
//! binary.

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// Looked at again each time, and sent again when it has changed: a new release of the page must not meet an old one of its
/// parts.
const CACHE_CONTROL: &str = "no-cache";

const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

/// A file, and where it is served.
struct Asset {
    path: &'static str,
    media_type: &'static str,
    content: &'static str,
}

macro_rules! page {
    ($path:literal, $file:literal, $media_type:expr) => {
        Asset { path: $path, media_type: $media_type, content: include_str!(concat!("../../page/", $file)) }
    };
}

const ASSETS: &[Asset] = &[
    page!("/", "index.html", HTML),
    page!("/page.css", "page.css", CSS),
    page!("/page.js", "page.js", JAVASCRIPT),
    page!("/booth.js", "booth.js", JAVASCRIPT),
    page!("/colours.js", "colours.js", JAVASCRIPT),
    page!("/history.js", "history.js", JAVASCRIPT),
    page!("/icon.svg", "icon.svg", SVG),
    page!("/microphone.js", "microphone.js", JAVASCRIPT),
    page!("/player.js", "player.js", JAVASCRIPT),
    page!("/queue.js", "queue.js", JAVASCRIPT),
    page!("/recorder.js", "recorder.js", JAVASCRIPT),
    page!("/server.js", "server.js", JAVASCRIPT),
    page!("/sheet.js", "sheet.js", JAVASCRIPT),
    page!("/spectrogram.js", "spectrogram.js", JAVASCRIPT),
    page!("/stage.js", "stage.js", JAVASCRIPT),
    page!("/track.js", "track.js", JAVASCRIPT),
    page!("/verdict.js", "verdict.js", JAVASCRIPT),
    page!("/voices.js", "voices.js", JAVASCRIPT),
    page!("/words.js", "words.js", JAVASCRIPT),
    page!("/docs", "docs.html", HTML),
    page!("/docs.css", "docs.css", CSS),
    page!("/docs.js", "docs.js", JAVASCRIPT),
    Asset { path: "/openapi.json", media_type: JSON, content: include_str!("../../openapi.json") },
];

/// A route for each.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |routes, asset| {
        let tag = tag_of(asset.content);
        routes.route(asset.path, get(move |headers: HeaderMap| async move { send(asset, &tag, &headers) }))
    })
}

/// The `etag` of `content`.
fn tag_of(content: &str) -> String {
    let mut digest = blake3::hash(content.as_bytes()).to_hex();
    digest.truncate(32);
    format!("\"{digest}\"")
}

fn send(asset: &'static Asset, tag: &str, headers: &HeaderMap) -> Response {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| names(known, tag));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, asset.media_type)], asset.content).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// Whether the list `known` of an `if-none-match` names `tag`.
fn names(known: &HeaderValue, tag: &str) -> bool {
    let known = known.to_str().unwrap_or_default();
    known.split(',').map(|known| known.trim().trim_start_matches("W/")).any(|known| known == tag || known == "*")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    #[test]
    fn every_file_of_the_page_is_served_as_what_it_is() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| match name.as_str() {
                "index.html" => "/".to_owned(),
                "docs.html" => "/docs".to_owned(),
                name => format!("/{name}"),
            })
            .chain(["/openapi.json".to_owned()])
            .collect();
        let served: BTreeSet<String> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(served, files);
        for Asset { path, media_type, .. } in ASSETS {
            let extension = path.rsplit_once('.').map_or("html", |(_, extension)| extension);
            let expected = [("html", HTML), ("css", CSS), ("js", JAVASCRIPT), ("svg", SVG), ("json", JSON)];
            assert!(expected.contains(&(extension, media_type)), "{path} is {media_type}");
        }
    }

    #[test]
    fn pages_load_nothing_from_elsewhere_and_have_nothing_inline() {
        for asset in ASSETS.iter().filter(|asset| asset.media_type == HTML) {
            let html = asset.content;
            for refused in ["src=\"http", "src=\"//", "<style", " style=\"", " onclick=", "href=\"//"] {
                assert!(!html.contains(refused), "{}: {refused}", asset.path);
            }
            assert_eq!(html.matches("<script").count(), html.matches("<script type=\"module\" src=\"/").count());
        }
    }

    #[test]
    fn what_a_browser_has_is_not_sent_again() {
        let asset = &ASSETS[0];
        let tag = tag_of(asset.content);
        let status = |known: &str| {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_str(known).unwrap())]);
            send(asset, &tag, &headers).status().as_u16()
        };
        assert_eq!(status(&tag), 304);
        assert_eq!(status(&format!("\"other\", W/{tag}")), 304);
        assert_eq!(status("\"other\""), 200);
        let response = send(asset, &tag, &HeaderMap::new());
        assert_eq!(
            (response.status().as_u16(), &response.headers()["etag"]),
            (200, &HeaderValue::from_str(&tag).unwrap())
        );
    }
}
