//! Errors as RFC 9457 has them.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chorale_runtime::failure::{Failure, Reason};
use serde::Serialize;

/// A problem: `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Problem {
    /// Where it is described.
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    /// The gRPC code.
    code: &'static str,
    reason: &'static str,
    /// Facts for a program.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    /// What of the request is wrong: a parameter of the query, or `audio`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// As the header `retry-after`, which events have not.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<f64>,
}

impl Problem {
    /// A problem of HTTP alone.
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        reason: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            r#type: format!("/docs#{reason}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            code,
            reason,
            metadata: BTreeMap::new(),
            field: None,
            retry_after_seconds: None,
        }
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let status = StatusCode::from_u16(failure.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (code, reason) = (failure.code_name(), failure.reason);
        let Failure { message, metadata, field, retry_after, .. } = failure;
        // Over HTTP, options are parameters.
        let field = field.map(|field| field.strip_prefix("options.").unwrap_or(&field).to_owned());
        Self {
            metadata: metadata.into_iter().collect(),
            field: field.filter(|field| !field.is_empty()),
            retry_after_seconds: retry_after.map(|delay| delay.as_secs_f64()),
            ..Self::new(status, code, reason.name(), title(reason), message)
        }
    }
}

const fn title(reason: Reason) -> &'static str {
    match reason {
        Reason::AudioEmpty => "No audio came",
        Reason::AudioUnsupported => "The audio is of no known kind",
        Reason::AudioUnreadable => "The audio cannot be decoded",
        Reason::AudioTooShort => "The audio is too short",
        Reason::DigestMismatch => "The audio is not what its digest promised",
        Reason::RequestInvalid => "The request is not as described",
        Reason::Unauthenticated => "Who calls is not known",
        Reason::LimitExceeded => "A limit was hit",
        Reason::Overloaded => "Too much is going on",
        Reason::DeadlineExceeded => "The time is over",
        Reason::FeatureMismatch => "Parts of the cluster disagree",
        Reason::ModelUnknown => "The model is not served",
        Reason::DependencyUnavailable => "A part of the cluster is away",
        Reason::Draining => "The server is shutting down",
        Reason::Cancelled => "The caller went away",
        Reason::Internal => "A bug of the server",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        const PROBLEM_JSON: &str = "application/problem+json";
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (self.status(), [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds {
            // Whole seconds only: too late is better than too early.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.ceil() as u64));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_what_it_says() {
        let failure = Failure::limit("max_audio_bytes", 7, "expected at most 7 bytes of audio");
        let problem = Problem::from(failure);
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "/docs#LIMIT_EXCEEDED");
        assert_eq!((&json["status"], &json["code"]), (&413.into(), &"RESOURCE_EXHAUSTED".into()));
        assert_eq!((&json["metadata"]["limit"], &json["metadata"]["value"]), (&"max_audio_bytes".into(), &"7".into()));
        assert!(json.get("field").is_none() && json.get("retry_after_seconds").is_none());
        assert_eq!(Problem::from(Failure::invalid("options.pcm.channels", "")).field.unwrap(), "pcm.channels");
    }

    #[test]
    fn who_may_come_again_is_told_when_and_who_is_unknown_how() {
        let overloaded = Problem::from(Failure::new(Reason::Overloaded, "full")).into_response();
        assert_eq!((overloaded.status().as_u16(), &overloaded.headers()["retry-after"]), (429, &"1".parse().unwrap()));
        let stranger = Problem::from(Failure::new(Reason::Unauthenticated, "who?")).into_response();
        assert_eq!(stranger.headers()["www-authenticate"], "Bearer");
    }
}
