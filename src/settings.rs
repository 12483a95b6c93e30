//! A tenant's voice settings, checked in one place however they are entered.
//!
//! [`Draft`] is what an operator entered; [`Draft::check`] turns it into [`VoiceSettings`].
//! [`field`] has one row for each setting with all of its names, so that the command line, the API,
//! the form and the audit log agree. [`diff`](fn@diff) is what the audit log keeps of a change.

mod diff;
mod draft;
pub mod field;
pub mod policy;
mod region;

use std::time::Duration;

use secrecy::SecretString;
use voice_otp_schemas::phone::Country;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::{Locale, PhoneNumber, TenantId};

use crate::account::{AccountSid, ApiKeySid};
use crate::settings::policy::{Policy, Redial, Voicemail};
use crate::speech::{Speaker, SpeechStyle};

pub use diff::diff;
pub use draft::{DEFAULT_CALLS_PER_SECOND, Draft, Problem};
pub use field::{Field, Setting};
pub use region::Region;

/// How a tenant's calls are placed. Only [`Draft::check`] and the store make one.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a separate setting or state"
)]
pub struct VoiceSettings {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The number of saves. The store raises it with each; 0 before the first.
    pub version: i64,
    /// The Twilio account that places and pays the calls.
    pub account_sid: AccountSid,
    /// The account's secrets.
    pub credentials: Credentials,
    /// The caller ID: the number that the callee sees.
    pub from: PhoneNumber,
    /// The account's Twilio region and edge; `None` for `us1`.
    pub region: Option<Region>,
    /// The language of requests that name none. `None`: that of the number's country.
    pub default_locale: Option<Locale>,
    /// How long a telephone may ring: 5 to 600 seconds (Twilio's bounds are 1 and 600).
    pub ring_timeout: Duration,
    /// Whether calls are placed for the tenant.
    pub enabled: bool,
    /// The countries that may be called.
    pub allowed_countries: Vec<Country>,
    /// Whether calls are simulated: `accepted`, then `delivered` with `test`, and no call.
    pub test_mode: bool,
    /// The broker users that may publish for the tenant. Empty: every user with permission to
    /// publish.
    pub publishers: Vec<String>,
    /// How codes are read.
    pub speech: SpeechStyle,
    /// What a call does when a machine answers.
    pub voicemail: Voicemail,
    /// After which outcomes another call is placed.
    pub redial: Redial,
    /// Whether Voice OTP is one of the tenant's methods. If not, only test calls are placed. Set in
    /// the console, under Methods.
    pub offered: bool,
    /// Whether an operator has paused the calls. The tenant's own pause comes first.
    pub paused: Option<Paused>,
    /// Whether Twilio rejected these credentials and hasn't accepted them since. No call is placed
    /// with them. Set by the workers.
    pub credentials_rejected: bool,
    /// Whether the account's circuit is open or half-open, so that a successful call must close it.
    /// Set by the workers.
    pub circuit_open: bool,
    /// The account's rate limit in calls per second, shared by its tenants.
    pub calls_per_second: f64,
    /// The key of the rate limit: the account; or account and tenant, until Twilio has accepted the
    /// tenant's credentials once. Account SIDs aren't secret, so a tenant that merely names an
    /// account must not use up its owner's rate.
    pub pace_key: String,
}

/// What an operator has paused. Requests are admitted and wait; those that reach their deadline
/// expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paused {
    /// The tenant.
    Tenant,
    /// The Twilio account, with all its tenants.
    Account,
}

/// The secrets of a Twilio account. `Debug` shows none of them.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Signs callbacks, and authenticates requests if there is no API key.
    pub auth_token: SecretString,
    /// The second token, also accepted in signatures while the first is rotated.
    pub secondary_auth_token: Option<SecretString>,
    /// Authenticates requests instead of the auth token.
    pub api_key: Option<ApiKey>,
}

/// A Twilio API key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// The key's SID.
    pub sid: ApiKeySid,
    /// The key's secret.
    pub secret: SecretString,
}

impl VoiceSettings {
    /// The speaker of a call: in the request's language, or the tenant's, or that of the number's
    /// country.
    pub fn speaker(&self, to: &PhoneNumber, requested: Option<&Locale>) -> Speaker<'_> {
        Speaker::new(
            requested,
            self.default_locale.as_ref(),
            to.country(),
            &self.speech,
        )
    }

    /// The policies for answering machines and redials.
    pub fn policy(&self) -> Policy {
        Policy {
            voicemail: self.voicemail,
            redial: self.redial.clone(),
        }
    }

    /// Whether this broker user may publish for the tenant. The broker verifies the name; a message
    /// without one is refused if the tenant has a list.
    pub fn may_publish(&self, user: Option<&str>) -> bool {
        self.publishers.is_empty()
            || user.is_some_and(|user| self.publishers.iter().any(|allowed| allowed == user))
    }
}

impl Paused {
    /// The reason of the status `deferred`.
    pub fn reason(self) -> Reason {
        let message = match self {
            Self::Tenant => {
                "an operator has paused the tenant; the call is placed once the tenant is \
                 resumed, unless the code expires first"
            }
            Self::Account => {
                "an operator has paused the Twilio account; the call is placed once the account \
                 is resumed, unless the code expires first"
            }
        };
        Reason::new(ReasonCode::Paused, message)
    }
}

/// The rate limit's key for a tenant whose credentials Twilio hasn't accepted yet.
pub fn unverified_pace_key(account_sid: &AccountSid, tenant_id: &TenantId) -> String {
    format!("{account_sid}/{tenant_id}")
}
