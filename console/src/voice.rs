//! A tenant's voice provider: shown, saved, removed, checked, and tried with a call.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use voice_otp::policy::{Again, Outcome, Voicemail};
use voice_otp::settings::{Draft, VoiceSettings};
use voice_otp::speech::{Manner, Speaker};
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::{Locale, OtpCode, PhoneNumber, TenantId, Timestamp};
use voice_otp_store::settings::{self, Circumstances, Expected};
use voice_otp_store::test_calls;
use voice_otp_twilio::check::{Finding, check};

use super::Console;
use super::access::Caller;
use super::problem::{FieldError, Problem};
use crate::verb::tenant::{changes, draft_of, test_call};

/// A tenant's voice provider. Secrets are never told.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct VoiceProvider {
    /// Always `twilio`.
    pub(super) provider: &'static str,
    /// Goes up with every change; also the `ETag`.
    pub(super) version: i64,
    /// When it was last changed, RFC 3339.
    pub(super) updated_at: Option<String>,
    /// Whether voice is on at all: operators switch it off in an emergency.
    pub(super) enabled: bool,
    /// Whether users may pick Voice OTP: see methods.
    pub(super) offered: bool,
    /// Twilio SID: the Account SID.
    pub(super) account_sid: String,
    /// Twilio Auth Token.
    pub(super) auth_token: SecretState,
    /// The other auth token, while the first is being rotated.
    pub(super) secondary_auth_token: SecretState,
    /// The SID of an API key that is used instead of the auth token.
    pub(super) api_key_sid: Option<String>,
    /// Its secret.
    pub(super) api_key_secret: SecretState,
    /// From: the number calls come from, E.164.
    pub(super) from: String,
    /// Twilio's edge and region, for example `dublin.ie1`.
    pub(super) region: Option<String>,
    /// The language where a request names none, BCP 47.
    pub(super) default_locale: Option<String>,
    /// How long a phone rings, in seconds.
    pub(super) ring_timeout_s: u64,
    /// Countries that may be called, ISO 3166-1 alpha-2.
    pub(super) allowed_countries: Vec<String>,
    /// Calls a second of the account.
    pub(super) calls_per_second: f64,
    /// Whether other tenants use the account too: its pace is the operators' then.
    pub(super) account_shared: bool,
    /// Whether calls are only pretended.
    pub(super) test_mode: bool,
    /// Whether Twilio refuses the credentials: nothing is tried with them.
    pub(super) refused: bool,
    /// Whether somebody paused the tenant or its account.
    pub(super) paused: bool,
    /// How codes are read.
    pub(super) speech: Speech,
    /// What is done about answering machines: `speak`, `hang_up`, `wait_for_beep`, `press_key`.
    pub(super) voicemail: String,
    /// By outcome (`busy`, `no_answer`, `failed`, `voicemail`), how often and when a call is placed again.
    pub(super) redial: BTreeMap<String, RedialRule>,
}

/// Whether a secret is there, and since when it is the one that it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SecretState {
    /// Whether there is one.
    pub(super) set: bool,
    /// Since when, RFC 3339.
    pub(super) since: Option<String>,
}

/// How codes are read; see `voice-otp speech preview`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Speech {
    /// How fast is spoken, in percent of the voice's own pace: 50 to 120.
    #[schema(minimum = 50, maximum = 120)]
    pub(super) rate_percent: u32,
    /// The pause after each character of the code, in milliseconds: 200 to 2,000.
    #[schema(minimum = 200, maximum = 2_000)]
    pub(super) pause_ms: u32,
    /// How often the code is read: 1 to 5.
    #[schema(minimum = 1, maximum = 5)]
    pub(super) readings: u32,
    /// Whose call it is, by locale; `*` for every locale without one of its own.
    pub(super) brands: BTreeMap<String, String>,
    /// Greetings of the tenant's own, by locale; `{brand}` stands for the brand.
    pub(super) greetings: BTreeMap<String, String>,
    /// Other voices than ours, by locale.
    pub(super) voices: BTreeMap<String, String>,
}

