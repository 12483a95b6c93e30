//! The codes that Twilio reports for a call after it has accepted the request.

use voice_otp::call::failure::Class;

use super::entry::{BLOCKED, DESTINATION, Entry, INTERNAL, TENANT, entry};
use super::texts::{
    BLOCKED_COUNTRY, BLOCKED_NUMBER, CHECK_FROM, CHECK_WEBHOOKS, INTERNAL_ERROR, INVALID_NUMBER,
    MORE_CALLS_PER_SECOND,
};

/// The codes that Twilio reports for a call only after it has accepted the request, in ascending
/// order. It may report [`REQUEST_CODES`](super::REQUEST_CODES) then, too.
pub const CALL_CODES: &[Entry] = &[
    entry(
        11200,
        INTERNAL,
        "Twilio could not fetch the call's instructions from the worker",
        CHECK_WEBHOOKS,
    ),
    entry(
        11205,
        INTERNAL,
        "Twilio could not connect to the worker",
        CHECK_WEBHOOKS,
    ),
    entry(
        11217,
        INTERNAL,
        "the worker refused Twilio's request for instructions",
        CHECK_WEBHOOKS,
    ),
    entry(11220, INTERNAL, "TLS to the worker failed", CHECK_WEBHOOKS),
    entry(
        11235,
        INTERNAL,
        "the public URL's host was not found",
        CHECK_WEBHOOKS,
    ),
    entry(
        11236,
        INTERNAL,
        "the public URL's host was not found",
        CHECK_WEBHOOKS,
    ),
    entry(
        11237,
        INTERNAL,
        "the public URL's certificate is not valid",
        CHECK_WEBHOOKS,
    ),
    entry(
        11240,
        INTERNAL,
        "a connection override is not valid",
        INTERNAL_ERROR,
    ),
    entry(
        11241,
        INTERNAL,
        "a connection override is not valid",
        INTERNAL_ERROR,
    ),
    entry(
        11242,
        INTERNAL,
        "a connection override is not valid",
        INTERNAL_ERROR,
    ),
    entry(
        11243,
        INTERNAL,
        "a connection override is not valid",
        INTERNAL_ERROR,
    ),
    entry(11750, INTERNAL, "the TwiML is too large", INTERNAL_ERROR),
    entry(12100, INTERNAL, "the TwiML can't be parsed", INTERNAL_ERROR),
    entry(12200, INTERNAL, "the TwiML is not valid", INTERNAL_ERROR),
    entry(
        12300,
        INTERNAL,
        "the TwiML's content type is not valid",
        INTERNAL_ERROR,
    ),
    entry(13214, TENANT, "the caller ID is not valid", CHECK_FROM),
    entry(
        13223,
        DESTINATION,
        "the number's format is not valid",
        INVALID_NUMBER,
    ),
    entry(
        13224,
        DESTINATION,
        "the number or its carrier can't be reached",
        INVALID_NUMBER,
    ),
    entry(13225, BLOCKED, "call blocked by Twilio", BLOCKED_NUMBER),
    entry(
        13226,
        DESTINATION,
        "the number's country code is not valid",
        INVALID_NUMBER,
    ),
    entry(
        13227,
        BLOCKED,
        "geographic permissions don't allow the call",
        BLOCKED_COUNTRY,
    ),
    entry(13247, TENANT, "the caller ID is not allowed", CHECK_FROM),
    entry(
        13310,
        INTERNAL,
        "Gather's finishOnKey is not valid",
        INTERNAL_ERROR,
    ),
    entry(
        13313,
        INTERNAL,
        "Gather's timeout is not valid",
        INTERNAL_ERROR,
    ),
    entry(
        13314,
        INTERNAL,
        "Gather's numDigits is not valid",
        INTERNAL_ERROR,
    ),
    entry(
        13320,
        INTERNAL,
        "Gather contains an element that it can't",
        INTERNAL_ERROR,
    ),
    entry(13510, INTERNAL, "Say's loop is not valid", INTERNAL_ERROR),
    entry(13511, INTERNAL, "Say's voice is not valid", INTERNAL_ERROR),
    entry(13520, INTERNAL, "Say's text is not valid", INTERNAL_ERROR),
    entry(13521, INTERNAL, "Say's text is too long", INTERNAL_ERROR),
    entry(
        13910,
        INTERNAL,
        "Pause's length is not valid",
        INTERNAL_ERROR,
    ),
    entry(
        15002,
        Class::Congested,
        "call timed out in Twilio's queue",
        MORE_CALLS_PER_SECOND,
    ),
    entry(
        15003,
        INTERNAL,
        "the worker's callback answered with an error",
        CHECK_WEBHOOKS,
    ),
    entry(
        32014,
        Class::Transient,
        "Twilio ended the call: no audio",
        "Twilio ended the call because it carried no audio; it may be retried",
    ),
    entry(
        32015,
        Class::Transient,
        "Twilio ended the call: too long",
        "Twilio ended the call because it took too long",
    ),
    entry(
        32224,
        BLOCKED,
        "a forwarded call was blocked",
        BLOCKED_NUMBER,
    ),
];
