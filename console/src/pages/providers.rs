//! Tenant Settings, Message Providers: SMS, which is another service's, and Voice.

mod form;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use secrecy::SecretString;
use voice_otp::policy::Outcome;
use voice_otp::speech::EVERY_LOCALE;
use voice_otp_schemas::TenantId;
use voice_otp_store::settings::Expected;
use voice_otp_twilio::check::{Finding, Verdict};

use self::form::{Field, id_of, input, name_of, settings_form};
use super::layout::{At, csrf, page as whole};
use super::{Form, Trouble, Visitor, shown};
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::problem::{FieldError, Problem};
use crate::console::voice::{self, NewVoiceProvider, RedialRule, TestCall, VoiceProvider};

/// What the page tells beside the settings.
#[derive(Default)]
struct Told {
    problem: Option<Problem>,
    saved: bool,
    findings: Option<Vec<Finding>>,
    call: Option<TestCall>,
    /// The number that was entered for a test call.
    to: String,
    /// The version that a form was filled in from: what has been changed since must not be overwritten unseen.
    version: Option<String>,
    /// The problem is the test call's.
    of_test_call: bool,
}

pub(super) async fn sms(
    Path(tenant): Path<String>,
    Visitor(caller): Visitor,
) -> Result<Response, Trouble> {
    let tenant = caller.tenant(&tenant)?;
    let content = html! {
        (head(&tenant, false))
        section.card {
            h2 { "SMS provider" }
            p { "SMS one-time passwords are sent by the SMS service, which has its own settings and its own console." }
            p { "Nothing that is saved under " a href={ "/t/" (tenant) "/providers/voice" } { "Voice" }
                " changes them, and nothing here changes voice: each channel checks its own Twilio configuration." }
        }
    };
    Ok(shown(
        StatusCode::OK,
        &whole(
            &caller,
            Some(&tenant),
            At::Providers,
            "Message Providers",
            &content,
        ),
    ))
}

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
    Visitor(caller): Visitor,
) -> Result<Response, Trouble> {
    let tenant = caller.tenant(&tenant)?;
    let told = Told {
        saved: query.as_deref() == Some("saved"),
        ..Told::default()
    };
    draw(&console, &caller, &tenant, None, told).await
}

pub(super) async fn submit(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    form: Form,
) -> Result<Response, Trouble> {
    let tenant = form.caller.tenant(&tenant)?;
    let present = voice::show(&console, &tenant).await?;
    let mut errors = Vec::new();
    let new = entered(&form, present.as_ref(), &mut errors);
    let expected = match form
        .filled("version")
        .and_then(|version| version.parse().ok())
    {
        Some(version) => Expected::Version(version),
        None => Expected::Nothing,
    };
    let saved = if errors.is_empty() {
        voice::save(&console, &form.caller, &tenant, &new, expected).await
    } else {
        // What can't be read is not guessed.
        Err(Problem::invalid(errors))
    };
    match saved {
        Ok(_) => Ok(Redirect::to(&format!("/t/{tenant}/providers/voice?saved")).into_response()),
        Err(problem) => {
            let version = Some(form.text("version").unwrap_or_default().to_owned());
            let told = Told {
                problem: Some(problem),
                version,
                ..Told::default()
            };
            draw(&console, &form.caller, &tenant, Some(new), told).await
        }
    }
}

pub(super) async fn remove(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    form: Form,
) -> Result<Response, Trouble> {
    let tenant = form.caller.tenant(&tenant)?;
    let version = form
        .filled("version")
        .and_then(|version| version.parse().ok())
        .unwrap_or(0);
    if form.text("sure") != Some("yes") {
        let message = "tick the box to confirm".to_owned();
        let problem = Problem::invalid(vec![FieldError {
            field: "sure".to_owned(),
            message,
        }]);
        return draw(
            &console,
            &form.caller,
            &tenant,
            None,
            Told {
                problem: Some(problem),
                ..Told::default()
            },
        )
        .await;
    }
    match voice::remove(&console, &form.caller, &tenant, version).await {
        Ok(()) => Ok(Redirect::to(&format!("/t/{tenant}/providers/voice")).into_response()),
        Err(problem) => {
            draw(
                &console,
                &form.caller,
                &tenant,
                None,
                Told {
                    problem: Some(problem),
                    ..Told::default()
                },
            )
            .await
        }
    }
}

