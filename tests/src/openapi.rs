//! Whether what a gateway says over HTTP is what its description says.

use serde_json::Value;

/// The description that a gateway serves.
#[derive(Debug)]
pub struct OpenApi(Value);

impl OpenApi {
    /// A description that was served.
    #[must_use]
    pub fn new(description: Value) -> Self {
        assert_eq!(description["openapi"], "3.1.0");
        Self(description)
    }

    /// The description itself.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Fails the test unless `found` is as the schema `name` says: every member described, and none that must be there missing.
    pub fn assert_fits(&self, name: &str, found: &Value) {
        let schema = &self.0["components"]["schemas"][name];
        assert!(schema.is_object(), "no schema {name}");
        if let Err(wrong) = self.check(schema, found, name) {
            panic!("{wrong}: {found}");
        }
    }

    fn check(&self, schema: &Value, found: &Value, place: &str) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let schema = self.0.pointer(reference.trim_start_matches('#')).ok_or(format!("no {reference}"))?;
            return self.check(schema, found, place);
        }
        if let Some(alternatives) = schema["oneOf"].as_array() {
            let fitting = alternatives.iter().filter(|schema| self.check(schema, found, place).is_ok()).count();
            return if fitting == 1 { Ok(()) } else { Err(format!("{place} fits {fitting} of oneOf")) };
        }
        let kind = schema["type"].as_str().ok_or(format!("{place} has no type"))?;
        let is_kind = match kind {
            "object" => found.is_object(),
            "array" => found.is_array(),
            "string" => found.is_string(),
            "boolean" => found.is_boolean(),
            "integer" => found.is_u64() || found.is_i64(),
            "number" => found.is_number(),
            other => return Err(format!("{place} is of the unknown type {other}")),
        };
        if !is_kind {
            return Err(format!("{place} is no {kind}"));
        }
        if schema["enum"].as_array().is_some_and(|known| !known.contains(found)) {
            return Err(format!("{place} is none of {}", schema["enum"]));
        }
        let number = found.as_f64().unwrap_or_default();
        let out_of_range = schema["minimum"].as_f64().is_some_and(|least| number < least)
            || schema["maximum"].as_f64().is_some_and(|most| number > most);
        if found.is_number() && out_of_range {
            return Err(format!("{place} is out of range"));
        }
        for (index, item) in found.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{place}[{index}]"))?;
        }
        self.check_members(schema, found, place)
    }

    fn check_members(&self, schema: &Value, found: &Value, place: &str) -> Result<(), String> {
        let Some(members) = found.as_object() else { return Ok(()) };
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            members.get(required).ok_or(format!("{place}.{required} is missing"))?;
        }
        for (name, member) in members {
            let described = schema["properties"].get(name).or(schema.get("additionalProperties"));
            let described = described.filter(|schema| schema.is_object());
            let described = described.ok_or(format!("{place}.{name} is not described"))?;
            self.check(described, member, &format!("{place}.{name}"))?;
        }
        Ok(())
    }
}
