//! Snapshots of the pages' text, with fixed data.

mod sample;
mod text;

use maud::Markup;
use voice_otp_store::access::Role;
use voice_otp_twilio::check::{Check, Finding, Verdict};

use self::sample::{audit_entry, delivery, figures, problem, provider, tenant};
use self::text::text_of;
use super::*;
use crate::access::Principal;
use crate::pages::layout::Section;
use crate::pages::methods::Outcome;
use crate::pages::providers::Feedback;
use crate::pages::tenants::InvalidId;
use crate::problem::FieldError;
use crate::services::accounts::Account;
use crate::services::deliveries::{DeliveryDetails, DeliveryPage, DeliveryQuery, Figures, Step};
use crate::services::methods::Method;
use crate::services::provider::{NewVoiceProvider, VoiceProvider};
use crate::services::system::{System, Worker};
use crate::services::tenants::Summary;
use crate::services::test_calls::TestCall;

fn admin() -> Principal {
    Principal::for_test(Role::TenantAdmin(tenant()))
}

fn operator() -> Principal {
    Principal::for_test(Role::Operator)
}

/// Compares a page's text with its snapshot.
fn check(name: &str, page: &Markup) {
    insta::assert_snapshot!(name, text_of(&page.0));
}

#[test]
fn navigation_shows_what_the_role_may_open() {
    let content = maud::html! { p { "Content" } };
    let of_tenant = layout::page(&admin(), Some(&tenant()), Section::Audit, "Title", &content);
    check("layout_tenant_admin", &of_tenant);
    check(
        "layout_operator",
        &layout::page(&operator(), None, Section::System, "Title", &content),
    );
}

#[test]
fn sign_in() {
    check("sign_in", &super::sign_in::content(None));
    check(
        "sign_in_error",
        &super::sign_in::content(Some(super::sign_in::INVALID_TOKEN)),
    );
}

#[test]
fn every_problem_says_what_happened_and_what_to_do() {
    let cause = std::io::Error::other("refused");
    let problems = [
        Problem::unauthorized(),
        Problem::invalid_csrf_token(),
        Problem::operators_only("An operator has paused the tenant."),
        Problem::not_found(),
        Problem::not_configured("acme"),
        Problem::bad_request("The body is not valid JSON at line 1, column 2."),
        Problem::invalid(vec![FieldError::new("to", "must be E.164")]),
        Problem::version_conflict(),
        Problem::precondition_required(),
        Problem::too_many_requests("Try again in 42 seconds."),
        Problem::method_not_allowed(),
        Problem::unavailable(&cause),
    ];
    let pages: Vec<Markup> = problems.iter().map(response::error_content).collect();
    check("problems", &maud::html! { @for page in &pages { (page) } });
}

#[test]
fn overview() {
    check(
        "overview",
        &super::overview::content(&tenant(), true, &figures()),
    );
    let empty = Figures::default();
    check(
        "overview_not_configured",
        &super::overview::content(&tenant(), false, &empty),
    );
}

#[test]
fn deliveries() {
    let query = DeliveryQuery {
        status: Some("delivered".to_owned()),
        ..DeliveryQuery::default()
    };
    let found = DeliveryPage {
        deliveries: vec![
            delivery("login-1", "delivered"),
            delivery("login-2", "in_progress"),
        ],
        next: Some("2026-01-31T09:30:00.000000Z~login-2".to_owned()),
    };
    let page = |found| super::deliveries::content(&admin(), &tenant(), &query, found);
    check("deliveries", &page(Ok(&found)));
    let message = "must be a time such as 2026-01-31T09:30:00Z, from 2000 to 2099";
    let invalid = problem("since", message);
    check("deliveries_invalid_filter", &page(Err(&invalid)));
}

#[test]
fn delivery_details() {
    let step = |status: &str, second, detail: Option<&str>| Step {
        status: status.to_owned(),
        at: format!("2026-01-31T09:30:{second:02}.000Z"),
        detail: detail.map(str::to_owned),
    };
    let found = DeliveryDetails {
        delivery: delivery("login-1", "delivered"),
        timeline: vec![
            step("accepted", 0, None),
            step("deferred", 1, Some("the account is paused")),
            step("placed", 2, None),
            step("ringing", 4, None),
            step("answered", 9, None),
            step("delivered", 30, None),
        ],
    };
    check("delivery", &delivery_page(&found));
}

fn delivery_page(found: &DeliveryDetails) -> Markup {
    super::delivery::content(&tenant(), found)
}

#[test]
fn methods() {
    let page =
        |voice: &Method, outcome| super::methods::content(&admin(), &tenant(), voice, outcome);
    let method = |configured, switched_off| Method {
        enabled: configured,
        switched_off,
        configured,
        provider: "/t/acme/providers/voice".to_owned(),
    };
    check("methods_saved", &page(&method(true, true), &Outcome::Saved));
    let failed = Outcome::Failed(Problem::not_configured("acme"));
    check(
        "methods_not_configured",
        &page(&method(false, false), &failed),
    );
}