pub(super) async fn check(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    form: Form,
) -> Result<Response, Trouble> {
    let tenant = form.caller.tenant(&tenant)?;
    let told = match voice::examine(&console, &tenant).await {
        Ok(findings) => Told {
            findings: Some(findings),
            ..Told::default()
        },
        Err(problem) => Told {
            problem: Some(problem),
            ..Told::default()
        },
    };
    draw(&console, &form.caller, &tenant, None, told).await
}

pub(super) async fn test_call(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    form: Form,
) -> Result<Response, Trouble> {
    let tenant = form.caller.tenant(&tenant)?;
    let to = form.text("to").unwrap_or_default().to_owned();
    let told =
        match voice::try_out(&console, &form.caller, &tenant, &to, form.filled("locale")).await {
            Ok(call) => Told {
                call: Some(call),
                to,
                ..Told::default()
            },
            Err(problem) => Told {
                problem: Some(problem),
                of_test_call: true,
                to,
                ..Told::default()
            },
        };
    draw(&console, &form.caller, &tenant, None, told).await
}

/// What the form says; what it doesn't show stays as it is.
fn entered(
    form: &Form,
    present: Option<&VoiceProvider>,
    errors: &mut Vec<FieldError>,
) -> NewVoiceProvider {
    let mut new = present.map(as_entered).unwrap_or_default();
    let text = |name: &str| form.filled(name).map(str::to_owned);
    let mut number = |field: &str, name: &str| -> Option<u64> {
        let text = form.filled(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            errors.push(FieldError {
                field: field.to_owned(),
                message: "a whole number".to_owned(),
            });
        }
        parsed
    };
    let small =
        |number: Option<u64>| number.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    form.text("account_sid")
        .unwrap_or_default()
        .clone_into(&mut new.account_sid);
    form.text("from")
        .unwrap_or_default()
        .clone_into(&mut new.from);
    new.auth_token = text("auth_token").map(SecretString::from);
    new.ring_timeout_s = number("ring_timeout_s", "ring_timeout_s");
    let speech = &mut new.speech;
    speech.rate_percent =
        small(number("speech.rate_percent", "rate_percent")).unwrap_or(speech.rate_percent);
    speech.pause_ms = small(number("speech.pause_ms", "pause_ms")).unwrap_or(speech.pause_ms);
    speech.readings = small(number("speech.readings", "readings")).unwrap_or(speech.readings);
    for outcome in Outcome::ALL {
        let word = outcome.as_str();
        let times = small(number("redial", &format!("redial_{word}_times"))).unwrap_or(0);
        let after_s = number("redial", &format!("redial_{word}_after")).unwrap_or(30);
        if times == 0 {
            new.redial.remove(word);
        } else {
            new.redial
                .insert(word.to_owned(), RedialRule { times, after_s });
        }
    }
    // Only if it was changed here: the account has it, and somebody else may have changed it meanwhile.
    let shown = form.filled("shown_calls_per_second");
    if let Some(pace) = form
        .filled("calls_per_second")
        .filter(|pace| Some(*pace) != shown)
    {
        new.calls_per_second = Some(pace.parse().unwrap_or(f64::NAN));
    }
    let countries = form.text("allowed_countries").unwrap_or_default();
    let countries = countries
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty());
    new.allowed_countries = countries.map(str::to_owned).collect();
    new.default_locale = text("default_locale");
    new.region = text("region");
    new.test_mode = form.text("test_mode") == Some("yes");
    new.voicemail = text("voicemail");
    set(&mut speech.brands, EVERY_LOCALE, text("brand"));
    // A greeting is in one language: the one that it was shown for, or the first one chosen.
    if let Some(locale) = text("greeting_locale").or_else(|| new.default_locale.clone()) {
        set(&mut speech.greetings, &locale, text("greeting"));
    } else if form.filled("greeting").is_some() {
        let message = "choose the language that it is in first".to_owned();
        errors.push(FieldError {
            field: "speech.greetings".to_owned(),
            message,
        });
    }
    new
}

