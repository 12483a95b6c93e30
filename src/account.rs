//! Twilio's identifiers (SIDs) of accounts, calls and API keys.

use std::fmt;

use voice_otp_schemas::Refused;

macro_rules! sid {
    ($name:ident, $prefix:literal, $what:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Parses a SID.
            ///
            /// # Errors
            /// [`Refused`] says what the SID must be.
            pub fn parse(text: &str) -> Result<Self, Refused> {
                let rest = text.strip_prefix($prefix).filter(|rest| rest.len() == 32);
                match rest {
                    Some(rest) if rest.bytes().all(|b| b.is_ascii_hexdigit()) => {
                        Ok(Self(text.to_owned()))
                    }
                    _ => Err(Refused(concat!(
                        $what,
                        " (",
                        $prefix,
                        " and 32 hexadecimal digits)"
                    ))),
                }
            }

            /// The SID as Twilio spells it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Refused;

            fn from_str(text: &str) -> Result<Self, Refused> {
                Self::parse(text)
            }
        }
    };
}

sid!(
    AccountSid,
    "AC",
    "a Twilio account SID",
    "The SID of a Twilio account. It isn't secret, so it proves nothing about who sends it."
);
sid!(
    CallSid,
    "CA",
    "a Twilio call SID",
    "The SID of a call at Twilio."
);
sid!(
    ApiKeySid,
    "SK",
    "a Twilio API key SID",
    "The SID of a Twilio API key. It isn't secret; the key's secret is a value of its own."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_has_its_prefix_and_32_hexadecimal_digits() {
        let sid = format!("AC{}", "0a".repeat(16));
        assert_eq!(AccountSid::parse(&sid).unwrap().as_str(), sid);
        let (short, other, letters) = (
            "AC12",
            sid.replace("AC", "SK"),
            format!("AC{}", "0g".repeat(16)),
        );
        for bad in ["", short, &other, &letters] {
            assert!(AccountSid::parse(bad).is_err(), "{bad}");
        }
    }
}
