//! Twilio's error codes, as data: what each means for a placement, and whom to tell what.
//!
//! Codes and meanings are from Twilio's error dictionary (<https://www.twilio.com/docs/api/errors>). Twilio's own
//! messages aren't passed on: some quote the number called.

use voice_otp::failure::{CallFailure, Class, Fault};
use voice_otp::progress::Trouble;

/// One code.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Twilio's code.
    pub code: u32,
    /// What kind of trouble it is for a placement.
    pub class: Class,
    /// A sentence for the tenant: what to do.
    pub tenant: &'static str,
    /// A clause for the operator: what it is.
    pub operator: &'static str,
}

const fn entry(code: u32, class: Class, operator: &'static str, tenant: &'static str) -> Entry {
    Entry {
        code,
        class,
        tenant,
        operator,
    }
}

const CREDENTIALS: Class = Class::Permanent(Fault::Credentials);
const TENANT: Class = Class::Permanent(Fault::Tenant);
const DESTINATION: Class = Class::Permanent(Fault::Destination);
const BLOCKED: Class = Class::Permanent(Fault::Blocked);
const OURS: Class = Class::Permanent(Fault::Ours);

const CHECK_CREDENTIALS: &str = "Twilio refuses the credentials: check the account SID, the auth token or API key, the region, and that the account is not suspended";
const CHECK_ACCOUNT: &str =
    "the Twilio account is not active: check its balance and its status in the Twilio console";
const CHECK_FROM: &str = "the From number can't be used by this Twilio account: use a voice-capable number of the account, or a verified caller ID";
const WRONG_NUMBER: &str = "the number called does not exist or can't be reached";
const BLOCKED_NUMBER: &str = "Twilio blocks calls to this number";
const OUR_MISTAKE: &str =
    "the call could not be placed because of a mistake of ours; the operator can see which";
const OUR_CALLBACKS: &str = "Twilio could not ask what to say: the workers' public URL, its proxy or its certificate needs the operator's attention";
const UPGRADE: &str = "the Twilio trial account does not allow this call: upgrade the account, or verify the number called";
const WAIT: &str = "Twilio asked to slow down; the call is tried again";
const TROUBLE: &str = "Twilio is in trouble; the call is tried again";

