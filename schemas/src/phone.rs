//! Telephone numbers in E.164, masked wherever they print.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::Refused;

/// A telephone number in E.164 (`+14155552671`) that libphonenumber's rules hold to be a possible subscriber's
/// number. `Display` and `Debug` print it masked, with at least five digits hidden.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PhoneNumber {
    digits: String,
    country: Option<Country>,
}

/// An ISO 3166-1 alpha-2 country, upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

const SHAPE: &str = "a telephone number in E.164: + and 7 to 15 digits, for example +12025550123";

impl PhoneNumber {
    /// Parses a number: E.164 in form, and valid by the numbering plan of its country.
    ///
    /// # Errors
    /// [`Refused`] says whether the form or the number is wrong.
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
            return Err(Refused("not a number of any country's numbering plan"));
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

    /// The number in full, `+` and digits: only for Twilio, for sealing, and for a keyed hash.
    pub fn expose(&self) -> &str {
        &self.digits
    }

    /// The country whose numbering plan the number is of; none for numbers of no country (satellite, +800).
    pub fn country(&self) -> Option<Country> {
        self.country
    }

    /// The number with at least five digits hidden, for people: `+1415*****71`.
    pub fn masked(&self) -> String {
        mask(&self.digits)
    }
}

/// The country that a masked number seems to be in, by what is left of it; of several that share a calling code the largest, unless
/// the digits tell them apart.
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
        // An area code that one of the smaller ones claims for itself.
        let national = digits.get(length..)?;
        let own = regions.iter().find(|region| {
            region
                .leading_digits()
                .is_some_and(|leading| leading.is_match(national))
        });
        Country::parse(own.or(regions.first())?.id()).ok()
    })
}

/// Hides at least five digits of a number in E.164: at most the first four and the last two stay.
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
    /// [`Refused`] when it isn't two letters.
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

    /// The two letters.
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
            "description": "A telephone number in E.164, for example +14155552671. Checked against its country's numbering plan as well."
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
    fn a_number_that_no_plan_has_is_refused() {
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
