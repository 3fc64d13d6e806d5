//! What a caller asks for, by the parameters of a query or by a JSON object of the same names.

use std::{str::FromStr, time::Duration};

use chorale_proto::v1::{ClassifyOptions, DeadlinePolicy, EventKind, PcmFormat, Priority};
use chorale_runtime::failure::Failure;
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::{deadline::Deadline, pcm_text::parse_pcm};

/// Every parameter.
const NAMES: [&str; 12] = [
    "blake3_digest",
    "bypass_cache",
    "content_type",
    "deadline_policy",
    "early_error_rate",
    "events",
    "model_version",
    "pcm",
    "priority",
    "timeout",
    "top_k",
    "want_embedding",
];
const EVENTS: [(&str, EventKind); 4] = [
    ("chunk_vote", EventKind::ChunkVote),
    ("progress", EventKind::Progress),
    ("mel", EventKind::Mel),
    ("envelope", EventKind::Envelope),
];
const DEADLINE_POLICIES: [(&str, DeadlinePolicy); 2] =
    [("fail", DeadlinePolicy::Fail), ("partial", DeadlinePolicy::Partial)];
const PRIORITIES: [(&str, Priority); 2] = [("interactive", Priority::Interactive), ("bulk", Priority::Bulk)];
const BOOLEANS: [(&str, bool); 2] = [("true", true), ("false", false)];
/// So much of what was found is repeated to the caller, in characters.
const MAX_QUOTE: usize = 80;

/// What a caller asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) options: ClassifyOptions,
    timeout: Option<Duration>,
}

impl Asked {
    /// Reads the query of a URL.
    ///
    /// # Errors
    /// `REQUEST_INVALID` names the first parameter that is wrong.
    pub(super) fn from_query(query: &str) -> Result<Self, Failure> {
        Self::read(form_urlencoded::parse(query.as_bytes()))
    }

    /// Reads a JSON object.
    ///
    /// # Errors
    /// `REQUEST_INVALID` names the first member that is wrong.
    pub(super) fn from_json(text: &str) -> Result<Self, Failure> {
        let members: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| Failure::invalid("options", format!("expected the options as a JSON object: {error}")))?;
        let texts: Result<Vec<_>, _> = members.iter().map(|(name, value)| Ok((name, text_of(name, value)?))).collect();
        Self::read(texts?.into_iter())
    }

    fn read<N: AsRef<str>, V: AsRef<str>>(pairs: impl Iterator<Item = (N, V)>) -> Result<Self, Failure> {
        let options = ClassifyOptions {
            events: vec![EventKind::ChunkVote.into(), EventKind::Progress.into()],
            ..ClassifyOptions::default()
        };
        let mut asked = Self { options, timeout: None };
        let mut seen = Vec::new();
        for (name, value) in pairs {
            let name = NAMES.iter().find(|known| **known == name.as_ref()).ok_or_else(|| unknown(name.as_ref()))?;
            if seen.contains(name) {
                return Err(Failure::invalid(*name, format!("expected {name} once, found it again")));
            }
            seen.push(name);
            asked.set(name, value.as_ref())?;
        }
        Ok(asked)
    }

    fn set(&mut self, name: &'static str, value: &str) -> Result<(), Failure> {
        let options = &mut self.options;
        match name {
            "blake3_digest" => options.blake3_digest = digest(name, value)?,
            "bypass_cache" => options.bypass_cache = one_of(name, value, &BOOLEANS)?,
            "content_type" => value.clone_into(&mut options.content_type),
            "deadline_policy" => options.deadline_policy = one_of(name, value, &DEADLINE_POLICIES)?.into(),
            "early_error_rate" => options.early_error_rate = number(name, value)?,
            "events" => options.events = events(name, value)?,
            "model_version" => value.clone_into(&mut options.model_version),
            "pcm" => options.pcm = Some(pcm(name, value)?),
            "priority" => options.priority = one_of(name, value, &PRIORITIES)?.into(),
            "timeout" => self.timeout = Some(timeout(name, value)?),
            "top_k" => options.top_k = number(name, value)?,
            "want_embedding" => options.want_embedding = one_of(name, value, &BOOLEANS)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    /// When the answer is due, from now.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.timeout.and_then(Deadline::after)
    }
}

/// The text that a parameter of a query would have for `value`.
fn text_of(name: &str, value: &Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(items) => {
            let texts = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
            texts.map(|texts| texts.join(",")).ok_or_else(|| invalid(name, "an array of texts", &value.to_string()))
        }
        Value::Null | Value::Object(_) => {
            Err(invalid(name, "a text, a number, a boolean or an array", &value.to_string()))
        }
    }
}

fn one_of<T: Copy>(name: &str, value: &str, known: &[(&str, T)]) -> Result<T, Failure> {
    let found = known.iter().find(|(text, _)| *text == value).map(|(_, meaning)| *meaning);
    found.ok_or_else(|| invalid(name, &alternatives(known), value))
}

fn alternatives<T>(known: &[(&str, T)]) -> String {
    let names: Vec<_> = known.iter().map(|(text, _)| *text).collect();
    format!("one of {}", names.join(", "))
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| invalid(name, "a number", value))
}

fn digest(name: &str, value: &str) -> Result<bytes::Bytes, Failure> {
    let digest = blake3::Hash::from_hex(value).map_err(|_| invalid(name, "64 hexadecimal digits", value))?;
    Ok(bytes::Bytes::copy_from_slice(digest.as_bytes()))
}