/// How often, and how much later.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedialRule {
    /// Calls in addition to the first: 0 to 5.
    #[schema(maximum = 5)]
    pub(super) times: u32,
    /// How long after the end of the last one, in seconds: 5 to 1,800.
    #[schema(minimum = 5, maximum = 1_800)]
    pub(super) after_s: u64,
}

/// A voice provider to be saved: all of it, but for secrets, which stay as they are where they are left out.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewVoiceProvider {
    /// `twilio`, or left out.
    #[serde(default)]
    pub(super) provider: Option<String>,
    /// Twilio SID: the Account SID.
    pub(super) account_sid: String,
    /// Twilio Auth Token; left out: as it is.
    #[serde(default)]
    #[schema(value_type = Option<String>, write_only)]
    pub(super) auth_token: Option<SecretString>,
    /// The other auth token; empty: none any more; left out: as it is.
    #[serde(default)]
    #[schema(value_type = Option<String>, write_only)]
    pub(super) secondary_auth_token: Option<SecretString>,
    /// The SID of an API key; left out: none.
    #[serde(default)]
    pub(super) api_key_sid: Option<String>,
    /// Its secret; left out: as it is.
    #[serde(default)]
    #[schema(value_type = Option<String>, write_only)]
    pub(super) api_key_secret: Option<SecretString>,
    /// From: the number calls come from, E.164.
    pub(super) from: String,
    /// Twilio's region, or edge and region.
    #[serde(default)]
    pub(super) region: Option<String>,
    /// The language where a request names none.
    #[serde(default)]
    pub(super) default_locale: Option<String>,
    /// How long a phone rings, in seconds: 5 to 600; left out: 30.
    #[serde(default)]
    #[schema(minimum = 5, maximum = 600)]
    pub(super) ring_timeout_s: Option<u64>,
    /// Countries that may be called; left out: the From number's.
    #[serde(default)]
    pub(super) allowed_countries: Vec<String>,
    /// Calls a second of the account; left out: as it is.
    #[serde(default)]
    pub(super) calls_per_second: Option<f64>,
    /// Whether calls are only pretended.
    #[serde(default)]
    pub(super) test_mode: bool,
    /// How codes are read; left out: as usual.
    #[serde(default)]
    pub(super) speech: Speech,
    /// What is done about answering machines; left out: `speak`.
    #[serde(default)]
    pub(super) voicemail: Option<String>,
    /// When calls are placed again; left out: never.
    #[serde(default)]
    pub(super) redial: BTreeMap<String, RedialRule>,
}

impl Default for Speech {
    fn default() -> Self {
        Self::of(&Manner::default())
    }
}

impl Speech {
    fn of(manner: &Manner) -> Self {
        let Manner {
            rate_percent,
            pause_ms,
            readings,
            brands,
            greetings,
            voices,
        } = manner.clone();
        Self {
            rate_percent,
            pause_ms,
            readings,
            brands,
            greetings,
            voices,
        }
    }

    fn manner(&self) -> Manner {
        let Self {
            rate_percent,
            pause_ms,
            readings,
            brands,
            greetings,
            voices,
        } = self.clone();
        Manner {
            rate_percent,
            pause_ms,
            readings,
            brands,
            greetings,
            voices,
        }
    }
}

