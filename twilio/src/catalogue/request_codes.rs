//! The codes with which Twilio refuses a request.

use voice_otp::call::failure::Class;

use super::entry::{BLOCKED, CREDENTIALS, DESTINATION, Entry, INTERNAL, TENANT, entry};
use super::texts::{
    BLOCKED_COUNTRY, BLOCKED_NUMBER, CHECK_ACCOUNT, CHECK_CREDENTIALS, CHECK_FROM, INTERNAL_ERROR,
    INVALID_NUMBER, OUTCOME_UNKNOWN, SLOW_DOWN, UPGRADE_TRIAL,
};

/// The codes with which Twilio refuses a request, in ascending order.
pub const REQUEST_CODES: &[Entry] = &[
    entry(10001, TENANT, "account is not active", CHECK_ACCOUNT),
    entry(
        10002,
        TENANT,
        "trial account does not support the feature",
        UPGRADE_TRIAL,
    ),
    entry(
        10004,
        Class::Congested,
        "call concurrency limit exceeded",
        "the Twilio account is at its limit of concurrent calls; the call will be retried. A \
         higher limit needs an approved customer profile",
    ),
    entry(
        10005,
        TENANT,
        "voice calling is disabled for the account",
        "voice calling is disabled for the Twilio account: contact Twilio's support",
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
        "Twilio test credentials can't place calls: enter the live credentials",
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
        SLOW_DOWN,
    ),
    entry(
        20500,
        Class::Ambiguous,
        "internal error at Twilio",
        OUTCOME_UNKNOWN,
    ),
    entry(
        20503,
        Class::Ambiguous,
        "Twilio is unavailable",
        OUTCOME_UNKNOWN,
    ),
    entry(
        20504,
        Class::Ambiguous,
        "internal timeout at Twilio",
        OUTCOME_UNKNOWN,
    ),
    entry(21201, INTERNAL, "no To number", INTERNAL_ERROR),
    entry(
        21202,
        BLOCKED,
        "To is a premium number",
        "Twilio does not call premium numbers: send the code to another number",
    ),
    entry(
        21203,
        TENANT,
        "international calling is not enabled",
        BLOCKED_COUNTRY,
    ),
    entry(21204, INTERNAL, "call already initiated", INTERNAL_ERROR),
    entry(
        21205,
        INTERNAL,
        "a URL of voice-otp is not valid",
        INTERNAL_ERROR,
    ),
    entry(21206, INTERNAL, "SendDigits is not valid", INTERNAL_ERROR),
    entry(21207, INTERNAL, "IfMachine is not valid", INTERNAL_ERROR),
    entry(21208, INTERNAL, "Timeout is not valid", INTERNAL_ERROR),
    entry(21209, INTERNAL, "a method is not valid", INTERNAL_ERROR),
    entry(
        21210,
        TENANT,
        "From is neither owned nor verified by the account",
        CHECK_FROM,
    ),
    entry(
        21211,
        DESTINATION,
        "To is not a valid number",
        INVALID_NUMBER,
    ),
    entry(21212, TENANT, "From is not a valid number", CHECK_FROM),
    entry(21213, INTERNAL, "no From number", INTERNAL_ERROR),
    entry(21214, DESTINATION, "To can't be reached", INVALID_NUMBER),
    entry(
        21215,
        BLOCKED,
        "geographic permissions don't allow the call",
        BLOCKED_COUNTRY,
    ),
    entry(21216, BLOCKED, "call blocked by Twilio", BLOCKED_NUMBER),
    entry(
        21217,
        DESTINATION,
        "To does not appear to be valid",
        INVALID_NUMBER,
    ),
    entry(
        21218,
        INTERNAL,
        "ApplicationSid is not valid",
        INTERNAL_ERROR,
    ),
    entry(
        21219,
        TENANT,
        "To is not verified, as a trial account requires",
        UPGRADE_TRIAL,
    ),
    entry(
        21220,
        INTERNAL,
        "the call is in the wrong state",
        INTERNAL_ERROR,
    ),
    entry(
        21221,
        INTERNAL,
        "SIP parameters are not valid",
        INTERNAL_ERROR,
    ),
    entry(
        21234,
        INTERNAL,
        "MachineDetection is not valid",
        INTERNAL_ERROR,
    ),
    entry(
        21263,
        INTERNAL,
        "machine detection is not allowed here",
        INTERNAL_ERROR,
    ),
    entry(21470, TENANT, "account SID is not valid", CHECK_CREDENTIALS),
    entry(21471, TENANT, "account does not exist", CHECK_CREDENTIALS),
    entry(21472, TENANT, "account is not active", CHECK_ACCOUNT),
    entry(
        21626,
        INTERNAL,
        "StatusCallbackEvent is not valid",
        INTERNAL_ERROR,
    ),
    entry(
        22001,
        Class::Congested,
        "call timed out in Twilio's queue",
        "the call waited too long in the Twilio account's queue; it will be retried. If this \
         recurs, ask Twilio for more calls per second",
    ),
    entry(
        22005,
        Class::Congested,
        "Twilio's call queue is full",
        "the Twilio account's call queue is full; the call will be retried",
    ),
    entry(32018, INTERNAL, "TwiML is too long", INTERNAL_ERROR),
    entry(
        70051,
        TENANT,
        "restricted API key lacks a permission",
        "the Twilio API key can't place calls: give it the permission for Calls",
    ),
    entry(
        573_002,
        TENANT,
        "From is not the trial number of this recipient",
        UPGRADE_TRIAL,
    ),
    entry(
        573_005,
        TENANT,
        "trial destination is not verified",
        UPGRADE_TRIAL,
    ),
];
