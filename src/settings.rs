//! A tenant's voice settings, checked in one place for every way of entering them.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use voice_otp_schemas::phone::Country;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::{Locale, PhoneNumber, Refused, TenantId};

use crate::account::{AccountSid, ApiKeySid};
use crate::policy::{Policy, Redial, Voicemail};
use crate::speech::Manner;

/// How a tenant's calls are made. Only [`Draft::check`] and the store make one.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting, or a state, of its own"
)]
pub struct VoiceSettings {
    /// Whose.
    pub tenant_id: TenantId,
    /// Counts up with every change; 0 before the first save.
    pub version: i64,
    /// The Twilio account that pays and whose pace counts.
    pub account_sid: AccountSid,
    /// What proves to Twilio that we may.
    pub credentials: Credentials,
    /// The number the callee sees.
    pub from: PhoneNumber,
    /// Where the account lives at Twilio, unless in `us1`.
    pub region: Option<Region>,
    /// The language, where the request says none.
    pub default_locale: Option<Locale>,
    /// How long it may ring, 5 s to 600 s (Twilio's bounds are 1 and 600).
    pub ring_timeout: Duration,
    /// Whether the tenant has voice at all.
    pub enabled: bool,
    /// The countries that may be called.
    pub allowed_countries: Vec<Country>,
    /// Everything but the call: `accepted`, then `delivered` with `test`.
    pub test_mode: bool,
    /// Which of the broker's users may speak for the tenant. Empty: anybody who may publish.
    pub publishers: Vec<String>,
    /// How codes are read.
    pub manner: Manner,
    /// What is done about answering machines.
    pub voicemail: Voicemail,
    /// When a call that reached nobody is placed again.
    pub redial: Redial,
    /// Whether users may pick voice: where not, only test calls are placed.
    pub offered: bool,
    /// Whether nothing is placed for now.
    pub paused: Option<Paused>,
    /// Whether Twilio has refused these credentials and not taken them since: nothing is tried with them.
    pub refused: bool,
    /// Whether the account's circuit is open or being tried out: a call that goes well closes it.
    pub on_trial: bool,
    /// The account's pace.
    pub calls_per_second: f64,
    /// Under which key the pace is kept: the account, or the account and the tenant until Twilio has taken the
    /// tenant's credentials once. Account SIDs aren't secret, so claiming one must not slow its owner.
    pub pace_key: String,
}

/// Who is paused, by an operator. Requests are admitted, and wait; what can't wait ends.
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
    /// Signs callbacks, and authenticates where there is no API key.
    pub auth_token: SecretString,
    /// The other token while the first is being rotated.
    pub secondary_auth_token: Option<SecretString>,
    /// Authenticates instead of the token.
    pub api_key: Option<ApiKey>,
}

/// An API key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its name.
    pub sid: ApiKeySid,
    /// Its secret.
    pub secret: SecretString,
}

/// Where at Twilio: `api.{edge}.{region}.twilio.com`. An edge alone means region `us1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The region, for example `ie1`.
    pub region: String,
    /// The edge, for example `dublin`.
    pub edge: String,
}

/// Settings as somebody entered them, nothing checked.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// See [`VoiceSettings::account_sid`].
    pub account_sid: String,
    /// See [`Credentials::auth_token`].
    pub auth_token: SecretString,
    /// See [`Credentials::secondary_auth_token`].
    pub secondary_auth_token: Option<SecretString>,
    /// See [`Credentials::api_key`]; its secret must come with it.
    pub api_key_sid: Option<String>,
    /// See [`Credentials::api_key`].
    pub api_key_secret: Option<SecretString>,
    /// See [`VoiceSettings::from`].
    pub from: String,
    /// `region` or `edge.region`, for example `dublin.ie1`.
    pub region: Option<String>,
    /// See [`VoiceSettings::default_locale`].
    pub default_locale: Option<String>,
    /// See [`VoiceSettings::ring_timeout`]; 30 s where not given.
    pub ring_timeout: Option<Duration>,
    /// See [`VoiceSettings::enabled`].
    pub enabled: bool,
    /// See [`VoiceSettings::allowed_countries`]; the From number's own where empty.
    pub allowed_countries: Vec<String>,
    /// See [`VoiceSettings::test_mode`].
    pub test_mode: bool,
    /// See [`VoiceSettings::publishers`].
    pub publishers: Vec<String>,
    /// See [`VoiceSettings::manner`].
    pub manner: Manner,
    /// See [`VoiceSettings::voicemail`].
    pub voicemail: Voicemail,
    /// See [`VoiceSettings::redial`].
    pub redial: Redial,
    /// See [`VoiceSettings::calls_per_second`]; what the account has, else 1, where not given.
    pub calls_per_second: Option<f64>,
}