/// The catalogue, by code.
pub const CATALOGUE: &[Entry] = &[
    entry(10001, TENANT, "account is not active", CHECK_ACCOUNT),
    entry(
        10002,
        TENANT,
        "trial account does not support the feature",
        UPGRADE,
    ),
    entry(
        10004,
        Class::Congested,
        "call concurrency limit exceeded",
        "the Twilio account allows no more calls at once; it needs an approved customer profile for more",
    ),
    entry(
        10005,
        TENANT,
        "voice calling is disabled for the account",
        "voice calling is disabled for the Twilio account: ask Twilio's support",
    ),
    entry(
        20003,
        CREDENTIALS,
        "authentication failed",
        CHECK_CREDENTIALS,
    ),
    entry(20005, TENANT, "account is not active", CHECK_ACCOUNT),
    entry(20006, TENANT, "access denied", CHECK_CREDENTIALS),
    entry(
        20008,
        TENANT,
        "resource not available with test credentials",
        "these are Twilio test credentials: enter the live ones",
    ),
    entry(
        20010,
        TENANT,
        "action disabled for the account",
        CHECK_ACCOUNT,
    ),
    entry(20403, TENANT, "forbidden", CHECK_CREDENTIALS),
    entry(20404, TENANT, "no such account", CHECK_CREDENTIALS),
    entry(
        20429,
        Class::Throttled(None),
        "too many concurrent requests",
        WAIT,
    ),
    entry(20500, Class::Ambiguous, "internal error at Twilio", TROUBLE),
    entry(20503, Class::Ambiguous, "Twilio is unavailable", TROUBLE),
    entry(
        20504,
        Class::Ambiguous,
        "internal time-out at Twilio",
        TROUBLE,
    ),
    entry(21201, OURS, "no To number", OUR_MISTAKE),
    entry(
        21202,
        BLOCKED,
        "To is a premium number",
        "the number called is a premium number, which Twilio does not call",
    ),
    entry(
        21203,
        TENANT,
        "international calling is not enabled",
        "the Twilio account may not call abroad: enable the country in its geographic permissions",
    ),
    entry(21204, OURS, "call already initiated", OUR_MISTAKE),
    entry(21205, OURS, "a URL of ours is not valid", OUR_MISTAKE),
    entry(21206, OURS, "SendDigits is not valid", OUR_MISTAKE),
    entry(21207, OURS, "IfMachine is not valid", OUR_MISTAKE),
    entry(21208, OURS, "Timeout is not valid", OUR_MISTAKE),
    entry(21209, OURS, "a method is not valid", OUR_MISTAKE),
    entry(
        21210,
        TENANT,
        "From is not the account's or not verified",
        CHECK_FROM,
    ),
    entry(21211, DESTINATION, "To is not a valid number", WRONG_NUMBER),
    entry(21212, TENANT, "From is not a valid number", CHECK_FROM),
    entry(21213, OURS, "no From number", OUR_MISTAKE),
    entry(21214, DESTINATION, "To can't be reached", WRONG_NUMBER),
    entry(
        21215,
        BLOCKED,
        "geographic permissions don't allow the call",
        "the Twilio account's geographic permissions don't allow calls to this country: enable it in the Twilio console",
    ),
    entry(21216, BLOCKED, "call blocked by Twilio", BLOCKED_NUMBER),
    entry(
        21217,
        DESTINATION,
        "To does not appear to be valid",
        WRONG_NUMBER,
    ),
    entry(21218, OURS, "ApplicationSid is not valid", OUR_MISTAKE),
    entry(
        21219,
        TENANT,
        "To is not verified, and the account is a trial",
        UPGRADE,
    ),
    entry(
        21220,
        OURS,
        "the call is not in a state for this",
        OUR_MISTAKE,
    ),
    entry(21221, OURS, "SIP parameters are not valid", OUR_MISTAKE),
    entry(21234, OURS, "MachineDetection is not valid", OUR_MISTAKE),
    entry(
        21263,
        OURS,
        "machine detection is not allowed here",
        OUR_MISTAKE,
    ),
    entry(21470, TENANT, "account SID is not valid", CHECK_CREDENTIALS),
    entry(21471, TENANT, "account does not exist", CHECK_CREDENTIALS),
    entry(21472, TENANT, "account is not active", CHECK_ACCOUNT),
    entry(21626, OURS, "StatusCallbackEvent is not valid", OUR_MISTAKE),
    entry(
        22001,
        Class::Congested,
        "call timed out in Twilio's queue",
        "the Twilio account's calls per second are too few; the call is tried again",
    ),
    entry(
        22005,
        Class::Congested,
        "Twilio's call queue is full",
        "the Twilio account has more calls queued than Twilio keeps; the call is tried again",
    ),
    entry(32018, OURS, "TwiML is too long", OUR_MISTAKE),
    entry(
        70051,
        TENANT,
        "restricted API key lacks a permission",
        "the Twilio API key may not place calls: give it permission for Calls",
    ),
    entry(
        573_002,
        TENANT,
        "From is not the trial number of this recipient",
        UPGRADE,
    ),
    entry(
        573_005,
        TENANT,
        "trial destination is not verified",
        UPGRADE,
    ),
];

