//! The one-time password that a call reads out.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Refused;

/// A one-time password: 4 to 10 ASCII letters or digits. It has no `Display`, a redacted `Debug`,
/// and is wiped from memory on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct OtpCode(String);

impl OtpCode {
    /// Parses a code.
    ///
    /// # Errors
    /// [`Refused`] describes a valid code. It never holds the text that was given.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        if !(4..=10).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Refused("4 to 10 characters of A-Z, a-z and 0-9"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The code in clear. Use it only to speak, seal, send or hash (with a key) the code.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OtpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OtpCode(…)")
    }
}

impl JsonSchema for OtpCode {
    fn schema_name() -> Cow<'static, str> {
        "OtpCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[A-Za-z0-9]{4,10}$",
            "description": "The code to read out: 4 to 10 ASCII letters or digits."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_code() {
        let code = OtpCode::parse("493027").unwrap();
        assert_eq!(format!("{code:?}"), "OtpCode(…)");
        assert_eq!(code.expose(), "493027");
    }

    #[test]
    fn a_code_is_four_to_ten_letters_or_digits() {
        for bad in ["", "123", "12345678901", "12 34", "12é4", "١٢٣٤"] {
            assert!(OtpCode::parse(bad).is_err(), "{bad}");
        }
        assert!(OtpCode::parse("A1b2").is_ok());
    }
}
