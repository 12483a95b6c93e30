//! The contents of the provider pages.

use axum::http::StatusCode;
use maud::{Markup, html};
use voice_otp_schemas::TenantId;

use super::actions::{check_section, remove_section, test_call_section};
use super::feedback::Feedback;
use super::form::Form;
use super::input::id_of;
use crate::access::Principal;
use crate::pages::labels::label_of;
use crate::problem::Problem;
use crate::services::provider::{NewVoiceProvider, VoiceProvider};

pub(in crate::pages) fn content(
    principal: &Principal,
    tenant: &TenantId,
    current: Option<&VoiceProvider>,
    entered: &NewVoiceProvider,
    feedback: &Feedback,
) -> Markup {
    let form = Form {
        tenant,
        current,
        entered,
        version: feedback.version.as_deref(),
        errors: feedback
            .problem
            .as_ref()
            .map_or(&[], |problem| problem.errors.as_slice()),
    };
    html! {
        (heading(tenant, Channel::Voice))
        (feedback_notes(tenant, feedback, current))
        @if let Some(current) = current { (state_notes(current)) }
        (form.render(principal))
        @if let Some(current) = current {
            (check_section(principal, tenant, feedback.findings.as_deref()))
            (test_call_section(principal, tenant, feedback))
            (remove_section(principal, tenant, current))
        }
    }
}

pub(in crate::pages) fn sms_content(tenant: &TenantId) -> Markup {
    html! {
        (heading(tenant, Channel::Sms))
        section.card {
            h2 { "SMS provider" }
            p { "The SMS service sends one-time passwords by SMS. It has its own console." }
            p {
                "SMS and voice are independent: each has its own Twilio configuration. Configure "
                a href={ "/t/" (tenant) "/providers/voice" } { "voice" } " here."
            }
        }
    }
}

/// The tab of the page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Channel {
    Sms,
    Voice,
}

fn heading(tenant: &TenantId, channel: Channel) -> Markup {
    let current = |tab: Channel| (tab == channel).then_some("page");
    html! {
        p.crumbs { "Tenant Settings" }
        h1 { "Message Providers" }
        p.lead {
            "How one-time passwords reach your users. SMS and voice are configured independently."
        }
        nav.tabs aria-label="Channels" {
            a href={ "/t/" (tenant) "/providers/sms" } aria-current=[current(Channel::Sms)] {
                "SMS"
            }
            a href={ "/t/" (tenant) "/providers/voice" } aria-current=[current(Channel::Voice)] {
                "Voice"
            }
        }
    }
}

fn feedback_notes(
    tenant: &TenantId,
    feedback: &Feedback,
    current: Option<&VoiceProvider>,
) -> Markup {
    html! {
        @if feedback.saved {
            div.note.good role="status" {
                p {
                    strong { "Saved." }
                    " Workers apply the settings within a second. Next, make a test call"
                    @if current.is_some_and(|current| !current.offered) {
                        ", then select Voice OTP under "
                        a href={ "/t/" (tenant) "/methods" } { "Methods" }
                    }
                    "."
                }
            }
        }
        @if let Some(problem) = feedback.any_problem() { (problem_note(tenant, problem)) }
    }
}

fn problem_note(tenant: &TenantId, problem: &Problem) -> Markup {
    html! {
        div.note.bad role="alert" {
            p { strong { (problem.title()) } }
            @if problem.errors.is_empty() {
                p {
                    (problem.detail())
                    @if problem.status() == StatusCode::PRECONDITION_FAILED {
                        " "
                        a href={ "/t/" (tenant) "/providers/voice" } {
                            "Show the current settings"
                        }
                    }
                }
            } @else {
                ul {
                    @for error in &problem.errors {
                        li {
                            a href={ "#" (id_of(&error.field)) } { (label_of(&error.field)) }
                            ": " (error.message)
                        }
                    }
                }
            }
        }
    }
}

fn state_notes(current: &VoiceProvider) -> Markup {
    html! {
        @if !current.enabled {
            div.note.warn {
                p { "An operator has disabled voice for this tenant. No calls are placed." }
            }
        }
        @if current.paused {
            div.note.warn { p { "An operator has paused calls. New requests are queued." } }
        }
        @if current.credentials_rejected {
            div.note.bad {
                p {
                    "Twilio rejected these credentials. Check the Twilio SID, or enter a new "
                    "auth token."
                }
            }
        }
    }
}