impl VoiceProvider {
    fn of(settings: &VoiceSettings, around: &Circumstances) -> Self {
        let credentials = &settings.credentials;
        let secret = |set, since: Option<Timestamp>| SecretState {
            set,
            since: since.filter(|_| set).map(rfc3339),
        };
        Self {
            provider: "twilio",
            version: settings.version,
            updated_at: Some(rfc3339(around.updated_at)),
            enabled: settings.enabled,
            offered: settings.offered,
            account_sid: settings.account_sid.to_string(),
            auth_token: secret(true, around.auth_token_since),
            secondary_auth_token: secret(
                credentials.secondary_auth_token.is_some(),
                around.secondary_auth_token_since,
            ),
            api_key_sid: credentials.api_key.as_ref().map(|key| key.sid.to_string()),
            api_key_secret: secret(credentials.api_key.is_some(), around.api_key_since),
            from: settings.from.expose().to_owned(),
            region: settings.region.as_ref().map(ToString::to_string),
            default_locale: settings.default_locale.as_ref().map(ToString::to_string),
            ring_timeout_s: settings.ring_timeout.as_secs(),
            allowed_countries: settings
                .allowed_countries
                .iter()
                .map(ToString::to_string)
                .collect(),
            calls_per_second: settings.calls_per_second,
            account_shared: around.shared,
            test_mode: settings.test_mode,
            refused: settings.refused,
            paused: settings.paused.is_some(),
            speech: Speech::of(&settings.manner),
            voicemail: settings.voicemail.as_str().to_owned(),
            redial: settings
                .redial
                .iter()
                .map(|(outcome, again)| {
                    (
                        outcome.as_str().to_owned(),
                        RedialRule {
                            times: again.times,
                            after_s: again.after_s,
                        },
                    )
                })
                .collect(),
        }
    }
}

/// The tenant's settings, with their secrets; none where there are none.
pub(super) async fn load(
    console: &Console,
    tenant: &TenantId,
) -> Result<Option<VoiceSettings>, Problem> {
    Ok(settings::load_one(&console.pool, &console.keys, tenant).await?)
}

/// The tenant's provider, without secrets; none where there is none.
pub(super) async fn show(
    console: &Console,
    tenant: &TenantId,
) -> Result<Option<VoiceProvider>, Problem> {
    let Some(settings) = load(console, tenant).await? else {
        return Ok(None);
    };
    let around = settings::circumstances(&console.pool, tenant).await?;
    Ok(around.map(|around| VoiceProvider::of(&settings, &around)))
}

/// Saves a provider, if what is there is what was expected.
pub(super) async fn save(
    console: &Console,
    caller: &Caller,
    tenant: &TenantId,
    new: &NewVoiceProvider,
    expected: Expected,
) -> Result<VoiceProvider, Problem> {
    let present = match load(console, tenant).await {
        Err(_) if expected == Expected::Nothing => None,
        other => other?,
    };
    let mut errors = Vec::new();
    let draft = draft(console, new, present.as_ref(), &mut errors);
    let checked = match draft.check(tenant.clone()) {
        Ok(checked) if errors.is_empty() => checked,
        Ok(_) => return Err(Problem::invalid(errors)),
        Err(problems) => {
            errors.extend(problems.into_iter().map(|problem| FieldError {
                field: field_of(problem.setting),
                message: problem.problem,
            }));
            return Err(Problem::invalid(errors));
        }
    };
    let same_account = present
        .as_ref()
        .is_some_and(|present| present.account_sid == checked.account_sid);
    let pace = new.calls_per_second.filter(|pace| {
        let changes = present
            .as_ref()
            .is_none_or(|present| (present.calls_per_second - pace).abs() > f64::EPSILON);
        changes || !same_account
    });
    if pace.is_some() && caller.operator().is_err() {
        // An account's SID is no secret: whoever only claims it must not change its owner's pace.
        let proven = present.as_ref().is_some_and(|present| {
            same_account && present.pace_key == present.account_sid.as_str()
        });
        let message = if !proven {
            Some(
                "it can be changed once Twilio has taken a call with these credentials: save without it, and make a test call",
            )
        } else if settings::uses(&console.pool, &checked.account_sid, tenant).await? {
            Some("other tenants use this Twilio account too: ask an operator to change its pace")
        } else {
            None
        };
        if let Some(message) = message {
            let error = FieldError {
                field: "calls_per_second".to_owned(),
                message: message.to_owned(),
            };
            return Err(Problem::invalid(vec![error]));
        }
    }
    let checked = VoiceSettings {
        offered: present.as_ref().is_some_and(|present| present.offered),
        ..checked
    };
    if !settings::save_expecting(&console.pool, &console.keys, &checked, pace, expected).await? {
        return Err(Problem::changed());
    }
    let saved = show(console, tenant).await?.ok_or_else(Problem::changed)?;
    let what = if present.is_some() {
        "voice_provider.changed"
    } else {
        "voice_provider.created"
    };
    caller
        .note(
            console,
            Some(tenant),
            what,
            changes(present.as_ref(), &checked, pace),
        )
        .await?;
    Ok(saved)
}