/// What became of a call that Twilio had taken: codes that only come after the 201.
pub const AFTERWARDS: &[Entry] = &[
    entry(
        11200,
        OURS,
        "Twilio could not fetch what to say from the worker",
        OUR_CALLBACKS,
    ),
    entry(
        11205,
        OURS,
        "Twilio could not connect to the worker",
        OUR_CALLBACKS,
    ),
    entry(
        11217,
        OURS,
        "the worker refused to tell Twilio what to say",
        OUR_CALLBACKS,
    ),
    entry(11220, OURS, "TLS to the worker failed", OUR_CALLBACKS),
    entry(
        11235,
        OURS,
        "the public URL's host was not found",
        OUR_CALLBACKS,
    ),
    entry(
        11236,
        OURS,
        "the public URL's host was not found",
        OUR_CALLBACKS,
    ),
    entry(
        11237,
        OURS,
        "the public URL's certificate is not valid",
        OUR_CALLBACKS,
    ),
    entry(
        11240,
        OURS,
        "a connection override is not valid",
        OUR_MISTAKE,
    ),
    entry(
        11241,
        OURS,
        "a connection override is not valid",
        OUR_MISTAKE,
    ),
    entry(
        11242,
        OURS,
        "a connection override is not valid",
        OUR_MISTAKE,
    ),
    entry(
        11243,
        OURS,
        "a connection override is not valid",
        OUR_MISTAKE,
    ),
    entry(11750, OURS, "the TwiML is too large", OUR_MISTAKE),
    entry(12100, OURS, "the TwiML can't be read", OUR_MISTAKE),
    entry(12200, OURS, "the TwiML is not valid", OUR_MISTAKE),
    entry(
        12300,
        OURS,
        "the TwiML's content type is not valid",
        OUR_MISTAKE,
    ),
    entry(13214, TENANT, "the caller id is not valid", CHECK_FROM),
    entry(
        13223,
        DESTINATION,
        "the number has a bad format",
        WRONG_NUMBER,
    ),
    entry(
        13224,
        DESTINATION,
        "the number can't be reached, or its carrier is out of order",
        WRONG_NUMBER,
    ),
    entry(13225, BLOCKED, "call blocked by Twilio", BLOCKED_NUMBER),
    entry(
        13226,
        DESTINATION,
        "the number's country code is not valid",
        WRONG_NUMBER,
    ),
    entry(
        13227,
        BLOCKED,
        "geographic permissions don't allow the call",
        "the Twilio account's geographic permissions don't allow calls to this country: enable it in the Twilio console",
    ),
    entry(13247, TENANT, "the caller id may not be used", CHECK_FROM),
    entry(
        13310,
        OURS,
        "Gather's finishOnKey is not valid",
        OUR_MISTAKE,
    ),
    entry(13313, OURS, "Gather's timeout is not valid", OUR_MISTAKE),
    entry(13314, OURS, "Gather's numDigits is not valid", OUR_MISTAKE),
    entry(13320, OURS, "Gather holds what it can't", OUR_MISTAKE),
    entry(13510, OURS, "Say's loop is not valid", OUR_MISTAKE),
    entry(13511, OURS, "Say's voice is not valid", OUR_MISTAKE),
    entry(13520, OURS, "Say's text is not valid", OUR_MISTAKE),
    entry(13521, OURS, "Say's text is too long", OUR_MISTAKE),
    entry(13910, OURS, "Pause's length is not valid", OUR_MISTAKE),
    entry(
        15002,
        Class::Congested,
        "call timed out in Twilio's queue",
        "the Twilio account's calls per second are too few for what is asked of it",
    ),
    entry(
        15003,
        OURS,
        "the worker's callback answered with an error",
        OUR_CALLBACKS,
    ),
    entry(
        32014,
        Class::Transient,
        "terminated: no audio",
        "the call was ended because there was no sound; it may be tried again",
    ),
    entry(
        32015,
        Class::Transient,
        "terminated: too long",
        "the call was ended because it took too long",
    ),
    entry(
        32224,
        BLOCKED,
        "a forwarded call was blocked",
        BLOCKED_NUMBER,
    ),
];

/// What went wrong with a call that Twilio had taken.
pub fn trouble(code: u32) -> Option<Trouble> {
    let entry = AFTERWARDS
        .iter()
        .find(|entry| entry.code == code)
        .or_else(|| lookup(code))?;
    Some(Trouble {
        code,
        class: entry.class,
        tenant: entry.tenant,
    })
}

