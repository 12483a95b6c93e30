//! Telephone numbers in E.164, masked wherever they print.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::Refused;

/// A telephone number in E.164 (`+14155552671`) that is valid by libphonenumber's rules. `Display`
/// and `Debug` print it masked, with at least five digits hidden.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PhoneNumber {
    digits: String,
    country: Option<Country>,
}

/// A country: an ISO 3166-1 alpha-2 code in upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

const SHAPE: &str = "a telephone number in E.164: + and 7 to 15 digits, for example +12025550123";

impl PhoneNumber {
    /// Parses a number that is E.164 in form and valid by the numbering plan of its country.
    ///
    /// # Errors
    /// [`Refused`] says whether the form or the numbering plan rules the text out.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let digits = text.strip_prefix('+').ok_or(Refused(SHAPE))?;
        let form = (7..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|b| b.is_ascii_digit());
        if !form {
            return Err(Refused(SHAPE));
        }
        let number = phonenumber::parse(None, text).map_err(|_| Refused(SHAPE))?;
        if !phonenumber::is_valid(&number) {
            return Err(Refused("a number that its country's numbering plan allows"));
        }
        let country = number
            .country()
            .id()
            .and_then(|id| Country::parse(id.as_ref()).ok());
        Ok(Self {
            digits: text.to_owned(),
            country,
        })
    }

    /// The number in full, `+` and digits. Use it only to send it to Twilio, to seal it, or to hash
    /// it with a key.
    pub fn expose(&self) -> &str {
        &self.digits
    }

    /// The country whose numbering plan the number belongs to. `None` for numbers of no country
    /// (satellite, +800).
    pub fn country(&self) -> Option<Country> {
        self.country
    }

    /// The number with at least five digits hidden: `+1415*****71`.
    pub fn masked(&self) -> String {
        mask(&self.digits)
    }
}

/// The country that a masked number probably belongs to, by its visible digits. If several
/// countries share the calling code, it is the largest, unless the area code belongs to one of the
/// others.
pub fn country_of_masked(masked: &str) -> Option<Country> {
    let digits: String = masked
        .strip_prefix('+')?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let database = &phonenumber::metadata::DATABASE;
    (1..=digits.len().min(3)).rev().find_map(|length| {
        let code = digits.get(..length)?.parse().ok()?;
        let regions = database.by_code(&code)?;
        // A smaller country of a shared calling code has area codes of its own.
        let national = digits.get(length..)?;
        let by_area_code = regions.iter().find(|region| {
            region
                .leading_digits()
                .is_some_and(|leading| leading.is_match(national))
        });
        Country::parse(by_area_code.or(regions.first())?.id()).ok()
    })
}

/// Hides at least five digits of a number in E.164: at most the first four and the last two stay
/// visible.
fn mask(number: &str) -> String {
    let digits = number.len().saturating_sub(1);
    let head = digits.saturating_sub(7).min(4);
    let tail = digits.saturating_sub(5).min(2);
    number
        .chars()
        .enumerate()
        .map(|(at, c)| {
            if at == 0 || at <= head || at > digits - tail {
                c
            } else {
                '*'
            }
        })
        .collect()
}

impl Country {
    /// Parses an ISO 3166-1 alpha-2 code, in either case.
    ///
    /// # Errors
    /// [`Refused`] when the text isn't two letters.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        match text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Ok(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => Err(Refused(
                "a country of two letters (ISO 3166-1), for example US",
            )),
        }
    }

    /// The code: two upper-case letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("ZZ")
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.masked())
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhoneNumber({})", self.masked())
    }
}

impl std::str::FromStr for PhoneNumber {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        Self::parse(text)
    }
}

impl std::str::FromStr for Country {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        Self::parse(text)
    }
}

impl JsonSchema for PhoneNumber {
    fn schema_name() -> Cow<'static, str> {
        "PhoneNumber".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^\\+[1-9][0-9]{6,14}$",
            "description": "A telephone number in E.164, for example +14155552671. It must also \
                be valid by its country's numbering plan."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_five_digits_are_hidden() {
        let cases = [
            ("+14155552671", "+1415*****71"),
            ("+442071838750", "+4420******50"),
            ("+3545812345", "+354*****45"),
            ("+4712345", "+*****45"),
        ];
        for (number, masked) in cases {
            assert_eq!(mask(number), masked);
            assert!(mask(number).matches('*').count() >= 5);
        }
    }

    #[test]
    fn neither_debug_nor_display_shows_the_number() {
        let number = PhoneNumber::parse("+14155552671").unwrap();
        assert_eq!(
            format!("{number} {number:?}"),
            "+1415*****71 PhoneNumber(+1415*****71)"
        );
        assert_eq!(number.country().unwrap().as_str(), "US");
    }

    #[test]
    fn a_number_of_no_numbering_plan_is_refused() {
        for bad in [
            "14155552671",
            "+1 415 555 2671",
            "+1415555267",
            "+10000000000",
            "+999999999999",
            "+",
            "",
            "+1415555267a",
        ] {
            assert!(PhoneNumber::parse(bad).is_err(), "{bad}");
        }
        for good in [
            "+442071838750",
            "+34911234567",
            "+4930123456",
            "+14165550123",
            "+15005550006",
        ] {
            assert!(PhoneNumber::parse(good).is_ok(), "{good}");
        }
    }
}