fn set(map: &mut BTreeMap<String, String>, key: &str, value: Option<String>) {
    match value {
        Some(value) => drop(map.insert(key.to_owned(), value)),
        None => drop(map.remove(key)),
    }
}

/// A provider as if it had been entered anew, secrets left out.
fn as_entered(provider: &VoiceProvider) -> NewVoiceProvider {
    NewVoiceProvider {
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
        ..NewVoiceProvider::default()
    }
}

async fn draw(
    console: &Console,
    caller: &Caller,
    tenant: &TenantId,
    form: Option<NewVoiceProvider>,
    told: Told,
) -> Result<Response, Trouble> {
    let present = voice::show(console, tenant).await?;
    let form = form
        .or_else(|| present.as_ref().map(as_entered))
        .unwrap_or_default();
    let status = told
        .problem
        .as_ref()
        .map_or(StatusCode::OK, Problem::status);
    let errors = told
        .problem
        .as_ref()
        .map(|problem| problem.errors.as_slice())
        .unwrap_or_default();
    let content = html! {
        (head(tenant, true))
        (notes(tenant, &told, present.as_ref()))
        (settings_form(caller, tenant, present.as_ref(), &form, told.version.as_deref(), if told.of_test_call { &[] } else { errors }))
        @if let Some(present) = &present {
            (checking(caller, tenant, told.findings.as_deref()))
            (calling(caller, tenant, &told, if told.of_test_call { errors } else { &[] }))
            (removing(caller, tenant, present))
        }
    };
    Ok(shown(
        status,
        &whole(
            caller,
            Some(tenant),
            At::Providers,
            "Message Providers",
            &content,
        ),
    ))
}

fn head(tenant: &TenantId, voice: bool) -> Markup {
    let current = |here: bool| here.then_some("page");
    html! {
        p.crumbs { "Tenant Settings" }
        h1 { "Message Providers" }
        p.lead { "How one-time passwords reach your users. SMS and voice are configured independently." }
        nav.tabs aria-label="Channels" {
            a href={ "/t/" (tenant) "/providers/sms" } aria-current=[current(!voice)] { "SMS" }
            a href={ "/t/" (tenant) "/providers/voice" } aria-current=[current(voice)] { "Voice" }
        }
    }
}

fn notes(tenant: &TenantId, told: &Told, present: Option<&VoiceProvider>) -> Markup {
    html! {
        @if told.saved {
            div.note.good role="status" {
                p { strong { "Saved." } " Workers use it within a second. Make a test call below"
                    @if present.is_some_and(|present| !present.offered) {
                        ", then tick Voice OTP under " a href={ "/t/" (tenant) "/methods" } { "Methods" }
                    } "." }
            }
        }
        @if let Some(problem) = &told.problem {
            div.note.bad role="alert" {
                p { strong { (problem.title()) } }
                @if problem.errors.is_empty() {
                    p { (problem.detail()) @if problem.status() == StatusCode::PRECONDITION_FAILED { " " a href={ "/t/" (tenant) "/providers/voice" } { "Show what is there now" } } }
                } @else {
                    ul {
                        @for error in &problem.errors { li { a href={ "#" (id_of(&error.field)) } { (name_of(&error.field)) } ": " (error.message) } }
                    }
                }
            }
        }
        @if let Some(present) = present {
            @if !present.enabled { div.note.warn { p { "An operator has switched voice off for this tenant: no calls are placed." } } }
            @if present.paused { div.note.warn { p { "Calls are paused by an operator: what is asked for waits." } } }
            @if present.refused { div.note.bad { p { "Twilio refuses these credentials. Enter a new auth token, or check the Account SID." } } }
        }
    }
}

