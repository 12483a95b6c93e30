//! A voice provider as a tenant enters it.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;
use voice_otp::settings::policy::{Redial, Voicemail};
use voice_otp::settings::{Draft, Setting, VoiceSettings};
use voice_otp::speech::SpeechStyle;

use super::redial::{RedialRule, policy_of};
use super::speech::Speech;
use super::view::VoiceProvider;
use crate::problem::FieldError;

/// Voice provider to save. It replaces every setting; omitted secrets are left unchanged.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewVoiceProvider {
    /// `twilio`, or omitted.
    #[serde(default)]
    pub(crate) provider: Option<String>,
    /// Twilio account that places the calls.
    pub(crate) account_sid: String,
    /// Auth token of the account; omitted: unchanged.
    #[serde(default)]
    #[schema(value_type = Option<String>, write_only)]
    pub(crate) auth_token: Option<SecretString>,
    /// Second auth token, accepted during a rotation; empty: removed; omitted: unchanged.
    #[serde(default)]
    #[schema(value_type = Option<String>, write_only)]
    pub(crate) secondary_auth_token: Option<SecretString>,
    /// API key that authenticates requests instead of the auth token; omitted: no API key.
    #[serde(default)]
    pub(crate) api_key_sid: Option<String>,
    /// Secret of the API key; omitted: unchanged.
    #[serde(default)]
    #[schema(value_type = Option<String>, write_only)]
    pub(crate) api_key_secret: Option<SecretString>,
    /// Caller ID: a voice number of the account, or one that it verified, E.164.
    pub(crate) from: String,
    /// Twilio region, with or without its edge; omitted: `us1`.
    #[serde(default)]
    pub(crate) region: Option<String>,
    /// Language of requests that name none, BCP 47; omitted: the language of the number's country.
    #[serde(default)]
    pub(crate) default_locale: Option<String>,
    /// How long a phone rings, in seconds: 5 to 600; omitted: 30.
    #[serde(default)]
    #[schema(minimum = 5, maximum = 600)]
    pub(crate) ring_timeout_s: Option<u64>,
    /// Countries that may be called, ISO 3166-1 alpha-2; omitted: the country of the From number.
    #[serde(default)]
    pub(crate) allowed_countries: Vec<String>,
    /// Rate limit of the account in calls per second; omitted: unchanged.
    #[serde(default)]
    pub(crate) calls_per_second: Option<f64>,
    /// Whether to simulate calls: requests are reported as delivered, and no call is placed.
    #[serde(default)]
    pub(crate) test_mode: bool,
    /// How codes are read; omitted members have their defaults.
    #[serde(default)]
    pub(crate) speech: Speech,
    /// Action when a machine answers: `speak` (default), `hang_up`, `wait_for_beep` or
    /// `press_key`.
    #[serde(default)]
    pub(crate) voicemail: Option<String>,
    /// Redial rules by outcome: `busy`, `no_answer`, `failed` or `voicemail`; omitted: no redial.
    #[serde(default)]
    pub(crate) redial: BTreeMap<String, RedialRule>,
}

impl From<&VoiceProvider> for NewVoiceProvider {
    /// The input that leaves the provider as it is. The rate limit is left out, since it belongs
    /// to the account and may change meanwhile.
    fn from(provider: &VoiceProvider) -> Self {
        Self {
            account_sid: provider.account_sid.clone(),
            api_key_sid: provider.api_key_sid.clone(),
            from: provider.from.clone(),
            region: provider.region.clone(),
            default_locale: provider.default_locale.clone(),
            ring_timeout_s: Some(provider.ring_timeout_s),
            allowed_countries: provider.allowed_countries.clone(),
            test_mode: provider.test_mode,
            speech: provider.speech.clone(),
            voicemail: Some(provider.voicemail.clone()),
            redial: provider.redial.clone(),
            ..Self::default()
        }
    }
}

impl NewVoiceProvider {
    /// The draft of the settings: the current ones with this input. Errors are what only the
    /// console checks; [`Draft::check`] finds the others.
    pub(super) fn draft(
        &self,
        current: Option<&VoiceSettings>,
        has_public_url: bool,
        errors: &mut Vec<FieldError>,
    ) -> Draft {
        let enabled = || Draft {
            enabled: true,
            ..Draft::default()
        };
        let mut draft = current.map_or_else(enabled, Draft::from);
        if self
            .provider
            .as_deref()
            .is_some_and(|provider| provider != "twilio")
        {
            errors.push(FieldError::new("provider", "must be twilio"));
        }
        self.account_sid.trim().clone_into(&mut draft.account_sid);
        self.enter_secrets(&mut draft);
        self.from.trim().clone_into(&mut draft.from);
        draft.region = filled(self.region.as_ref());
        draft.default_locale = filled(self.default_locale.as_ref());
        draft.ring_timeout = self.ring_timeout_s.map(Duration::from_secs);
        draft.allowed_countries.clone_from(&self.allowed_countries);
        draft.calls_per_second = self.calls_per_second.or(draft.calls_per_second);
        draft.test_mode = self.test_mode;
        draft.speech = SpeechStyle::from(&self.speech);
        match self.voicemail_policy(has_public_url) {
            Ok(policy) => draft.voicemail = policy,
            Err(message) => errors.push(FieldError::of_setting(Setting::Voicemail, message)),
        }
        draft.redial = policy_of(&self.redial).unwrap_or_else(|message| {
            errors.push(FieldError::of_setting(Setting::Redial, message));
            Redial::default()
        });
        draft
    }

    fn enter_secrets(&self, draft: &mut Draft) {
        let entered = |secret: &SecretString| !secret.expose_secret().is_empty();
        if let Some(token) = self.auth_token.clone().filter(entered) {
            draft.auth_token = token;
        }
        if let Some(secondary) = &self.secondary_auth_token {
            draft.secondary_auth_token = Some(secondary.clone()).filter(entered);
        }
        draft.api_key_sid = filled(self.api_key_sid.as_ref());
        let secret = self.api_key_secret.clone().filter(entered);
        let kept = draft
            .api_key_secret
            .take()
            .filter(|_| draft.api_key_sid.is_some());
        draft.api_key_secret = secret.or(kept);
    }

    fn voicemail_policy(&self, has_public_url: bool) -> Result<Voicemail, &'static str> {
        let word = filled(self.voicemail.as_ref());
        match word
            .as_deref()
            .map_or(Some(Voicemail::Speak), Voicemail::parse)
        {
            Some(policy) if policy.needs_public_url() && !has_public_url => Err(
                "needs workers that Twilio can reach: ask an operator to set \
                 VOICE_OTP_PUBLIC_URL, or choose speak",
            ),
            Some(policy) => Ok(policy),
            None => Err("must be speak, hang_up, wait_for_beep or press_key"),
        }
    }
}

/// The text without spaces around it; `None` if nothing is left.
fn filled(text: Option<&String>) -> Option<String> {
    let text = text.map(|text| text.trim()).filter(|text| !text.is_empty());
    text.map(str::to_owned)
}
