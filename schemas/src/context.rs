//! The publisher's own data, echoed in every status.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::Refused;

/// At most 5 named strings that are echoed in every status: keys of 1 to 32 characters, values of
/// up to 128, no control characters. Stored and published in the clear.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Context(BTreeMap<String, String>);

const SHAPE: &str = "an object of at most 5 strings, with keys of 1 to 32 and values of up to 128 \
    characters, and without control characters";

impl Context {
    /// Validates a map of strings.
    ///
    /// # Errors
    /// [`Refused`] describes a valid context.
    pub fn parse(entries: BTreeMap<String, String>) -> Result<Self, Refused> {
        let fits = |text: &str, min_chars: usize, max_chars: usize| {
            let length = text.chars().count();
            (min_chars..=max_chars).contains(&length) && !text.chars().any(char::is_control)
        };
        if entries.len() > 5
            || !entries
                .iter()
                .all(|(key, value)| fits(key, 1, 32) && fits(value, 0, 128))
        {
            return Err(Refused(SHAPE));
        }
        Ok(Self(entries))
    }

    /// Validates a context given as JSON.
    ///
    /// # Errors
    /// [`Refused`] describes a valid context.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, Refused> {
        let object = value.as_object().ok_or(Refused(SHAPE))?;
        let entries: Option<BTreeMap<String, String>> = object
            .iter()
            .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        Self::parse(entries.ok_or(Refused(SHAPE))?)
    }

    /// Whether the request is a test call (`"test_call": "true"`), which statistics leave out.
    pub fn is_test_call(&self) -> bool {
        self.entries()
            .get("test_call")
            .is_some_and(|value| value == "true")
    }

    /// Whether the context has no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, ordered by key.
    pub fn entries(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl JsonSchema for Context {
    fn schema_name() -> Cow<'static, str> {
        "Context".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object", "maxProperties": 5,
            "propertyNames": { "minLength": 1, "maxLength": 32 },
            "additionalProperties": {
                "type": "string", "maxLength": 128,
                "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
            },
            "description": "At most 5 strings, echoed in every status of the delivery."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_context_is_small_and_made_of_strings() {
        assert!(Context::from_json(&json!({"flow": "login", "empty": ""})).is_ok());
        let long = "x".repeat(129);
        for bad in [
            json!([]),
            json!({"a": 1}),
            json!({"": "x"}),
            json!({ "a": long }),
            json!({"a": "\u{1}"}),
        ] {
            assert!(Context::from_json(&bad).is_err(), "{bad}");
        }
        let six = json!({"a":"","b":"","c":"","d":"","e":"","f":""});
        assert!(Context::from_json(&six).is_err());
    }
}
