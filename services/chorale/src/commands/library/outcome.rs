//! What became of a file, as one line of JSON, or one for people.

use std::path::Path;

use chorale_library::{Finding, Found, ScanEvent, TrackVerdict};
use serde::Serialize;

use crate::render::{DIM, LABEL_WIDTH, RED, YELLOW, colour_of, shown, styled};

#[derive(Serialize)]
struct OutcomeLine<'a> {
    path: String,
    outcome: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    verdict: Option<VerdictObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject<'a>>,
}

#[derive(Serialize)]
struct VerdictObject<'a> {
    genre: &'a str,
    confidence: f64,
    duration_seconds: f64,
    early: bool,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: &'a str,
    message: &'a str,
}

/// The event as a JSON object on one line; nothing where it is of no file.
pub(super) fn json_line(event: &ScanEvent<'_>) -> Option<serde_json::Result<String>> {
    let plain = |path: &Path, outcome| line(path, outcome, None, None);
    Some(serde_json::to_string(&match event {
        ScanEvent::Unchanged(path) => plain(path, "unchanged"),
        ScanEvent::FailedBefore(path) => plain(path, "failed_before"),
        ScanEvent::Gone(path) => plain(path, "gone"),
        ScanEvent::Unreadable(unreadable) => {
            let error = ErrorObject { code: "UNREADABLE", message: &unreadable.why };
            line(&unreadable.path, "failed", None, Some(error))
        }
        ScanEvent::Finding(finding) => of_finding(finding),
        ScanEvent::Waiting(_) => return None,
    }))
}

fn of_finding(finding: &Finding) -> OutcomeLine<'_> {
    let path = &finding.file.path;
    match &finding.found {
        Found::Classified(verdict) => line(path, "classified", Some(verdict), None),
        Found::Recognised(verdict) => line(path, "recognised", Some(verdict), None),
        Found::Failed { code, message } => line(path, "failed", None, Some(ErrorObject { code, message })),
        Found::Gone => line(path, "gone", None, None),
    }
}

fn line<'a>(
    path: &Path,
    outcome: &'static str,
    verdict: Option<&'a TrackVerdict>,
    error: Option<ErrorObject<'a>>,
) -> OutcomeLine<'a> {
    let verdict = verdict.map(|verdict| VerdictObject {
        genre: &verdict.genre,
        confidence: verdict.confidence,
        duration_seconds: verdict.duration_seconds,
        early: verdict.early,
        warnings: &verdict.warnings,
    });
    OutcomeLine { path: path.display().to_string(), outcome, verdict, error }
}

/// The event as a line for people; nothing where it is no news.
pub(super) fn text_line(event: &ScanEvent<'_>) -> Option<String> {
    let labelled =
        |style, label: &str, text: String| Some(format!("{}{text}", styled(style, format_args!("{label:<18}"))));
    match event {
        ScanEvent::Unchanged(_) | ScanEvent::FailedBefore(_) => None,
        ScanEvent::Gone(path) => labelled(DIM, "gone", shown(path)),
        ScanEvent::Unreadable(unreadable) => {
            labelled(RED, "failed", format!("{}: {}", shown(&unreadable.path), unreadable.why))
        }
        ScanEvent::Waiting(error) => labelled(YELLOW, "waiting", format!("{error}; trying again in half a minute")),
        ScanEvent::Finding(finding) => {
            let path = shown(&finding.file.path);
            match &finding.found {
                Found::Classified(verdict) => Some(format!("{}{path}", verdict_columns(verdict))),
                Found::Recognised(verdict) => {
                    let how = styled(DIM, "  (moved or copied)");
                    Some(format!("{}{path}{how}", verdict_columns(verdict)))
                }
                Found::Failed { message, .. } => labelled(RED, "failed", format!("{path}: {message}")),
                Found::Gone => labelled(DIM, "gone", path),
            }
        }
    }
}

fn verdict_columns(verdict: &TrackVerdict) -> String {
    let genre = styled(colour_of(&verdict.genre), format_args!("{:<LABEL_WIDTH$}", verdict.genre));
    format!("{genre} {:>3.0} %  ", 100.0 * verdict.confidence)
}

#[cfg(test)]
mod tests {
    use chorale_library::{Credits, FileState};

    use super::*;

    fn both(found: Found) -> (String, String) {
        let file = FileState { path: "/m/a.mp3".into(), size: 1, modified_ns: 1 };
        let finding = Finding { file, digest: None, credits: Credits::default(), found };
        let event = ScanEvent::Finding(&finding);
        let text = text_line(&event).unwrap();
        (json_line(&event).unwrap().unwrap(), anstream::adapter::strip_str(&text).to_string())
    }

    #[test]
    fn an_outcome_is_a_line_for_programs_and_one_for_people() {
        let verdict = TrackVerdict {
            genre: "jazz".to_owned(),
            confidence: 0.75,
            duration_seconds: 8.0,
            ..TrackVerdict::default()
        };
        let (json, text) = both(Found::Classified(verdict.clone()));
        let expected =
            r#"{"path":"/m/a.mp3","outcome":"classified","genre":"jazz","confidence":0.75,"duration_seconds":8.0,"#;
        assert!(json.starts_with(expected), "{json}");
        assert_eq!(text, "jazz        75 %  /m/a.mp3");
        assert_eq!(both(Found::Recognised(verdict)).1, "jazz        75 %  /m/a.mp3  (moved or copied)");
        let (json, text) = both(Found::Failed { code: "AUDIO_EMPTY".to_owned(), message: "empty".to_owned() });
        assert_eq!(json, r#"{"path":"/m/a.mp3","outcome":"failed","error":{"code":"AUDIO_EMPTY","message":"empty"}}"#);
        assert_eq!(text, "failed            /m/a.mp3: empty");
        let odd = ScanEvent::Gone(Path::new("/m/a\u{1b}[2J.mp3"));
        let text = anstream::adapter::strip_str(&text_line(&odd).unwrap()).to_string();
        assert_eq!(text, "gone              /m/a\u{fffd}[2J.mp3", "a terminal has nothing to obey");
        assert_eq!(both(Found::Gone).0, r#"{"path":"/m/a.mp3","outcome":"gone"}"#);
        assert_eq!(text_line(&ScanEvent::Unchanged(Path::new("/m/a.mp3"))), None);
    }
}
