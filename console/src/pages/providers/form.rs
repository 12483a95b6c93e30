//! The form of the voice provider's settings.

use maud::{Markup, html};
use voice_otp::settings::Setting;
use voice_otp::settings::policy::{RedialOutcome, Voicemail};
use voice_otp::speech::{EVERY_LOCALE, locales};
use voice_otp_schemas::TenantId;

use super::input::{Input, error_of, id_of};
use crate::access::Principal;
use crate::pages::layout::csrf_field;
use crate::problem::FieldError;
use crate::services::provider::{NewVoiceProvider, VoiceProvider};

/// The pause before a redial, in a form without one.
pub(super) const DEFAULT_REDIAL_AFTER_S: u64 = 30;

/// The settings outside of "Advanced".
const BASIC: [Setting; 3] = [Setting::AccountSid, Setting::AuthToken, Setting::From];

/// What the form shows.
pub(super) struct Form<'a> {
    pub(super) tenant: &'a TenantId,
    /// The saved provider; none before the first save.
    pub(super) current: Option<&'a VoiceProvider>,
    /// The values in the fields.
    pub(super) entered: &'a NewVoiceProvider,
    /// The version that the fields were filled from, which may no longer be the current one.
    pub(super) version: Option<&'a str>,
    pub(super) errors: &'a [FieldError],
}

