//! What every page has: head, navigation, and how statuses and times look.

use maud::{DOCTYPE, Markup, html};
use voice_otp_schemas::TenantId;

use crate::access::Principal;

/// The page's section, which the navigation highlights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Overview,
    Deliveries,
    Providers,
    Methods,
    Audit,
    Tenants,
    Accounts,
    System,
}

/// A page without navigation.
pub(super) fn bare_page(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, None))
            body { main.bare { (content) } }
        }
    }
}

/// A page with navigation.
pub(super) fn page(
    principal: &Principal,
    tenant: Option<&TenantId>,
    section: Section,
    title: &str,
    content: &Markup,
) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, tenant))
            body {
                a.skip href="#content" { "Skip to content" }
                div.shell {
                    header.side {
                        (brand())
                        (navigation(principal, tenant, section))
                        div.who {
                            div { "Signed in as " strong { (principal.name()) } }
                            form method="post" action="/sign-out" {
                                (csrf_field(principal))
                                button type="submit" { "Sign out" }
                            }
                        }
                    }
                    main id="content" tabindex="-1" { (content) }
                }
            }
        }
    }
}

fn head(title: &str, tenant: Option<&TenantId>) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            title { (title) @if let Some(tenant) = tenant { " · " (tenant) } " · Voice OTP" }
            link rel="stylesheet" href="/assets/console.css";
            link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
            script src="/assets/console.js" defer {}
        }
    }
}

pub(super) fn brand() -> Markup {
    html! { a.brand href="/" { img src="/assets/icon.svg" alt=""; "Voice OTP" } }
}

fn navigation(principal: &Principal, tenant: Option<&TenantId>, section: Section) -> Markup {
    let link = |path: String, target: Section, name: &str| {
        let current = (target == section).then_some("page");
        html! { a href=(path) aria-current=[current] { (name) } }
    };
    let of_operators = |path: &str, target, name| link(format!("/operate/{path}"), target, name);
    html! {
        nav aria-label="Main" {
            @if let Some(tenant) = tenant {
                @let of_tenant = |path: &str, target, name| link(
                    format!("/t/{tenant}/{path}"), target, name,
                );
                h2 { (tenant) }
                (of_tenant("overview", Section::Overview, "Overview"))
                (of_tenant("deliveries", Section::Deliveries, "Deliveries"))
                (of_tenant("providers/voice", Section::Providers, "Message Providers"))
                (of_tenant("methods", Section::Methods, "Methods"))
                (of_tenant("audit", Section::Audit, "Audit log"))
            }
            @if principal.is_operator() {
                h2 { "Operators" }
                (of_operators("tenants", Section::Tenants, "Tenants"))
                (of_operators("accounts", Section::Accounts, "Accounts"))
                (of_operators("system", Section::System, "System"))
            }
        }
    }
}

/// The hidden field without which a session's form is rejected.
pub(super) fn csrf_field(principal: &Principal) -> Markup {
    html! { input type="hidden" name="csrf" value=(principal.csrf_token()); }
}

/// A status as a coloured label.
pub(super) fn status_label(status: &str) -> Markup {
    let class = match status {
        "delivered" => "pill good",
        "failed" | "rejected" => "pill bad",
        "busy" | "no_answer" | "hung_up" | "voicemail" | "expired" | "cancelled" => "pill warn",
        _ => "pill",
    };
    html! { span class=(class) { (status_name(status)) } }
}

/// The name of a status.
pub(super) fn status_name(status: &str) -> &str {
    match status {
        "accepted" => "Accepted",
        "deferred" => "Deferred",
        "placed" => "Placed",
        "ringing" => "Ringing",
        "answered" => "Answered",
        "delivered" => "Delivered",
        "hung_up" => "Hung up",
        "voicemail" => "Voicemail",
        "busy" => "Busy",
        "no_answer" => "No answer",
        "failed" => "Failed",
        "expired" => "Expired",
        "cancelled" => "Cancelled",
        "rejected" => "Rejected",
        "in_progress" => "In progress",
        other => other,
    }
}

/// An RFC 3339 time: to the second for people, whole in the attribute.
pub(super) fn time(at: &str) -> Markup {
    let space_for_t = |c| if c == 'T' { ' ' } else { c };
    let to_seconds: String = at.chars().take(19).map(space_for_t).collect();
    html! { time datetime=(at) { (to_seconds) } }
}

/// A table that scrolls sideways where it is too wide, with a name for screen readers.
pub(super) fn scrolling_table(name: &str, headings: &[&str], rows: &Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(name) {
            table {
                thead { tr { @for heading in headings { th scope="col" { (heading) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// A number with one decimal place, from thousandths: milliseconds as seconds.
pub(super) fn seconds(ms: i64) -> String {
    let tenths = (ms.max(0) + 50) / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

/// A message of the core, which begins in lower case and has no full stop, as a sentence.
pub(super) fn sentence(message: &str) -> String {
    let mut characters = message.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    let mut text: String = first.chain(characters).collect();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}