fn draft(
    console: &Console,
    new: &NewVoiceProvider,
    present: Option<&VoiceSettings>,
    errors: &mut Vec<FieldError>,
) -> Draft {
    let mut wrong = |field: &str, message: &str| {
        errors.push(FieldError {
            field: field.to_owned(),
            message: message.to_owned(),
        });
    };
    let text = |text: &Option<String>| {
        text.as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let entered = |secret: &SecretString| !secret.expose_secret().is_empty();
    let mut draft = present.map_or_else(
        || Draft {
            enabled: true,
            ..Draft::default()
        },
        draft_of,
    );
    if new
        .provider
        .as_deref()
        .is_some_and(|provider| provider != "twilio")
    {
        wrong("provider", "twilio is the only one");
    }
    new.account_sid.trim().clone_into(&mut draft.account_sid);
    if let Some(token) = new.auth_token.clone().filter(entered) {
        draft.auth_token = token;
    }
    if let Some(secondary) = &new.secondary_auth_token {
        draft.secondary_auth_token = Some(secondary.clone()).filter(entered);
    }
    draft.api_key_sid = text(&new.api_key_sid);
    draft.api_key_secret = match (
        &draft.api_key_sid,
        new.api_key_secret.clone().filter(entered),
    ) {
        (_, Some(secret)) => Some(secret),
        (Some(_), None) => draft.api_key_secret,
        (None, None) => None,
    };
    new.from.trim().clone_into(&mut draft.from);
    draft.region = text(&new.region);
    draft.default_locale = text(&new.default_locale);
    draft.ring_timeout = new.ring_timeout_s.map(Duration::from_secs);
    draft.allowed_countries.clone_from(&new.allowed_countries);
    draft.calls_per_second = new.calls_per_second.or(draft.calls_per_second);
    draft.test_mode = new.test_mode;
    draft.manner = new.speech.manner();
    let voicemail = text(&new.voicemail);
    match voicemail
        .as_deref()
        .map_or(Some(Voicemail::Speak), Voicemail::from_word)
    {
        Some(policy) if policy.needs_public_url() && !console.has_public_url => {
            wrong(
                "voicemail",
                "all but speak need workers that Twilio can reach: an operator sets VOICE_OTP_PUBLIC_URL",
            );
        }
        Some(policy) => draft.voicemail = policy,
        None => wrong("voicemail", "speak, hang_up, wait_for_beep or press_key"),
    }
    draft.redial = voice_otp::policy::Redial::default();
    for (outcome, rule) in &new.redial {
        match Outcome::from_word(outcome) {
            Some(outcome) => draft.redial.set(
                outcome,
                Again {
                    times: rule.times,
                    after_s: rule.after_s,
                },
            ),
            None => wrong(
                "redial",
                "outcomes are busy, no_answer, failed and voicemail",
            ),
        }
    }
    draft
}

/// The API's name of a setting.
fn field_of(setting: &str) -> String {
    match setting {
        "ring_timeout" => "ring_timeout_s",
        "speech_rate" => "speech.rate_percent",
        "digit_pause" => "speech.pause_ms",
        "readings" => "speech.readings",
        "brand" => "speech.brands",
        "greeting" => "speech.greetings",
        "voice" => "speech.voices",
        other => other,
    }
    .to_owned()
}

/// Removes the provider of this version.
pub(super) async fn remove(
    console: &Console,
    caller: &Caller,
    tenant: &TenantId,
    version: i64,
) -> Result<(), Problem> {
    let held = load(console, tenant).await?.is_some_and(|settings| {
        !settings.enabled || settings.paused.is_some() || !settings.publishers.is_empty()
    });
    if held && caller.operator().is_err() {
        let why = "an operator has switched voice off, paused it, or said who may publish for this tenant: that would be lost";
        return Err(Problem::operators_only(why));
    }
    if !settings::delete_version(&console.pool, tenant, version).await? {
        let there = settings::circumstances(&console.pool, tenant)
            .await?
            .is_some();
        return Err(if there {
            Problem::changed()
        } else {
            Problem::not_found()
        });
    }
    caller
        .note(console, Some(tenant), "voice_provider.removed", json!({}))
        .await
}

/// Checks with Twilio whether the provider can work.
pub(super) async fn examine(console: &Console, tenant: &TenantId) -> Result<Vec<Finding>, Problem> {
    let settings = load(console, tenant)
        .await?
        .ok_or_else(|| Problem::not_configured(tenant.as_str()))?;
    Ok(check(&console.twilio, &settings).await)
}

/// A test call that is on its way.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct TestCall {
    /// The delivery's id.
    pub(super) delivery_id: String,
    /// The code that is read, good for nothing: compare it with what is heard.
    pub(super) code: String,
    /// The number, masked.
    pub(super) to_masked: String,
    /// What is said.
    pub(super) says: String,
    /// Where its statuses come, as server-sent events.
    pub(super) events: String,
}