fn checking(caller: &Caller, tenant: &TenantId, findings: Option<&[Finding]>) -> Markup {
    html! {
        section.card aria-labelledby="check" {
            h2 #check { "Check the configuration" }
            p { "Asks Twilio whether the credentials work, the From number can call, the allowed countries may be called, and there is money for it. Nobody is called." }
            form method="post" action={ "/t/" (tenant) "/providers/voice/check#check" } { (csrf(caller)) button.quiet type="submit" { "Check with Twilio" } }
            @if let Some(findings) = findings {
                div.scroll role="status" tabindex="0" aria-label="What was found" { table {
                    thead { tr { th scope="col" { "Result" } th scope="col" { "What was found" } } }
                    tbody { @for finding in findings { tr {
                        td { (verdict(finding.verdict)) }
                        td.wrap { (finding.message) @if let Some(remedy) = &finding.remedy { br; strong { "To do: " } (remedy) } }
                    } } }
                } }
            }
        }
    }
}

fn verdict(verdict: Verdict) -> Markup {
    match verdict {
        Verdict::Ok => html! { span.pill.good { "OK" } },
        Verdict::Warning => html! { span.pill.warn { "Look at it" } },
        Verdict::Fault => html! { span.pill.bad { "Fault" } },
        Verdict::Unknown => html! { span.pill { "Not known" } },
    }
}

fn calling(caller: &Caller, tenant: &TenantId, told: &Told, errors: &[FieldError]) -> Markup {
    let whole = told
        .problem
        .as_ref()
        .filter(|problem| told.of_test_call && problem.errors.is_empty());
    html! {
        section.card aria-labelledby="test-call" {
            h2 #test-call { "Make a test call" }
            p { "An automated call reads a test code aloud. Check that it connects, and that the code is clearly audible." }
            form method="post" action={ "/t/" (tenant) "/providers/voice/test-call#test-call" } {
                (csrf(caller))
                (input(&Field { field: "to", name: "to", value: &told.to, kind: "tel", required: true,
                    hint: "In E.164: +14155552671. Five test calls in ten minutes.", ..Field::default() }, errors))
                @if let Some(problem) = whole { p.error role="alert" { (problem.detail()) } }
                button type="submit" { "Make test call" }
            }
            @if let Some(call) = &told.call {
                div.note.good role="status" { p { "Calling " span.mono { (call.to_masked) } ". Compare what you hear with this code:" }
                    p.code { (call.code) } }
                div.grid {
                    div { h2 { "What happens" }
                        ol.timeline data-events=(call.events) aria-live="polite" { li { "On its way…" } }
                        noscript { p { a href={ "/t/" (tenant) "/deliveries/" (call.delivery_id) } { "Follow the call" } } } }
                    div { h2 { "What is said" } p.says { (call.says) } }
                }
            }
        }
    }
}

fn removing(caller: &Caller, tenant: &TenantId, present: &VoiceProvider) -> Markup {
    html! {
        section.card aria-labelledby="remove" {
            h2 #remove { "Remove the provider" }
            p { "Requests are rejected from then on. SMS is not touched." }
            form method="post" action={ "/t/" (tenant) "/providers/voice/remove" } {
                (csrf(caller))
                input type="hidden" name="version" value=(present.version);
                label.check { input #sure type="checkbox" name="sure" value="yes"; span { "Yes, remove Twilio as the voice provider of " (tenant) } }
                button.danger type="submit" { "Remove" }
            }
        }
    }
}