/// The entry of a code.
pub fn lookup(code: u32) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.code == code)
}

/// An answer that isn't a success, as far as it could be read.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// The HTTP status.
    pub http_status: u16,
    /// Twilio's code. Trial refusals come with 0 or none.
    pub code: Option<u32>,
    /// Twilio's message: looked at, never passed on.
    pub message: &'a str,
    /// `Retry-After`, where given.
    pub retry_after: Option<std::time::Duration>,
}

/// Classifies a refusal: by code first, by HTTP status where the code is absent or unknown.
pub fn classify(refusal: Refusal<'_>) -> CallFailure {
    let known = refusal.code.and_then(lookup);
    let trial = refusal.http_status == 400
        && refusal.code.unwrap_or(0) == 0
        && refusal.message.contains("trial");
    let (class, operator, tenant) = match (refusal.http_status, known) {
        // Twilio's word: never processed, always safe to try again.
        (429, _) => (
            Class::Throttled(refusal.retry_after),
            "too many requests",
            WAIT,
        ),
        (_, Some(entry)) => (entry.class, entry.operator, entry.tenant),
        (_, None) if trial => (TENANT, "trial account, limited parameters", UPGRADE),
        (401, None) => (CREDENTIALS, "not authorized", CHECK_CREDENTIALS),
        (403, None) => (TENANT, "forbidden", CHECK_CREDENTIALS),
        (404, None) => (TENANT, "not found", CHECK_CREDENTIALS),
        (408 | 500.., None) => (Class::Ambiguous, "trouble at Twilio", TROUBLE),
        (_, None) => (
            OURS,
            "an error that the catalogue doesn't have",
            OUR_MISTAKE,
        ),
    };
    CallFailure {
        class,
        provider_code: refusal.code.filter(|code| *code != 0),
        http_status: Some(refusal.http_status),
        request_id: None,
        tenant: tenant.to_owned(),
        operator: format!("Twilio answered {}: {operator}", refusal.http_status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(http_status: u16, code: Option<u32>, message: &str) -> Class {
        classify(Refusal {
            http_status,
            code,
            message,
            retry_after: None,
        })
        .class
    }

    #[test]
    fn a_code_that_comes_after_the_201_is_known_as_well() {
        let of = |code| trouble(code).map(|trouble| trouble.class);
        assert_eq!(of(13224), Some(DESTINATION));
        assert_eq!(of(13225), Some(BLOCKED));
        assert_eq!(of(11200), Some(OURS));
        assert_eq!(
            of(21211),
            Some(DESTINATION),
            "and those of the POST may come late"
        );
        assert_eq!(of(99_999), None);
        for (place, entry) in AFTERWARDS.iter().enumerate() {
            assert!(
                lookup(entry.code).is_none(),
                "{} is in both lists",
                entry.code
            );
            assert!(
                AFTERWARDS
                    .iter()
                    .skip(place + 1)
                    .all(|other| other.code > entry.code),
                "{} is out of order",
                entry.code
            );
        }
    }

    #[test]
    fn the_code_decides_and_the_http_status_where_there_is_none() {
        for (http_status, code, message, wanted) in [
            (400, Some(21211), "", DESTINATION),
            (400, Some(21215), "", BLOCKED),
            (401, Some(20003), "", CREDENTIALS),
            (401, None, "", CREDENTIALS),
            (429, Some(20429), "", Class::Throttled(None)),
            (429, None, "", Class::Throttled(None)),
            (500, None, "", Class::Ambiguous),
            (503, Some(20503), "", Class::Ambiguous),
            (400, Some(99_999), "", OURS),
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
    fn the_codes_stand_once_and_in_order() {
        assert!(CATALOGUE.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn what_twilio_wrote_is_not_passed_on() {
        let failure = classify(Refusal {
            http_status: 400,
            code: Some(21211),
            message: "+14155552671 is bad",
            retry_after: None,
        });
        assert!(!format!("{failure:?} {failure}").contains("4155552671"));
    }
}