/// What is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct Problem {
    /// The setting's name, as in [`Draft`].
    pub setting: &'static str,
    /// What it must be. Never a secret.
    pub problem: String,
}

/// The pace Twilio gives every account at first, calls per second
/// (<https://www.twilio.com/docs/voice/api/call-resource>).
pub const DEFAULT_CALLS_PER_SECOND: f64 = 1.0;

const MOST_PUBLISHERS: usize = 32;
const DEFAULT_RING_TIMEOUT: Duration = Duration::from_secs(30);

impl Draft {
    /// Checks every setting.
    ///
    /// # Errors
    /// All problems, in the order of the settings.
    pub fn check(&self, tenant_id: TenantId) -> Result<VoiceSettings, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |setting, problem: &str| {
            problems.push(Problem {
                setting,
                problem: problem.to_owned(),
            })
        };

        let account_sid = AccountSid::parse(&self.account_sid)
            .map_err(|Refused(why)| wrong("account_sid", why))
            .ok();
        check_secret(&self.auth_token).unwrap_or_else(|why| wrong("auth_token", why));
        if let Some(token) = &self.secondary_auth_token {
            check_secret(token).unwrap_or_else(|why| wrong("secondary_auth_token", why));
        }
        let api_key = match (&self.api_key_sid, &self.api_key_secret) {
            (None, None) => None,
            (Some(sid), Some(secret)) => {
                check_secret(secret).unwrap_or_else(|why| wrong("api_key_secret", why));
                let sid = ApiKeySid::parse(sid)
                    .map_err(|Refused(why)| wrong("api_key_sid", why))
                    .ok();
                sid.map(|sid| ApiKey {
                    sid,
                    secret: secret.clone(),
                })
            }
            (Some(_), None) => {
                wrong("api_key_secret", "an API key needs its secret");
                None
            }
            (None, Some(_)) => {
                wrong("api_key_sid", "an API key's secret needs its SID");
                None
            }
        };
        let from = PhoneNumber::parse(&self.from)
            .map_err(|Refused(why)| wrong("from", why))
            .ok();
        let region = self
            .region
            .as_deref()
            .map(Region::parse)
            .transpose()
            .unwrap_or_else(|Refused(why)| {
                wrong("region", why);
                None
            });
        let default_locale = self
            .default_locale
            .as_deref()
            .map(Locale::parse)
            .transpose()
            .unwrap_or_else(|Refused(why)| {
                wrong("default_locale", why);
                None
            });
        let ring_timeout = self.ring_timeout.unwrap_or(DEFAULT_RING_TIMEOUT);
        if !(Duration::from_secs(5)..=Duration::from_mins(10)).contains(&ring_timeout) {
            wrong("ring_timeout", "5 s to 600 s");
        }
        let calls_per_second = self.calls_per_second.unwrap_or(DEFAULT_CALLS_PER_SECOND);
        if !(calls_per_second.is_finite() && (0.001..=10_000.0).contains(&calls_per_second)) {
            wrong("calls_per_second", "0.001 to 10000 calls a second");
        }
        let mut allowed_countries = Vec::new();
        for country in &self.allowed_countries {
            match Country::parse(country) {
                Ok(country) => allowed_countries.push(country),
                Err(Refused(why)) => wrong("allowed_countries", why),
            }
        }
        if allowed_countries.is_empty() {
            match from.as_ref().map(PhoneNumber::country) {
                Some(Some(country)) => allowed_countries.push(country),
                Some(None) => wrong(
                    "allowed_countries",
                    "name at least one country: the From number belongs to none",
                ),
                None => {}
            }
        }
        let name =
            |user: &String| (1..=255).contains(&user.len()) && !user.chars().any(char::is_control);
        if self.publishers.len() > MOST_PUBLISHERS || !self.publishers.iter().all(name) {
            wrong(
                "publishers",
                "at most 32 names of RabbitMQ users, each of 1 to 255 bytes",
            );
        }
        for (setting, problem) in self.manner.problems() {
            wrong(setting, &problem);
        }
        if let Some(problem) = self.redial.problem() {
            wrong("redial", &problem);
        }
        match (account_sid, from) {
            (Some(account_sid), Some(from)) if problems.is_empty() => Ok(VoiceSettings {
                pace_key: unproven_pace_key(&account_sid, &tenant_id),
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
                manner: self.manner.clone(),
                voicemail: self.voicemail,
                redial: self.redial.clone(),
                offered: true,
                paused: None,
                refused: false,
                on_trial: false,
                calls_per_second,
            }),
            _ => Err(problems),
        }
    }
}

