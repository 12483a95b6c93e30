//! A voice provider as the API and the pages show it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use voice_otp::settings::VoiceSettings;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::request::rfc3339;
use voice_otp_store::settings::SettingsMetadata;

use super::redial::{RedialRule, rules_of};
use super::speech::Speech;

/// Voice provider of a tenant. Secrets are write-only.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting or a state of its own"
)]
pub(crate) struct VoiceProvider {
    /// Always `twilio`.
    pub(crate) provider: &'static str,
    /// Version of the settings, which increases with every change; also the `ETag`.
    pub(crate) version: i64,
    /// Time of the last change, RFC 3339.
    pub(crate) updated_at: Option<String>,
    /// Whether calls are placed for the tenant; operators disable voice in an emergency.
    pub(crate) enabled: bool,
    /// Whether users may choose Voice OTP; the tenant's methods change it.
    pub(crate) offered: bool,
    /// Twilio account that places the calls.
    pub(crate) account_sid: String,
    /// State of the auth token.
    pub(crate) auth_token: SecretState,
    /// State of the second auth token, which is used during a rotation.
    pub(crate) secondary_auth_token: SecretState,
    /// API key that authenticates requests instead of the auth token.
    pub(crate) api_key_sid: Option<String>,
    /// State of the API key's secret.
    pub(crate) api_key_secret: SecretState,
    /// Caller ID, E.164.
    pub(crate) from: String,
    /// Twilio region with its edge, for example `dublin.ie1`; null: `us1`.
    pub(crate) region: Option<String>,
    /// Language of requests that name none, BCP 47; null: the language of the number's country.
    pub(crate) default_locale: Option<String>,
    /// How long a phone rings before the call counts as not answered, in seconds.
    pub(crate) ring_timeout_s: u64,
    /// Countries that may be called, ISO 3166-1 alpha-2.
    pub(crate) allowed_countries: Vec<String>,
    /// Rate limit of the account in calls per second.
    pub(crate) calls_per_second: f64,
    /// Whether other tenants use the account; only operators can then change its rate limit.
    pub(crate) account_shared: bool,
    /// Whether calls are simulated: requests are reported as delivered, and no call is placed.
    pub(crate) test_mode: bool,
    /// Whether Twilio rejected the credentials; no calls are placed until it accepts them.
    pub(crate) credentials_rejected: bool,
    /// Whether an operator has paused the tenant or its account.
    pub(crate) paused: bool,
    /// How codes are read.
    pub(crate) speech: Speech,
    /// Action when a machine answers: `speak`, `hang_up`, `wait_for_beep` or `press_key`.
    pub(crate) voicemail: String,
    /// Redial rules by outcome: `busy`, `no_answer`, `failed` or `voicemail`.
    pub(crate) redial: BTreeMap<String, RedialRule>,
}

/// Whether a secret is set, without its value.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SecretState {
    /// Whether the secret is set.
    pub(crate) set: bool,
    /// Time at which the current value was saved, RFC 3339.
    pub(crate) since: Option<String>,
}

impl VoiceProvider {
    pub(super) fn new(settings: &VoiceSettings, metadata: &SettingsMetadata) -> Self {
        let credentials = &settings.credentials;
        let secret = |set, since: Option<Timestamp>| SecretState {
            set,
            since: since.filter(|_| set).map(rfc3339),
        };
        let countries = settings.allowed_countries.iter();
        Self {
            provider: "twilio",
            version: settings.version,
            updated_at: Some(rfc3339(metadata.updated_at)),
            enabled: settings.enabled,
            offered: settings.offered,
            account_sid: settings.account_sid.to_string(),
            auth_token: secret(true, metadata.auth_token_since),
            secondary_auth_token: secret(
                credentials.secondary_auth_token.is_some(),
                metadata.secondary_auth_token_since,
            ),
            api_key_sid: credentials.api_key.as_ref().map(|key| key.sid.to_string()),
            api_key_secret: secret(credentials.api_key.is_some(), metadata.api_key_since),
            from: settings.from.expose().to_owned(),
            region: settings.region.as_ref().map(ToString::to_string),
            default_locale: settings.default_locale.as_ref().map(ToString::to_string),
            ring_timeout_s: settings.ring_timeout.as_secs(),
            allowed_countries: countries.map(ToString::to_string).collect(),
            calls_per_second: settings.calls_per_second,
            account_shared: metadata.shared,
            test_mode: settings.test_mode,
            credentials_rejected: settings.credentials_rejected,
            paused: settings.paused.is_some(),
            speech: Speech::from(&settings.speech),
            voicemail: settings.voicemail.as_str().to_owned(),
            redial: rules_of(&settings.redial),
        }
    }
}
