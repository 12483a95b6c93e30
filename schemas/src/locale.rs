//! Languages, as BCP 47 tags.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::Refused;

/// A well-formed BCP 47 language tag, in its conventional case (`en-US`, `zh-Hant-TW`). A
/// well-formed tag need not name a language that is spoken: the core's speech picks the nearest one
/// it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Locale(String);

const SHAPE: &str = "a BCP 47 language tag, for example en-US";

impl Locale {
    /// Parses a tag of at most 35 characters: a language of 2 or 3 letters, then subtags of 1 to 8
    /// letters or digits.
    ///
    /// # Errors
    /// [`Refused`] when the text isn't such a tag.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let mut parts = text.split('-');
        let language = parts.next().unwrap_or_default();
        let language_fits =
            (2..=3).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_alphabetic());
        let fits = |part: &str| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        if text.len() > 35 || !language_fits || !parts.clone().all(fits) {
            return Err(Refused(SHAPE));
        }
        let mut tag = language.to_ascii_lowercase();
        for part in parts {
            tag.push('-');
            tag.push_str(&in_conventional_case(part));
        }
        Ok(Self(tag))
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The language alone: `en` of `en-US`.
    pub fn language(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }
}

/// A subtag in the case of RFC 5646, section 2.1.1: regions in upper case, scripts in title case,
/// the rest in lower case.
fn in_conventional_case(part: &str) -> String {
    let letters = part.bytes().all(|b| b.is_ascii_alphabetic());
    match part.len() {
        2 if letters => part.to_ascii_uppercase(),
        4 if letters => {
            let lower = part.to_ascii_lowercase();
            let mut chars = lower.chars();
            chars
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(chars)
                .collect()
        }
        _ => part.to_ascii_lowercase(),
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for Locale {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        Self::parse(text)
    }
}

impl Serialize for Locale {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for Locale {
    fn schema_name() -> Cow<'static, str> {
        "Locale".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "maxLength": 35, "pattern": "^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$",
            "description": "The language to speak, a BCP 47 tag. The nearest supported language \
                is spoken; without one, the language of the tenant or of the \
                number's country, else en-US."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_takes_its_conventional_case() {
        for (given, tag) in [
            ("EN-us", "en-US"),
            ("zh-hant-tw", "zh-Hant-TW"),
            ("es-419", "es-419"),
            ("fil", "fil"),
        ] {
            assert_eq!(Locale::parse(given).unwrap().as_str(), tag);
        }
        for bad in [
            "",
            "e",
            "english",
            "en_US",
            "en-",
            "en--US",
            "en-US-",
            "12",
            "en-toolongsubtag",
        ] {
            assert!(Locale::parse(bad).is_err(), "{bad}");
        }
    }
}
