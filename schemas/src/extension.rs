//! The digits that are dialled after the call is answered.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::Refused;

/// An extension to dial after the answer: 1 to 32 of `0-9`, `*`, `#`, `w` (wait half a second) and
/// `W` (wait a second). `Debug` hides it, since number and extension together identify a person.
#[derive(Clone, PartialEq, Eq)]
pub struct Extension(String);

impl Extension {
    /// Parses an extension.
    ///
    /// # Errors
    /// [`Refused`] describes a valid extension.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let fits = |b: u8| b.is_ascii_digit() || matches!(b, b'*' | b'#' | b'w' | b'W');
        if text.is_empty() || text.len() > 32 || !text.bytes().all(fits) {
            return Err(Refused(
                "1 to 32 characters of 0-9, *, #, w (half a second) and W (a second)",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The extension in clear. Use it only to send it to Twilio, to seal it, or to hash it with a
    /// key.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Extension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Extension(…)")
    }
}

impl JsonSchema for Extension {
    fn schema_name() -> Cow<'static, str> {
        "Extension".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[0-9*#wW]{1,32}$",
            "description": "Dialled after the call is answered; w waits half a second, W a second."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_made_of_keypad_keys_and_waits() {
        assert!(Extension::parse("wW123*#").is_ok());
        for bad in ["", "12a", "1 2", &"1".repeat(33)] {
            assert!(Extension::parse(bad).is_err(), "{bad}");
        }
    }
}
