//! The form of the voice provider: its fields, with their hints and errors.

use maud::{Markup, html};
use voice_otp::policy::{Outcome, Voicemail};
use voice_otp::speech::{EVERY_LOCALE, locales};
use voice_otp_schemas::TenantId;

use crate::console::access::Caller;
use crate::console::pages::layout::csrf;
use crate::console::problem::FieldError;
use crate::console::voice::{NewVoiceProvider, VoiceProvider};

/// The id of a field's input.
pub(super) fn id_of(field: &str) -> String {
    field.replace('.', "-")
}

/// A field's name for people.
pub(super) fn name_of(field: &str) -> &str {
    match field {
        "account_sid" => "Twilio SID",
        "auth_token" => "Twilio Auth Token",
        "from" => "From",
        "calls_per_second" => "Calls per second",
        "allowed_countries" => "Allowed countries",
        "default_locale" => "Language",
        "ring_timeout_s" => "Ring for",
        "region" => "Twilio region",
        "speech.brands" => "Brand",
        "speech.greetings" => "Greeting",
        "speech.rate_percent" => "Speaking pace",
        "speech.pause_ms" => "Pause between digits",
        "speech.readings" => "Readings",
        "voicemail" => "Answering machines",
        "redial" => "Call again",
        "to" => "Recipient",
        "sure" => "Confirmation",
        other => other,
    }
}

/// A labelled input with its hint, and its error where there is one.
#[expect(clippy::struct_field_names, reason = "what a form calls it")]
pub(super) struct Field<'a> {
    pub(super) field: &'a str,
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    pub(super) kind: &'a str,
    pub(super) hint: &'a str,
    pub(super) required: bool,
    pub(super) disabled: bool,
}

impl Default for Field<'_> {
    fn default() -> Self {
        Self {
            field: "",
            name: "",
            value: "",
            kind: "text",
            hint: "",
            required: false,
            disabled: false,
        }
    }
}

pub(super) fn input(field: &Field<'_>, errors: &[FieldError]) -> Markup {
    let id = id_of(field.field);
    let error = error_of(field.field, errors);
    let described = match (field.hint.is_empty(), error.is_some()) {
        (true, false) => None,
        (true, true) => Some(format!("{id}-error")),
        (false, false) => Some(format!("{id}-hint")),
        (false, true) => Some(format!("{id}-error {id}-hint")),
    };
    html! {
        div.field {
            label for=(id) { (name_of(field.field)) @if field.required { span aria-hidden="true" { " *" } } }
            input id=(id) type=(field.kind) name=(field.name) value=(field.value) required[field.required] disabled[field.disabled]
                aria-describedby=[described] aria-invalid=[error.map(|_| "true")] autocomplete="off" spellcheck="false";
            @if let Some(error) = error { p.error id={ (id) "-error" } { (error) } }
            @if !field.hint.is_empty() { p.hint id={ (id) "-hint" } { (field.hint) } }
        }
    }
}

fn error_of<'a>(field: &str, errors: &'a [FieldError]) -> Option<&'a str> {
    errors
        .iter()
        .find(|error| error.field == field)
        .map(|error| error.message.as_str())
}

pub(super) fn settings_form(
    caller: &Caller,
    tenant: &TenantId,
    present: Option<&VoiceProvider>,
    form: &NewVoiceProvider,
    version: Option<&str>,
    errors: &[FieldError],
) -> Markup {
    let version = version
        .map(str::to_owned)
        .or_else(|| present.map(|present| present.version.to_string()))
        .unwrap_or_default();
    let since = present
        .and_then(|present| present.auth_token.since.as_deref())
        .map(|since| since.chars().take(10).collect::<String>());
    let token_hint = match (&since, present.is_some()) {
        (Some(since), _) => {
            format!("Set, since {since}. It is never shown; leave this empty to keep it.")
        }
        (None, true) => "Set. It is never shown; leave this empty to keep it.".to_owned(),
        (None, false) => {
            "From the Twilio console. It is stored sealed, and never shown again.".to_owned()
        }
    };
    html! {
        section.card aria-labelledby="settings" {
            h2 #settings { "Voice provider" }
            form method="post" action={ "/t/" (tenant) "/providers/voice" } {
                (csrf(caller))
                input type="hidden" name="version" value=(version);
                div.field {
                    label for="provider" { "Provider" }
                    select #provider name="provider" { option value="twilio" selected { "Twilio" } }
                }
                (input(&Field { field: "account_sid", name: "account_sid", value: &form.account_sid, required: true,
                    hint: "AC and 32 digits, from the Twilio console.", ..Field::default() }, errors))
                (input(&Field { field: "auth_token", name: "auth_token", kind: "password", required: present.is_none(), hint: &token_hint,
                    ..Field::default() }, errors))
                (input(&Field { field: "from", name: "from", value: &form.from, kind: "tel", required: true,
                    hint: "The sender's number registered with Twilio, enabled for voice calls, in E.164: +16175551212.", ..Field::default() }, errors))
                (advanced(present, form, errors))
                div.actions { button type="submit" { "Save" } }
            }
        }
    }
}

