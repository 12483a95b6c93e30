//! Tests of the catalogue.

use super::entry::{BLOCKED, DESTINATION};
use super::*;

fn class(http_status: u16, code: Option<u32>, message: &str) -> Class {
    classify(ErrorResponse {
        http_status,
        code,
        message,
        retry_after: None,
    })
    .class
}

#[test]
fn a_code_that_is_reported_after_the_201_is_known() {
    let of = |code| provider_error(code).map(|error| error.class);
    assert_eq!(of(13224), Some(DESTINATION));
    assert_eq!(of(13225), Some(BLOCKED));
    assert_eq!(of(11200), Some(INTERNAL));
    assert_eq!(
        of(21211),
        Some(DESTINATION),
        "a code of the POST may be reported later"
    );
    assert_eq!(of(99_999), None);
    for (position, entry) in CALL_CODES.iter().enumerate() {
        assert!(
            lookup(entry.code).is_none(),
            "{} is in both lists",
            entry.code
        );
        assert!(
            CALL_CODES
                .iter()
                .skip(position + 1)
                .all(|other| other.code > entry.code),
            "{} is out of order",
            entry.code
        );
    }
}

#[test]
fn the_code_decides_or_else_the_http_status() {
    for (http_status, code, message, wanted) in [
        (400, Some(21211), "", DESTINATION),
        (400, Some(21215), "", BLOCKED),
        (401, Some(20003), "", CREDENTIALS),
        (401, None, "", CREDENTIALS),
        (429, Some(20429), "", Class::Throttled(None)),
        (429, None, "", Class::Throttled(None)),
        (500, None, "", Class::Ambiguous),
        (503, Some(20503), "", Class::Ambiguous),
        (400, Some(99_999), "", INTERNAL),
        (
            400,
            Some(0),
            "trial accounts have limited parameter access",
            TENANT,
        ),
        (
            400,
            None,
            "trial accounts have limited parameter access",
            TENANT,
        ),
    ] {
        assert_eq!(
            class(http_status, code, message),
            wanted,
            "{http_status} {code:?}"
        );
    }
}

#[test]
fn each_code_is_listed_once_and_in_order() {
    assert!(
        REQUEST_CODES
            .windows(2)
            .all(|pair| pair[0].code < pair[1].code)
    );
}

#[test]
fn twilios_message_is_not_passed_on() {
    let failure = classify(ErrorResponse {
        http_status: 400,
        code: Some(21211),
        message: "+14155552671 is bad",
        retry_after: None,
    });
    assert!(!format!("{failure:?} {failure}").contains("4155552671"));
}
