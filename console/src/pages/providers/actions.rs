//! What can be done with a configured provider: check it, make a test call, remove it.

use maud::{Markup, html};
use voice_otp_schemas::TenantId;
use voice_otp_twilio::check::{Finding, Verdict};

use super::feedback::Feedback;
use super::input::Input;
use crate::access::Principal;
use crate::pages::layout::{csrf_field, sentence};
use crate::services::provider::VoiceProvider;
use crate::services::test_calls::TestCall;

pub(super) fn check_section(
    principal: &Principal,
    tenant: &TenantId,
    findings: Option<&[Finding]>,
) -> Markup {
    html! {
        section.card aria-labelledby="check" {
            h2 #check { "Check the configuration" }
            p {
                "Asks Twilio whether the credentials are valid, the From number can place calls, "
                "the allowed countries may be called, and that the balance is sufficient. No "
                "call is placed."
            }
            form method="post" action={ "/t/" (tenant) "/providers/voice/check#check" } {
                (csrf_field(principal))
                button.quiet type="submit" { "Check with Twilio" }
            }
            @if let Some(findings) = findings { (findings_table(findings)) }
        }
    }
}

fn findings_table(findings: &[Finding]) -> Markup {
    html! {
        div.scroll role="status" tabindex="0" aria-label="Findings" {
            table {
                thead { tr { th scope="col" { "Result" } th scope="col" { "Finding" } } }
                tbody {
                    @for finding in findings {
                        tr {
                            td { (verdict_label(finding.verdict)) }
                            td.wrap {
                                (sentence(&finding.message))
                                @if let Some(remedy) = &finding.remedy {
                                    br;
                                    strong { "Recommended action: " }
                                    (sentence(remedy))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn verdict_label(verdict: Verdict) -> Markup {
    match verdict {
        Verdict::Ok => html! { span.pill.good { "OK" } },
        Verdict::Warning => html! { span.pill.warn { "Warning" } },
        Verdict::Fault => html! { span.pill.bad { "Failed" } },
        Verdict::Unknown => html! { span.pill { "Unknown" } },
    }
}

pub(super) fn test_call_section(
    principal: &Principal,
    tenant: &TenantId,
    feedback: &Feedback,
) -> Markup {
    let problem = feedback.test_call_problem.as_ref();
    let errors = problem.map_or(&[][..], |problem| problem.errors.as_slice());
    let hint = "E.164, for example +14155552671. At most five test calls in ten minutes.";
    let recipient = Input::new("to", &feedback.test_call_to, hint)
        .kind("tel")
        .required();
    html! {
        section.card aria-labelledby="test-call" {
            h2 #test-call { "Make a test call" }
            p {
                "An automated call reads a test code aloud. Check that the call connects and "
                "that the code is clearly audible."
            }
            form method="post" action={ "/t/" (tenant) "/providers/voice/test-call#test-call" } {
                (csrf_field(principal))
                (recipient.render(errors))
                @if let Some(problem) = problem.filter(|problem| problem.errors.is_empty()) {
                    p.error role="alert" { (problem.detail()) }
                }
                button type="submit" { "Make test call" }
            }
            @if let Some(call) = &feedback.test_call { (test_call(tenant, call)) }
        }
    }
}

fn test_call(tenant: &TenantId, call: &TestCall) -> Markup {
    html! {
        div.note.good role="status" {
            p {
                "Calling " span.mono { (call.to_masked) } ". Compare what you hear with this code:"
            }
            p.code { (call.code) }
        }
        div.grid {
            div {
                h2 { "Progress" }
                ol.timeline data-events=(call.events) aria-live="polite" { li { "Connecting…" } }
                noscript {
                    p {
                        a href={ "/t/" (tenant) "/deliveries/" (call.delivery_id) } {
                            "Show the delivery"
                        }
                    }
                }
            }
            div { h2 { "Script" } p.says { (call.says) } }
        }
    }
}

pub(super) fn remove_section(
    principal: &Principal,
    tenant: &TenantId,
    current: &VoiceProvider,
) -> Markup {
    html! {
        section.card aria-labelledby="remove" {
            h2 #remove { "Remove the provider" }
            p { "New voice requests of this tenant are rejected from then on. SMS is unaffected." }
            form method="post" action={ "/t/" (tenant) "/providers/voice/remove" } {
                (csrf_field(principal))
                input type="hidden" name="version" value=(current.version);
                label.check {
                    input #confirm type="checkbox" name="confirm" value="yes";
                    span { "Remove Twilio from " (tenant) }
                }
                button.danger type="submit" { "Remove" }
            }
        }
    }
}