fn advanced(
    present: Option<&VoiceProvider>,
    form: &NewVoiceProvider,
    errors: &[FieldError],
) -> Markup {
    let basic = ["account_sid", "auth_token", "from"];
    let open = errors
        .iter()
        .any(|error| !basic.contains(&error.field.as_str()));
    let shared = present.is_some_and(|present| present.account_shared);
    let shown_pace = present
        .map(|present| present.calls_per_second.to_string())
        .unwrap_or_default();
    let entered_pace = form
        .calls_per_second
        .filter(|pace| pace.is_finite())
        .map(|pace| pace.to_string());
    let pace = entered_pace.unwrap_or_else(|| shown_pace.clone());
    let listed = locales().any(|spoken| form.default_locale.as_deref() == Some(spoken.locale));
    let locale = form.default_locale.clone().unwrap_or_default();
    let text = |number: u32| number.to_string();
    let ring = form
        .ring_timeout_s
        .map(|seconds| seconds.to_string())
        .unwrap_or_default();
    let brand = form
        .speech
        .brands
        .get(EVERY_LOCALE)
        .cloned()
        .unwrap_or_default();
    let greeting = form
        .speech
        .greetings
        .get(&locale)
        .cloned()
        .unwrap_or_default();
    let pace_hint = if shared {
        "Other tenants use this Twilio account: its pace is changed by an operator."
    } else {
        "What Twilio allows the account; 1 where nothing else was agreed with Twilio."
    };
    html! {
        details open[open] {
            summary { "Advanced: pace, countries, language and greeting, voicemail, calling again" }
            input type="hidden" name="shown_calls_per_second" value=(shown_pace);
            input type="hidden" name="greeting_locale" value=(locale);
            div.row {
                (input(&Field { field: "calls_per_second", name: "calls_per_second", value: &pace, hint: pace_hint, disabled: shared, ..Field::default() }, errors))
                (input(&Field { field: "allowed_countries", name: "allowed_countries", value: &form.allowed_countries.join(", "),
                    hint: "Two letters each, with commas; empty: the From number's own country.", ..Field::default() }, errors))
                (input(&Field { field: "ring_timeout_s", name: "ring_timeout_s", value: &ring, kind: "number",
                    hint: "Seconds, 5 to 600; 30 where empty.", ..Field::default() }, errors))
                (input(&Field { field: "region", name: "region", value: form.region.as_deref().unwrap_or_default(),
                    hint: "Such as dublin.ie1; empty: the United States.", ..Field::default() }, errors))
            }
            div.row {
                div.field {
                    label for="default_locale" { "Language" }
                    select #default_locale name="default_locale" {
                        option value="" selected[locale.is_empty()] { "That of the number's country" }
                        @if !locale.is_empty() && !listed { option value=(locale) selected { (locale) } }
                        @for spoken in locales() { option value=(spoken.locale) selected[spoken.locale == locale] { (spoken.locale) } }
                    }
                    @if let Some(error) = error_of("default_locale", errors) { p.error { (error) } }
                    p.hint { "Where a request names none." }
                }
                (input(&Field { field: "speech.brands", name: "brand", value: &brand, hint: "Whose call it is, as the greeting says it.", ..Field::default() }, errors))
                (input(&Field { field: "speech.greetings", name: "greeting", value: &greeting,
                    hint: "In that language, instead of ours; {brand} stands for the brand.", ..Field::default() }, errors))
                (input(&Field { field: "speech.rate_percent", name: "rate_percent", value: &text(form.speech.rate_percent), kind: "number",
                    hint: "Percent of the voice's own pace, 50 to 120.", ..Field::default() }, errors))
                (input(&Field { field: "speech.pause_ms", name: "pause_ms", value: &text(form.speech.pause_ms), kind: "number",
                    hint: "Milliseconds, 200 to 2000.", ..Field::default() }, errors))
                (input(&Field { field: "speech.readings", name: "readings", value: &text(form.speech.readings), kind: "number",
                    hint: "How often the code is read, 1 to 5.", ..Field::default() }, errors))
            }
            (machines(form, errors))
            (again(form, errors))
            label.check { input type="checkbox" name="test_mode" value="yes" checked[form.test_mode];
                span { "Test mode: calls are only pretended, nobody is called" } }
        }
    }
}

fn machines(form: &NewVoiceProvider, errors: &[FieldError]) -> Markup {
    let chosen = form
        .voicemail
        .clone()
        .unwrap_or_else(|| Voicemail::Speak.as_str().to_owned());
    let name = |policy: Voicemail| match policy {
        Voicemail::Speak => "Speak to whoever or whatever answers",
        Voicemail::HangUp => "Hang up, without the code",
        Voicemail::WaitForBeep => "Read the code after the beep",
        Voicemail::PressKey => "Read the code only to who presses a key",
    };
    let error = error_of("voicemail", errors);
    html! {
        div.field {
            label for="voicemail" { "Answering machines" }
            select #voicemail name="voicemail" aria-invalid=[error.map(|_| "true")] aria-describedby=[error.map(|_| "voicemail-error")] {
                @for policy in Voicemail::ALL { option value=(policy.as_str()) selected[policy.as_str() == chosen] { (name(policy)) } }
            }
            @if let Some(error) = error { p.error #voicemail-error { (error) } }
        }
    }
}

fn again(form: &NewVoiceProvider, errors: &[FieldError]) -> Markup {
    html! {
        fieldset #redial {
            legend { "Call again" }
            @if let Some(error) = error_of("redial", errors) { p.error { (error) } }
            div.row {
                @for outcome in Outcome::ALL {
                    @let word = outcome.as_str();
                    @let rule = form.redial.get(word).copied();
                    @let label = match outcome { Outcome::Busy => "busy", Outcome::NoAnswer => "no answer", Outcome::Failed => "failed", Outcome::Voicemail => "voicemail" };
                    div.field {
                        label for={ "redial-" (word) "-times" } { "After " (label) ": times" }
                        input id={ "redial-" (word) "-times" } type="number" min="0" max="5" name={ "redial_" (word) "_times" } value=(rule.map_or(0, |rule| rule.times));
                        label for={ "redial-" (word) "-after" } { "Seconds later" }
                        input id={ "redial-" (word) "-after" } type="number" min="5" max="1800" name={ "redial_" (word) "_after" } value=(rule.map_or(30, |rule| rule.after_s));
                    }
                }
            }
        }
    }
}
