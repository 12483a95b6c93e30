//! Sentences for tenants that several codes share. Each says what happened and what to do, and
//! names who must act if that isn't the tenant.

pub(super) const CHECK_CREDENTIALS: &str = concat!(
    "Twilio rejected the credentials: check the account SID, the auth token or API key ",
    "and the region, and that the account is not suspended",
);

pub(super) const CHECK_ACCOUNT: &str =
    "the Twilio account is not active: check its balance and its status in the Twilio Console";

pub(super) const CHECK_FROM: &str = concat!(
    "the Twilio account can't call from the From number: set a voice-capable number of ",
    "the account, or a verified caller ID",
);

pub(super) const INVALID_NUMBER: &str =
    "the number called does not exist or can't be reached: check the number with the user";

pub(super) const BLOCKED_NUMBER: &str = concat!(
    "Twilio blocks calls to this number: send the code to another number or over another ",
    "channel",
);

pub(super) const BLOCKED_COUNTRY: &str = concat!(
    "the Twilio account's geographic permissions block this call: allow the country in ",
    "the Twilio Console under Voice, Settings, Geo permissions",
);

pub(super) const UPGRADE_TRIAL: &str = concat!(
    "the Twilio trial account does not allow this call: upgrade the account, or verify ",
    "the number called",
);

pub(super) const SLOW_DOWN: &str = "Twilio asked to slow down; the call will be retried";

pub(super) const MORE_CALLS_PER_SECOND: &str = concat!(
    "the call waited too long in the Twilio account's queue: ask Twilio for more calls ",
    "per second, or request fewer calls",
);

pub(super) const CHECK_WEBHOOKS: &str = concat!(
    "Twilio could not get the call's instructions from voice-otp: the operator must ",
    "check the workers' public URL, proxy and certificate",
);

/// For a request to which Twilio gave no conclusive answer.
pub(crate) const OUTCOME_UNKNOWN: &str = concat!(
    "Twilio did not confirm the call; voice-otp checks whether it was placed before it ",
    "retries",
);

/// For a request that voice-otp made wrongly.
pub(crate) const INTERNAL_ERROR: &str = concat!(
    "an internal error of voice-otp prevented the call: ask the operator to look it up ",
    "in the workers' log",
);
