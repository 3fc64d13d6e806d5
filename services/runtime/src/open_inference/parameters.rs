//! Parameters of a request: named values, which clients send as whatever type they have.

use std::{collections::HashMap, time::Duration};

use chorale_proto::{
    inference::{InferParameter, infer_parameter::ParameterChoice},
    v1::Priority,
};

use super::quoted;
use crate::failure::Failure;

/// What every model takes: these two are Triton's schedule policy, the third is its wish for binary tensors.
const COMMON: [&str; 3] = ["priority", "timeout", super::outputs::BINARY_OUTPUTS];
/// What Triton's clients tell a server of Triton.
const OF_TRITON: &str = "triton_";

/// The parameters of a request.
#[derive(Debug, Clone, Copy)]
pub struct Parameters<'a>(&'a HashMap<String, InferParameter>);

impl<'a> Parameters<'a> {
    /// Those of a request to a model that knows the parameters `known` beside those that all know.
    ///
    /// # Errors
    /// `REQUEST_INVALID` names one that is not known.
    pub fn check(values: &'a HashMap<String, InferParameter>, known: &[&str]) -> Result<Self, Failure> {
        let is_known = |name: &str| COMMON.contains(&name) || known.contains(&name) || name.starts_with(OF_TRITON);
        // The first of the alphabet, so that the same request always gets the same answer.
        match values.keys().filter(|name| !is_known(name)).min() {
            None => Ok(Self(values)),
            Some(name) => {
                let names: Vec<&str> = known.iter().copied().chain(COMMON).collect();
                let message = format!("expected no other parameters than {}, found {}", names.join(", "), quoted(name));
                Err(Failure::invalid("parameters", message))
            }
        }
    }

    /// Those of a tensor, which may have some that are for others.
    pub(super) fn unchecked(values: &'a HashMap<String, InferParameter>) -> Self {
        Self(values)
    }

    fn value(self, name: &str) -> Option<&'a ParameterChoice> {
        self.0.get(name)?.parameter_choice.as_ref()
    }

    /// A text.
    ///
    /// # Errors
    /// If it is something else.
    pub fn text(self, name: &str) -> Result<Option<&'a str>, Failure> {
        self.value(name).map_or(Ok(None), |value| match value {
            ParameterChoice::StringParam(text) => Ok(Some(text.as_str())),
            other => Err(wrong(name, "a text", other)),
        })
    }

    /// Yes or no, also as the texts `true` and `false`.
    ///
    /// # Errors
    /// If it is something else.
    pub fn flag(self, name: &str) -> Result<Option<bool>, Failure> {
        self.value(name).map_or(Ok(None), |value| {
            let flag = match value {
                ParameterChoice::BoolParam(flag) => Some(*flag),
                ParameterChoice::StringParam(text) => text.parse().ok(),
                _ => None,
            };
            flag.map(Some).ok_or_else(|| wrong(name, "true or false", value))
        })
    }

    /// A number, also as a text.
    ///
    /// # Errors
    /// If it is something else.
    pub fn number(self, name: &str) -> Result<Option<f64>, Failure> {
        self.value(name).map_or(Ok(None), |value| {
            let number = match value {
                ParameterChoice::DoubleParam(number) => Some(*number),
                ParameterChoice::Int64Param(number) => Some(*number as f64),
                ParameterChoice::Uint64Param(number) => Some(*number as f64),
                ParameterChoice::StringParam(text) => text.parse().ok(),
                ParameterChoice::BoolParam(_) => None,
            };
            number.map(Some).ok_or_else(|| wrong(name, "a number", value))
        })
    }

    /// A whole number from 0, also as a text.
    ///
    /// # Errors
    /// If it is something else.
    pub fn whole(self, name: &str) -> Result<Option<u64>, Failure> {
        self.value(name).map_or(Ok(None), |value| {
            let number = match value {
                ParameterChoice::Int64Param(number) => u64::try_from(*number).ok(),
                ParameterChoice::Uint64Param(number) => Some(*number),
                ParameterChoice::StringParam(text) => text.parse().ok(),
                _ => None,
            };
            number.map(Some).ok_or_else(|| wrong(name, "a whole number from 0", value))
        })
    }

    /// Whether somebody waits: `priority` is `interactive` or `bulk`, or a number as Triton has it, 1 before all others and 0
    /// for what is usual.
    ///
    /// # Errors
    /// If it is something else.
    pub fn priority(self) -> Result<Priority, Failure> {
        match self.value("priority") {
            Some(ParameterChoice::StringParam(text)) if text == "interactive" => Ok(Priority::Interactive),
            Some(ParameterChoice::StringParam(text)) if text == "bulk" => Ok(Priority::Bulk),
            None => Ok(Priority::Unspecified),
            Some(value) => match self.whole("priority") {
                Ok(Some(0) | None) => Ok(Priority::Unspecified),
                Ok(Some(1)) => Ok(Priority::Interactive),
                Ok(Some(_)) => Ok(Priority::Bulk),
                Err(_) => Err(wrong("priority", "`interactive` or `bulk`, or a whole number from 0", value)),
            },
        }
    }

    /// How long the caller waits for this request: `timeout`, in microseconds; 0 for as long as it takes.
    ///
    /// # Errors
    /// If it is something else.
    pub fn timeout(self) -> Result<Option<Duration>, Failure> {
        Ok(self.whole("timeout")?.filter(|&micros| micros > 0).map(Duration::from_micros))
    }
}

