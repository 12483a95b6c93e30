//! Settings as an operator entered them, and the one check that they must pass.

use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use voice_otp_schemas::phone::Country;
use voice_otp_schemas::{Locale, PhoneNumber, Refused, TenantId};

use super::field::Setting;
use super::policy::{Redial, Voicemail};
use super::{ApiKey, Credentials, Region, VoiceSettings, unverified_pace_key};
use crate::account::{AccountSid, ApiKeySid};
use crate::speech::{SpeechStyle, StyleMember};

/// Settings as an operator entered them, unchecked. Omitted values have defaults.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// See [`VoiceSettings::account_sid`].
    pub account_sid: String,
    /// See [`Credentials::auth_token`].
    pub auth_token: SecretString,
    /// See [`Credentials::secondary_auth_token`].
    pub secondary_auth_token: Option<SecretString>,
    /// See [`Credentials::api_key`]; requires `api_key_secret`.
    pub api_key_sid: Option<String>,
    /// See [`Credentials::api_key`]; requires `api_key_sid`.
    pub api_key_secret: Option<SecretString>,
    /// See [`VoiceSettings::from`].
    pub from: String,
    /// See [`VoiceSettings::region`]: `region` or `edge.region`, for example `dublin.ie1`.
    pub region: Option<String>,
    /// See [`VoiceSettings::default_locale`].
    pub default_locale: Option<String>,
    /// See [`VoiceSettings::ring_timeout`]; 30 s by default.
    pub ring_timeout: Option<Duration>,
    /// See [`VoiceSettings::enabled`].
    pub enabled: bool,
    /// See [`VoiceSettings::allowed_countries`]; if empty, the country of the From number.
    pub allowed_countries: Vec<String>,
    /// See [`VoiceSettings::test_mode`].
    pub test_mode: bool,
    /// See [`VoiceSettings::publishers`].
    pub publishers: Vec<String>,
    /// See [`VoiceSettings::speech`].
    pub speech: SpeechStyle,
    /// See [`VoiceSettings::voicemail`].
    pub voicemail: Voicemail,
    /// See [`VoiceSettings::redial`].
    pub redial: Redial,
    /// See [`VoiceSettings::calls_per_second`]; by default what the account has, or 1.
    pub calls_per_second: Option<f64>,
}

/// A problem with one setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct Problem {
    /// The setting. Its [`Field`](super::Field) has the name that the reader knows.
    pub setting: Setting,
    /// A clause that says what is wrong, or what the value must be. It never contains a secret.
    pub problem: String,
}

/// The rate that Twilio allows a new account, in calls per second
/// (<https://www.twilio.com/docs/voice/api/call-resource>).
pub const DEFAULT_CALLS_PER_SECOND: f64 = 1.0;

const DEFAULT_RING_TIMEOUT: Duration = Duration::from_secs(30);
const RING_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_mins(10);
const RATES: RangeInclusive<f64> = 0.001..=10_000.0;
const MAX_PUBLISHERS: usize = 32;
/// AMQP's short string, in which the broker reports a user's name.
const MAX_PUBLISHER_BYTES: usize = 255;