/// Places a test call.
pub(super) async fn try_out(
    console: &Console,
    caller: &Caller,
    tenant: &TenantId,
    to: &str,
    locale: Option<&str>,
) -> Result<TestCall, Problem> {
    let settings = load(console, tenant)
        .await?
        .ok_or_else(|| Problem::not_configured(tenant.as_str()))?;
    let mut errors = Vec::new();
    let mut wrong = |field: &str, message: String| {
        errors.push(FieldError {
            field: field.to_owned(),
            message,
        })
    };
    let to = PhoneNumber::parse(to.trim())
        .map_err(|error| wrong("to", error.to_string()))
        .ok();
    let locale = locale.map(str::trim).filter(|locale| !locale.is_empty());
    let locale = locale
        .map(Locale::parse)
        .transpose()
        .unwrap_or_else(|error| {
            wrong("locale", error.to_string());
            None
        });
    if let Some(country) = to.as_ref().and_then(PhoneNumber::country)
        && !settings.allowed_countries.contains(&country)
    {
        wrong(
            "to",
            format!("calls to {country} are not allowed: add it to the allowed countries first"),
        );
    }
    let Some(to) = to.filter(|_| errors.is_empty()) else {
        return Err(Problem::invalid(errors));
    };
    test_calls::take(&console.pool, tenant)
        .await
        .map_err(|error| match error {
            test_calls::Error::TooMany(_) => Problem::too_many(error.to_string()),
            other => Problem::unavailable(&other),
        })?;
    let request = test_call::request(tenant.clone(), to, locale)
        .map_err(|error| Problem::unavailable(&*error))?;
    caller
        .note(
            console,
            Some(tenant),
            "test_call",
            json!({ "to": request.to.masked(), "delivery_id": request.delivery_id }),
        )
        .await?;
    let life = Duration::from_mins(2);
    let speaker = Speaker::new(
        request.locale.as_ref(),
        settings.default_locale.as_ref(),
        request.to.country(),
        &settings.manner,
    );
    let says = speaker.message(&request.code, life).text();
    let call = TestCall {
        delivery_id: request.delivery_id.to_string(),
        code: exposed(&request.code),
        to_masked: request.to.masked(),
        says,
        events: format!(
            "/api/v1/tenants/{tenant}/deliveries/{}/events",
            request.delivery_id
        ),
    };
    console
        .publisher
        .request(&request)
        .await
        .map_err(|error| Problem::unavailable(&error))?;
    Ok(call)
}

/// The code of a test call is for who makes it.
fn exposed(code: &OtpCode) -> String {
    code.expose().to_owned()
}