fn wrong(name: &str, expected: &str, found: &ParameterChoice) -> Failure {
    let found = match found {
        ParameterChoice::BoolParam(value) => value.to_string(),
        ParameterChoice::Int64Param(value) => value.to_string(),
        ParameterChoice::Uint64Param(value) => value.to_string(),
        ParameterChoice::DoubleParam(value) => value.to_string(),
        ParameterChoice::StringParam(value) => quoted(value),
    };
    Failure::invalid(format!("parameters.{name}"), format!("expected {expected} as `{name}`, found {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Values = HashMap<String, InferParameter>;

    fn values(entries: &[(&str, ParameterChoice)]) -> Values {
        let entry = |(name, value): &(&str, ParameterChoice)| {
            ((*name).to_owned(), InferParameter { parameter_choice: Some(value.clone()) })
        };
        entries.iter().map(entry).collect()
    }

    fn text(text: &str) -> ParameterChoice {
        ParameterChoice::StringParam(text.to_owned())
    }

    #[test]
    fn a_value_is_what_it_says_whatever_type_carries_it() {
        let values = values(&[
            ("a", ParameterChoice::DoubleParam(0.5)),
            ("b", ParameterChoice::Int64Param(3)),
            ("c", ParameterChoice::Uint64Param(4)),
            ("d", text("true")),
            ("e", text("0.25")),
            ("f", ParameterChoice::BoolParam(false)),
            ("g", ParameterChoice::Int64Param(-1)),
        ]);
        let parameters = Parameters::check(&values, &["a", "b", "c", "d", "e", "f", "g"]).unwrap();
        let number = |name| parameters.number(name).unwrap().unwrap();
        assert_eq!((number("a"), number("b"), number("c"), number("e")), (0.5, 3.0, 4.0, 0.25));
        assert_eq!((parameters.whole("b").unwrap(), parameters.whole("c").unwrap()), (Some(3), Some(4)));
        assert_eq!((parameters.flag("d").unwrap(), parameters.flag("f").unwrap()), (Some(true), Some(false)));
        assert_eq!((parameters.text("e").unwrap(), parameters.text("none").unwrap()), (Some("0.25"), None));
        let field = |failure: Failure| failure.field.unwrap();
        assert_eq!(field(parameters.number("d").unwrap_err()), "parameters.d");
        assert_eq!(field(parameters.whole("a").unwrap_err()), "parameters.a");
        assert_eq!(field(parameters.whole("g").unwrap_err()), "parameters.g");
        assert_eq!(field(parameters.flag("b").unwrap_err()), "parameters.b");
        assert!(parameters.text("c").unwrap_err().message.ends_with("found 4"));
    }

    #[test]
    fn what_no_model_knows_is_refused_unless_it_is_for_triton() {
        let known =
            values(&[("priority", text("bulk")), ("x", text("")), ("triton_enable_empty_final_response", text(""))]);
        assert!(Parameters::check(&known, &["x"]).is_ok());
        let failure = Parameters::check(&known, &[]).unwrap_err();
        assert_eq!(failure.field.as_deref(), Some("parameters"));
        assert!(failure.message.contains("priority, timeout") && failure.message.ends_with("\"x\""), "{failure}");
    }

    #[test]
    fn priorities_are_ours_or_those_of_triton() {
        let priority = |value| Parameters(&values(&[("priority", value)])).priority();
        assert_eq!(priority(text("bulk")).unwrap(), Priority::Bulk);
        assert_eq!(priority(text("interactive")).unwrap(), Priority::Interactive);
        for (number, expected) in [(0, Priority::Unspecified), (1, Priority::Interactive), (7, Priority::Bulk)] {
            assert_eq!(priority(ParameterChoice::Uint64Param(number)).unwrap(), expected);
        }
        assert!(priority(text("soon")).unwrap_err().message.contains("`bulk`"));
        assert_eq!(Parameters(&Values::new()).priority().unwrap(), Priority::Unspecified);
    }

    #[test]
    fn a_timeout_is_in_microseconds() {
        let timeout = |micros| Parameters(&values(&[("timeout", ParameterChoice::Int64Param(micros))])).timeout();
        assert_eq!(timeout(1_500).unwrap(), Some(Duration::from_micros(1_500)));
        assert_eq!(timeout(0).unwrap(), None);
        assert!(timeout(-1).is_err());
    }
}