fn events(name: &str, value: &str) -> Result<Vec<i32>, Failure> {
    let kinds = value.split(',').map(str::trim).filter(|kind| !kind.is_empty());
    kinds.map(|kind| one_of(name, kind, &EVENTS).map(Into::into)).collect()
}

fn pcm(name: &str, value: &str) -> Result<PcmFormat, Failure> {
    parse_pcm(value).map_err(|wrong| Failure::invalid(name, format!("{name}: {wrong}")))
}

fn timeout(name: &str, value: &str) -> Result<Duration, Failure> {
    let timeout = humantime::parse_duration(value).ok().filter(|timeout| !timeout.is_zero());
    timeout.ok_or_else(|| invalid(name, "a duration as in 30s or 500ms", value))
}

fn unknown(name: &str) -> Failure {
    let message = format!("expected one of the parameters {}, found {}", NAMES.join(", "), quote(name));
    Failure::invalid(quote(name).trim_matches('"'), message)
}

fn invalid(name: &str, expected: &str, found: &str) -> Failure {
    Failure::invalid(name, format!("{name}: expected {expected}, found {}", quote(found)))
}

/// As much of `text` as is worth repeating.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTE) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use chorale_proto::v1::SampleFormat;

    use super::*;

    const DIGEST: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    fn all() -> Asked {
        Asked {
            options: ClassifyOptions {
                content_type: "audio/x raw".to_owned(),
                pcm: Some(PcmFormat { sample_format: SampleFormat::S16le.into(), sample_rate: 22_050, channels: 1 }),
                top_k: 3,
                events: vec![EventKind::Mel.into(), EventKind::Envelope.into()],
                deadline_policy: DeadlinePolicy::Partial.into(),
                blake3_digest: blake3::hash(b"").as_bytes().to_vec().into(),
                bypass_cache: true,
                early_error_rate: 0.05,
                priority: Priority::Bulk.into(),
                model_version: "v1".to_owned(),
                want_embedding: true,
            },
            timeout: Some(Duration::from_secs(90)),
        }
    }

    #[test]
    fn every_option_can_be_asked_for_in_either_way() {
        let query = format!(
            "content_type=audio%2Fx+raw&pcm=s16le,22050,1&top_k=3&events=mel%2Cenvelope&deadline_policy=partial\
             &blake3_digest={DIGEST}&bypass_cache=true&early_error_rate=0.05&priority=bulk&model_version=v1\
             &want_embedding=true&timeout=1m30s"
        );
        assert_eq!(Asked::from_query(&query).unwrap(), all());
        let json = format!(
            r#"{{"content_type": "audio/x raw", "pcm": "s16le, 22050, 1", "top_k": 3, "events": ["mel", "envelope"],
                "deadline_policy": "partial", "blake3_digest": "{DIGEST}", "bypass_cache": true, "early_error_rate": 0.05,
                "priority": "bulk", "model_version": "v1", "want_embedding": true, "timeout": "90s"}}"#
        );
        assert_eq!(Asked::from_json(&json).unwrap(), all());
        for name in NAMES {
            assert!(query.contains(&format!("{name}=")), "{name} is not tried");
        }
    }

    #[test]
    fn nothing_asked_for_is_the_default_with_votes_and_progress() {
        let asked = Asked::from_query("").unwrap();
        assert_eq!(asked, Asked::from_json("{}").unwrap());
        assert_eq!(asked.options.events, [EventKind::ChunkVote as i32, EventKind::Progress as i32]);
        assert!(asked.deadline().is_none());
        assert!(Asked::from_query("events=").unwrap().options.events.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, field) in [
            ("top=3", "top"),
            ("top_k=-1", "top_k"),
            ("top_k=3&top_k=4", "top_k"),
            ("pcm=s16le", "pcm"),
            ("pcm=s16le,22050,1,2", "pcm"),
            ("pcm=mp3,22050,1", "pcm"),
            ("pcm=s16le,loud,1", "pcm"),
            ("bypass_cache=yes", "bypass_cache"),
            ("events=votes", "events"),
            ("blake3_digest=abc", "blake3_digest"),
            ("priority=high", "priority"),
            ("timeout=soon", "timeout"),
            ("timeout=0s", "timeout"),
            ("early_error_rate=little", "early_error_rate"),
        ] {
            let failure = Asked::from_query(query).unwrap_err();
            assert_eq!(failure.field.as_deref(), Some(field), "{query}");
            assert!(failure.message.contains("expected"), "{failure}");
        }
        for json in ["", "[]", "{\"top_k\": {}}", "{\"events\": [1]}", "{\"pcm\": null}"] {
            assert!(Asked::from_json(json).is_err(), "{json}");
        }
        let long = Asked::from_query(&format!("timeout={}", "ä".repeat(10_000))).unwrap_err();
        assert!(long.message.chars().count() < 200, "{long}");
    }

    #[test]
    fn the_description_has_every_parameter() {
        let description: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
        let parameters = description["paths"]["/v1/classify"]["post"]["parameters"].as_array().unwrap();
        let mut described: Vec<_> = parameters
            .iter()
            .filter_map(|parameter| parameter["$ref"].as_str()?.strip_prefix("#/components/parameters/"))
            .collect();
        described.sort_unstable();
        assert_eq!(described, NAMES);
        for name in NAMES {
            assert_eq!(description["components"]["parameters"][name]["name"], name);
        }
        let mut members: Vec<_> =
            description["components"]["schemas"]["LiveOptions"]["properties"].as_object().unwrap().keys().collect();
        members.sort_unstable();
        assert_eq!(members, NAMES);
    }
}