impl Draft {
    /// Checks every setting.
    ///
    /// # Errors
    /// All problems, in the order of the settings.
    pub fn check(&self, tenant_id: TenantId) -> Result<VoiceSettings, Vec<Problem>> {
        let mut problems = Problems::default();
        let account_sid =
            problems.parsed(Setting::AccountSid, AccountSid::parse(&self.account_sid));
        problems.check_secret(Setting::AuthToken, &self.auth_token);
        if let Some(token) = &self.secondary_auth_token {
            problems.check_secret(Setting::SecondaryAuthToken, token);
        }
        let api_key = self.api_key(&mut problems);
        let from = problems.parsed(Setting::From, PhoneNumber::parse(&self.from));
        let region = self.region.as_deref().map(Region::parse);
        let region = region.and_then(|region| problems.parsed(Setting::Region, region));
        let locale = self.default_locale.as_deref().map(Locale::parse);
        let default_locale =
            locale.and_then(|locale| problems.parsed(Setting::DefaultLocale, locale));
        let ring_timeout = self.ring_timeout.unwrap_or(DEFAULT_RING_TIMEOUT);
        if !RING_TIMEOUTS.contains(&ring_timeout) {
            problems.push(Setting::RingTimeout, "must be 5 to 600 seconds");
        }
        let calls_per_second = self.calls_per_second.unwrap_or(DEFAULT_CALLS_PER_SECOND);
        if !RATES.contains(&calls_per_second) {
            problems.push(
                Setting::CallsPerSecond,
                "must be 0.001 to 10000 calls per second",
            );
        }
        let allowed_countries = self.countries(from.as_ref(), &mut problems);
        let is_name = |user: &String| {
            (1..=MAX_PUBLISHER_BYTES).contains(&user.len()) && !user.chars().any(char::is_control)
        };
        if self.publishers.len() > MAX_PUBLISHERS || !self.publishers.iter().all(is_name) {
            let problem = "must be at most 32 names of RabbitMQ users, of 1 to 255 bytes each";
            problems.push(Setting::Publishers, problem);
        }
        for (member, problem) in self.speech.problems() {
            problems.push(setting_of(member), problem);
        }
        if let Some(problem) = self.redial.problem() {
            problems.push(Setting::Redial, problem);
        }
        match (account_sid, from) {
            (Some(account_sid), Some(from)) if problems.0.is_empty() => Ok(VoiceSettings {
                pace_key: unverified_pace_key(&account_sid, &tenant_id),
                tenant_id,
                version: 0,
                account_sid,
                credentials: Credentials {
                    auth_token: self.auth_token.clone(),
                    secondary_auth_token: self.secondary_auth_token.clone(),
                    api_key,
                },
                from,
                region,
                default_locale,
                ring_timeout,
                enabled: self.enabled,
                allowed_countries,
                test_mode: self.test_mode,
                publishers: self.publishers.clone(),
                speech: self.speech.clone(),
                voicemail: self.voicemail,
                redial: self.redial.clone(),
                offered: true,
                paused: None,
                credentials_rejected: false,
                circuit_open: false,
                calls_per_second,
            }),
            _ => Err(problems.0),
        }
    }

    fn api_key(&self, problems: &mut Problems) -> Option<ApiKey> {
        match (&self.api_key_sid, &self.api_key_secret) {
            (None, None) => None,
            (Some(sid), Some(secret)) => {
                problems.check_secret(Setting::ApiKeySecret, secret);
                let sid = problems.parsed(Setting::ApiKeySid, ApiKeySid::parse(sid))?;
                Some(ApiKey {
                    sid,
                    secret: secret.clone(),
                })
            }
            (Some(_), None) => {
                problems.push(Setting::ApiKeySecret, "is required with the API key's SID");
                None
            }
            (None, Some(_)) => {
                problems.push(Setting::ApiKeySid, "is required with the API key's secret");
                None
            }
        }
    }

    fn countries(&self, from: Option<&PhoneNumber>, problems: &mut Problems) -> Vec<Country> {
        let mut countries = Vec::new();
        for country in &self.allowed_countries {
            countries.extend(problems.parsed(Setting::AllowedCountries, Country::parse(country)));
        }
        if countries.is_empty()
            && let Some(from) = from
        {
            match from.country() {
                Some(country) => countries.push(country),
                None => problems.push(
                    Setting::AllowedCountries,
                    "must name at least one country, since the From number belongs to none",
                ),
            }
        }
        countries
    }
}

/// The problems found so far.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn push(&mut self, setting: Setting, problem: impl Into<String>) {
        self.0.push(Problem {
            setting,
            problem: problem.into(),
        });
    }

    fn parsed<T>(&mut self, setting: Setting, parsed: Result<T, Refused>) -> Option<T> {
        parsed
            .map_err(|Refused(must_be)| self.push(setting, format!("must be {must_be}")))
            .ok()
    }

    /// Twilio's auth tokens are 32 hexadecimal digits today, but Twilio doesn't promise it.
    fn check_secret(&mut self, setting: Setting, secret: &SecretString) {
        let text = secret.expose_secret();
        if !(8..=256).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
            self.push(
                setting,
                "must be 8 to 256 printable ASCII characters without spaces",
            );
        }
    }
}

