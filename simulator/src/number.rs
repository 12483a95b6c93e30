//! Telephone numbers: their form, and the fictional ones that select a fate.

/// Whether this is E.164 as Twilio accepts it: `+`, then 8 to 15 digits of which the first isn't 0.
pub(crate) fn is_e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (8..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The number as in Twilio's `to_formatted`: North American numbers with brackets, others
/// unchanged.
pub(crate) fn formatted(number: &str) -> String {
    let national = number.strip_prefix("+1").filter(|rest| rest.len() == 10);
    let parts = national.and_then(|rest| Some((rest.get(..3)?, rest.get(3..6)?, rest.get(6..)?)));
    match parts {
        Some((area, exchange, line)) => format!("({area}) {exchange}-{line}"),
        None => number.to_owned(),
    }
}

/// The last two digits of a number that is reserved for fiction: `+1 NXX 555 01NN`
/// (<https://en.wikipedia.org/wiki/555_(telephone_number)>).
pub(crate) fn fictional(number: &str) -> Option<u8> {
    let national = number
        .strip_prefix("+1")
        .filter(|rest| rest.len() == 10 && !rest.starts_with(['0', '1']))?;
    if national.get(3..8)? != "55501" {
        return None;
    }
    national.get(8..)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_and_8_to_15_digits_are_a_number() {
        for good in [
            "+14155550101",
            "+4712345678",
            "+12345678",
            "+123456789012345",
        ] {
            assert!(is_e164(good), "{good}");
        }
        for bad in [
            "14155550101",
            "+04155550101",
            "+1234567",
            "+1234567890123456",
            "+1415555o101",
            "+1 4155550101",
            "",
            "+",
        ] {
            assert!(!is_e164(bad), "{bad}");
        }
    }

    #[test]
    fn only_numbers_reserved_for_fiction_are_fictional() {
        assert_eq!(fictional("+14155550101"), Some(1));
        assert_eq!(fictional("+12025550199"), Some(99));
        for real in [
            "+14155550201",
            "+14155560101",
            "+1415555010",
            "+4915555010100",
            "+11155550101",
        ] {
            assert_eq!(fictional(real), None, "{real}");
        }
    }

    #[test]
    fn north_american_numbers_are_shown_with_brackets() {
        assert_eq!(formatted("+14158675309"), "(415) 867-5309");
        assert_eq!(formatted("+442071838750"), "+442071838750");
    }
}