fn voice_page(current: Option<&VoiceProvider>, feedback: &Feedback) -> Markup {
    let entered = current.map(NewVoiceProvider::from).unwrap_or_default();
    super::providers::content(&admin(), &tenant(), current, &entered, feedback)
}

#[test]
fn voice_provider_before_and_after_it_is_saved() {
    check("provider_new", &voice_page(None, &Feedback::default()));
    let saved = Feedback {
        saved: true,
        ..Feedback::default()
    };
    check("provider_saved", &voice_page(Some(&provider()), &saved));
    check("provider_sms", &super::providers::sms_content(&tenant()));
}

#[test]
fn voice_provider_with_problems() {
    let stopped = VoiceProvider {
        enabled: false,
        paused: true,
        credentials_rejected: true,
        account_shared: true,
        ..provider()
    };
    let invalid = Feedback {
        problem: Some(Problem::invalid(vec![
            FieldError::new("account_sid", "must be AC and 32 hexadecimal digits"),
            FieldError::new("speech.readings", "must be a whole number"),
            FieldError::new("voicemail", "needs workers that Twilio can reach"),
            FieldError::new("redial", "must be at most 5 calls"),
            FieldError::new("confirm", "select the box to confirm"),
        ])),
        ..Feedback::default()
    };
    check("provider_invalid", &voice_page(Some(&stopped), &invalid));
    let conflict = Feedback {
        problem: Some(Problem::version_conflict()),
        ..Feedback::default()
    };
    check(
        "provider_conflict",
        &voice_page(Some(&provider()), &conflict),
    );
}

#[test]
fn voice_provider_checked_and_called() {
    let finding = |check, verdict, remedy: Option<&str>| Finding {
        check,
        verdict,
        code: "code",
        message: "message of the check".to_owned(),
        remedy: remedy.map(str::to_owned),
    };
    let feedback = Feedback {
        findings: Some(vec![
            finding(Check::Credentials, Verdict::Ok, None),
            finding(
                Check::Account,
                Verdict::Warning,
                Some("upgrade the account"),
            ),
            finding(Check::From, Verdict::Fault, Some("buy the number")),
            finding(Check::Balance, Verdict::Unknown, None),
        ]),
        test_call: Some(TestCall {
            delivery_id: "test-call-1".to_owned(),
            code: "493027".to_owned(),
            to_masked: "+1415*****71".to_owned(),
            says: "Hello. Your code is 4, 9, 3, 0, 2, 7.".to_owned(),
            events: "/api/v1/tenants/acme/deliveries/test-call-1/events".to_owned(),
        }),
        test_call_problem: Some(Problem::too_many_requests("Try again in 42 seconds.")),
        ..Feedback::default()
    };
    check(
        "provider_checked_and_called",
        &voice_page(Some(&provider()), &feedback),
    );
}

#[test]
fn audit_log() {
    check("audit", &super::audit::content(&[audit_entry()]));
    check("audit_empty", &super::audit::content(&[]));
}

#[test]
fn tenants() {
    let summary = |enabled, test_mode| Summary {
        tenant_id: tenant(),
        account_sid: sample::ACCOUNT.to_owned(),
        enabled,
        test_mode,
        calls_per_second: 2.5,
    };
    let all = [
        summary(true, false),
        summary(true, true),
        summary(false, false),
    ];
    check("tenants", &super::tenants::content(&all, None));
    let invalid = InvalidId {
        entered: "no spaces".to_owned(),
        message: "must be 1 to 64 letters".to_owned(),
    };
    check(
        "tenants_invalid_id",
        &super::tenants::content(&[], Some(&invalid)),
    );
}

#[test]
fn accounts() {
    let account = |paused, circuit_open| Account {
        account_sid: sample::ACCOUNT.to_owned(),
        calls_per_second: 2.5,
        paused,
        max_calls: None,
        tenant_share: 0.5,
        tenants: 3,
        backlog_ms: 1_250,
        circuit_open,
    };
    let all = [
        account(false, false),
        account(true, false),
        account(false, true),
    ];
    let problem = problem(
        "calls_per_second",
        "must be 0.001 to 10000 calls per second",
    );
    check(
        "accounts",
        &super::accounts::content(&operator(), &all, Some(&problem)),
    );
}

#[test]
fn system() {
    let worker = |alive| Worker {
        name: "host-1 4711".to_owned(),
        started_at: "2026-01-31T09:30:00.000Z".to_owned(),
        alive,
        holds: 7,
    };
    let running = System {
        workers: vec![worker(true), worker(false)],
        dead_letters: Some(2),
    };
    check(
        "system",
        &super::system::content(&running, &[audit_entry()]),
    );
    let stopped = System {
        workers: Vec::new(),
        dead_letters: None,
    };
    check("system_stopped", &super::system::content(&stopped, &[]));
}