fn setting_of(member: StyleMember) -> Setting {
    match member {
        StyleMember::RatePercent => Setting::SpeechRate,
        StyleMember::PauseMs => Setting::DigitPause,
        StyleMember::Readings => Setting::Readings,
        StyleMember::Brands => Setting::Brands,
        StyleMember::Greetings => Setting::Greetings,
        StyleMember::Voices => Setting::Voices,
    }
}

impl From<&VoiceSettings> for Draft {
    /// The draft that [`Draft::check`] turns back into these settings.
    fn from(settings: &VoiceSettings) -> Self {
        let credentials = &settings.credentials;
        let api_key = credentials.api_key.as_ref();
        Self {
            account_sid: settings.account_sid.to_string(),
            auth_token: credentials.auth_token.clone(),
            secondary_auth_token: credentials.secondary_auth_token.clone(),
            api_key_sid: api_key.map(|key| key.sid.to_string()),
            api_key_secret: api_key.map(|key| key.secret.clone()),
            from: settings.from.expose().to_owned(),
            region: settings.region.as_ref().map(ToString::to_string),
            default_locale: settings.default_locale.as_ref().map(ToString::to_string),
            ring_timeout: Some(settings.ring_timeout),
            enabled: settings.enabled,
            allowed_countries: settings
                .allowed_countries
                .iter()
                .map(ToString::to_string)
                .collect(),
            test_mode: settings.test_mode,
            publishers: settings.publishers.clone(),
            speech: settings.speech.clone(),
            voicemail: settings.voicemail,
            redial: settings.redial.clone(),
            calls_per_second: Some(settings.calls_per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft {
            account_sid: format!("AC{}", "0a".repeat(16)),
            auth_token: SecretString::from("0123456789abcdef"),
            from: "+14155552671".to_owned(),
            enabled: true,
            ..Draft::default()
        }
    }

    #[test]
    fn sensible_defaults_make_three_settings_enough() {
        let settings = draft().check(TenantId::parse("acme").unwrap()).unwrap();
        assert_eq!(settings.ring_timeout, Duration::from_secs(30));
        assert_eq!(settings.allowed_countries, [Country::parse("us").unwrap()]);
        assert!((settings.calls_per_second - 1.0).abs() < f64::EPSILON);
        assert!(settings.pace_key.ends_with("/acme"));
    }

    #[test]
    fn all_problems_are_reported_together_and_none_shows_a_secret() {
        let bad = Draft {
            account_sid: "AC1".to_owned(),
            auth_token: SecretString::from("s3cret "),
            from: "555".to_owned(),
            region: Some("mars".to_owned()),
            default_locale: Some("english".to_owned()),
            ring_timeout: Some(Duration::from_secs(1)),
            calls_per_second: Some(0.0),
            allowed_countries: vec!["USA".to_owned()],
            publishers: vec![String::new()],
            api_key_sid: Some("SK1".to_owned()),
            ..Draft::default()
        };
        let problems = bad.check(TenantId::parse("acme").unwrap()).unwrap_err();
        let named: Vec<_> = problems.iter().map(|problem| problem.setting).collect();
        let all = [
            Setting::AccountSid,
            Setting::AuthToken,
            Setting::ApiKeySecret,
            Setting::From,
            Setting::Region,
            Setting::DefaultLocale,
            Setting::RingTimeout,
            Setting::CallsPerSecond,
            Setting::AllowedCountries,
            Setting::Publishers,
        ];
        assert_eq!(named, all);
        assert!(!format!("{problems:?}{bad:?}").contains("s3cret"));
    }

    #[test]
    fn a_user_that_is_not_on_a_tenants_list_may_not_publish_for_it() {
        let open = draft().check(TenantId::parse("acme").unwrap()).unwrap();
        assert!(open.may_publish(None) && open.may_publish(Some("any-user")));
        let listed = Draft {
            publishers: vec!["auth-login".to_owned()],
            ..draft()
        };
        let closed = listed.check(TenantId::parse("acme").unwrap()).unwrap();
        assert!(closed.may_publish(Some("auth-login")));
        assert!(!closed.may_publish(Some("auth-login2")) && !closed.may_publish(None));
    }
}