impl Form<'_> {
    pub(super) fn render(&self, principal: &Principal) -> Markup {
        let current_version = || self.current.map(|current| current.version.to_string());
        let version = self.version.map(str::to_owned).or_else(current_version);
        let account_sid = Input::of(Setting::AccountSid, &self.entered.account_sid).required();
        let from = Input::of(Setting::From, &self.entered.from)
            .kind("tel")
            .required();
        html! {
            section.card aria-labelledby="settings" {
                h2 #settings { "Voice provider" }
                form method="post" action={ "/t/" (self.tenant) "/providers/voice" } {
                    (csrf_field(principal))
                    input type="hidden" name="version" value=(version.unwrap_or_default());
                    div.field {
                        label for="provider" { "Provider" }
                        select #provider name="provider" {
                            option value="twilio" selected { "Twilio" }
                        }
                    }
                    (account_sid.render(self.errors))
                    (self.auth_token())
                    (from.render(self.errors))
                    (self.advanced())
                    div.actions { button type="submit" { "Save" } }
                }
            }
        }
    }

    fn auth_token(&self) -> Markup {
        let input = Input::of(Setting::AuthToken, "").kind("password");
        let Some(current) = self.current else {
            let hint = format!("{} Stored encrypted.", Setting::AuthToken.field().hint());
            return input.required().hint(hint).render(self.errors);
        };
        let since = current
            .auth_token
            .since
            .as_deref()
            .and_then(|since| since.get(..10));
        let saved = since.map_or_else(|| "Saved".to_owned(), |day| format!("Saved on {day}"));
        let hint = format!("{saved}. It is never shown. Leave empty to keep it.");
        input.hint(hint).render(self.errors)
    }

    fn advanced(&self) -> Markup {
        let is_basic = |error: &FieldError| {
            BASIC
                .iter()
                .any(|setting| setting.field().name == error.field)
        };
        let open = !self.errors.iter().all(is_basic);
        html! {
            details open[open] {
                summary { "Advanced: rate limit, countries, speech, answering machines, redial" }
                div.row {
                    (self.rate_limit())
                    (self.countries())
                    (self.ring_timeout())
                    (self.region())
                }
                div.row {
                    (self.language())
                    (self.brand())
                    (self.greeting())
                    (self.number(Setting::SpeechRate, self.entered.speech.rate_percent))
                    (self.number(Setting::DigitPause, self.entered.speech.pause_ms))
                    (self.number(Setting::Readings, self.entered.speech.readings))
                }
                (self.answering_machines())
                (self.redial())
                (self.test_mode())
            }
        }
    }

    /// The rate limit of the account. The hidden field tells whether it was changed.
    fn rate_limit(&self) -> Markup {
        let displayed = self
            .current
            .map(|current| current.calls_per_second.to_string());
        let displayed = displayed.unwrap_or_default();
        let entered = self
            .entered
            .calls_per_second
            .filter(|rate| rate.is_finite());
        let value = entered.map_or_else(|| displayed.clone(), |rate| rate.to_string());
        let mut input = Input::of(Setting::CallsPerSecond, &value);
        if self.current.is_some_and(|current| current.account_shared) {
            input.disabled = true;
            input = input.hint(
                "Other tenants use this Twilio account. Ask an operator to change its rate limit.",
            );
        }
        html! {
            input type="hidden" name="displayed_calls_per_second" value=(displayed);
            (input.render(self.errors))
        }
    }

    fn countries(&self) -> Markup {
        let value = self.entered.allowed_countries.join(", ");
        let hint = format!(
            "{} Separate with commas.",
            Setting::AllowedCountries.field().hint()
        );
        Input::of(Setting::AllowedCountries, &value)
            .hint(hint)
            .render(self.errors)
    }

    fn ring_timeout(&self) -> Markup {
        let value = self
            .entered
            .ring_timeout_s
            .map(|seconds| seconds.to_string());
        let value = value.unwrap_or_default();
        Input::of(Setting::RingTimeout, &value)
            .kind("number")
            .render(self.errors)
    }

    fn region(&self) -> Markup {
        let value = self.entered.region.as_deref().unwrap_or_default();
        Input::of(Setting::Region, value).render(self.errors)
    }

    fn language(&self) -> Markup {
        let field = Setting::DefaultLocale.field();
        let (id, error) = (id_of(field.name), error_of(field.name, self.errors));
        let chosen = self.locale();
        let is_listed = locales().any(|spoken| spoken.locale == chosen);
        html! {
            div.field {
                label for=(id) { (field.label) }
                select id=(id) name=(field.name) aria-invalid=[error.map(|_| "true")] {
                    option value="" selected[chosen.is_empty()] {
                        "Language of the number's country"
                    }
                    @if !chosen.is_empty() && !is_listed {
                        option value=(chosen) selected { (chosen) }
                    }
                    @for spoken in locales() {
                        option value=(spoken.locale) selected[spoken.locale == chosen] {
                            (spoken.locale)
                        }
                    }
                }
                @if let Some(error) = error { p.error { (error) } }
                p.hint { "Language of requests that name none." }
            }
        }
    }

    fn locale(&self) -> &str {
        self.entered.default_locale.as_deref().unwrap_or_default()
    }

    fn brand(&self) -> Markup {
        let brand = self
            .entered
            .speech
            .brands
            .get(EVERY_LOCALE)
            .cloned()
            .unwrap_or_default();
        Input::of(Setting::Brands, &brand).render(self.errors)
    }

    /// The greeting of the chosen language. The hidden field tells which language that is.
    fn greeting(&self) -> Markup {
        let locale = self.locale();
        let greeting = self
            .entered
            .speech
            .greetings
            .get(locale)
            .cloned()
            .unwrap_or_default();
        html! {
            input type="hidden" name="greeting_locale" value=(locale);
            (Input::of(Setting::Greetings, &greeting).render(self.errors))
        }
    }

    fn number(&self, setting: Setting, value: u32) -> Markup {
        Input::of(setting, &value.to_string())
            .kind("number")
            .render(self.errors)
    }

    fn answering_machines(&self) -> Markup {
        let field = Setting::Voicemail.field();
        let (id, error) = (id_of(field.name), error_of(field.name, self.errors));
        let chosen = self
            .entered
            .voicemail
            .as_deref()
            .unwrap_or(Voicemail::Speak.as_str());
        let described_by = error.map(|_| format!("{id}-error"));
        html! {
            div.field {
                label for=(id) { (field.label) }
                select id=(id) name=(field.name) aria-invalid=[error.map(|_| "true")]
                    aria-describedby=[described_by] {
                    @for policy in Voicemail::ALL {
                        option value=(policy.as_str()) selected[policy.as_str() == chosen] {
                            (voicemail_label(policy))
                        }
                    }
                }
                @if let Some(error) = error { p.error id={ (id) "-error" } { (error) } }
            }
        }
    }

    fn redial(&self) -> Markup {
        let field = Setting::Redial.field();
        html! {
            fieldset id=(id_of(field.name)) {
                legend { (field.label) }
                @if let Some(error) = error_of(field.name, self.errors) {
                    p.error { (error) }
                }
                div.row { @for outcome in RedialOutcome::ALL { (self.redial_after(outcome)) } }
            }
        }
    }

    fn redial_after(&self, outcome: RedialOutcome) -> Markup {
        let word = outcome.as_str();
        let rule = self.entered.redial.get(word);
        let times = rule.map_or(0, |rule| rule.times);
        let after_s = rule.map_or(DEFAULT_REDIAL_AFTER_S, |rule| rule.after_s);
        let outcome = match outcome {
            RedialOutcome::Busy => "busy",
            RedialOutcome::NoAnswer => "no answer",
            RedialOutcome::Failed => "failed",
            RedialOutcome::Voicemail => "voicemail",
        };
        html! {
            div.field {
                label for={ "redial-" (word) "-times" } { "Calls after " (outcome) }
                input id={ "redial-" (word) "-times" } type="number" min="0" max="5"
                    name={ "redial_" (word) "_times" } value=(times);
                label for={ "redial-" (word) "-after" } { "Delay (seconds)" }
                input id={ "redial-" (word) "-after" } type="number" min="5" max="1800"
                    name={ "redial_" (word) "_after" } value=(after_s);
            }
        }
    }

    fn test_mode(&self) -> Markup {
        let field = Setting::TestMode.field();
        html! {
            label.check {
                input type="checkbox" name=(field.name) value="yes"
                    checked[self.entered.test_mode];
                span { (field.label) ": calls are simulated, and none is placed" }
            }
        }
    }
}

fn voicemail_label(policy: Voicemail) -> &'static str {
    match policy {
        Voicemail::Speak => "Read the code to any answerer",
        Voicemail::HangUp => "Hang up without reading the code",
        Voicemail::WaitForBeep => "Read the code after the beep",
        Voicemail::PressKey => "Read the code after a key is pressed",
    }
}