impl VoiceSettings {
    /// What becomes of its calls.
    pub fn policy(&self) -> Policy {
        Policy {
            voicemail: self.voicemail,
            redial: self.redial.clone(),
        }
    }

    /// Whether a message from this user of the broker speaks for the tenant. The broker vouches for the name; a message
    /// that says none is nobody's.
    pub fn may_publish(&self, user: Option<&str>) -> bool {
        self.publishers.is_empty()
            || user.is_some_and(|user| self.publishers.iter().any(|allowed| allowed == user))
    }
}

impl Paused {
    /// Why its deliveries wait.
    pub fn reason(self) -> Reason {
        let message = match self {
            Self::Tenant => {
                "the tenant is paused; its calls are placed when it is resumed, if the code still lives"
            }
            Self::Account => {
                "the Twilio account is paused; its calls are placed when it is resumed, if the code still lives"
            }
        };
        Reason::new(ReasonCode::Paused, message)
    }
}

/// The pace key of a tenant whose credentials Twilio has not taken yet.
pub fn unproven_pace_key(account_sid: &AccountSid, tenant_id: &TenantId) -> String {
    format!("{account_sid}/{tenant_id}")
}

/// The auth tokens of Twilio are 32 hexadecimal digits today; nothing promises that they stay so.
fn check_secret(secret: &SecretString) -> Result<(), &'static str> {
    let text = secret.expose_secret();
    if !(8..=256).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("8 to 256 printable ASCII characters without spaces");
    }
    Ok(())
}

impl Region {
    /// Parses `region` or `edge.region`.
    ///
    /// # Errors
    /// [`Refused`] says what it looks like.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let word = |part: &str| {
            (2..=24).contains(&part.len())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let (edge, region) = match text.split_once('.') {
            Some((edge, region)) => (edge, region),
            None => (usual_edge(text).unwrap_or_default(), text),
        };
        if !word(edge) || !word(region) {
            return Err(Refused(
                "a Twilio region with its edge, for example dublin.ie1, or us1, ie1, au1 alone",
            ));
        }
        Ok(Self {
            region: region.to_owned(),
            edge: edge.to_owned(),
        })
    }
}

/// The edge in the same place as a region (<https://www.twilio.com/docs/global-infrastructure/edge-locations>).
fn usual_edge(region: &str) -> Option<&'static str> {
    match region {
        "us1" => Some("ashburn"),
        "ie1" => Some("dublin"),
        "au1" => Some("sydney"),
        "jp1" => Some("tokyo"),
        _ => None,
    }
}

impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.edge, self.region)
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
    fn all_problems_are_told_together_and_none_shows_a_secret() {
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
            "account_sid",
            "auth_token",
            "api_key_secret",
            "from",
            "region",
            "default_locale",
            "ring_timeout",
            "calls_per_second",
            "allowed_countries",
            "publishers",
        ];
        assert_eq!(named, all);
        assert!(!format!("{problems:?}{bad:?}").contains("s3cret"));
    }

    #[test]
    fn who_is_not_on_a_tenants_list_does_not_speak_for_it() {
        let open = draft().check(TenantId::parse("acme").unwrap()).unwrap();
        assert!(open.may_publish(None) && open.may_publish(Some("anybody")));
        let listed = Draft {
            publishers: vec!["auth-login".to_owned()],
            ..draft()
        };
        let closed = listed.check(TenantId::parse("acme").unwrap()).unwrap();
        assert!(closed.may_publish(Some("auth-login")));
        assert!(!closed.may_publish(Some("auth-login2")) && !closed.may_publish(None));
    }

    #[test]
    fn a_region_brings_its_edge() {
        assert_eq!(Region::parse("ie1").unwrap().to_string(), "dublin.ie1");
        assert_eq!(
            Region::parse("sydney.au1").unwrap().to_string(),
            "sydney.au1"
        );
        assert!(Region::parse("evil.example.com").is_err());
    }
}
