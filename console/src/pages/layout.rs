//! What all pages have.

use maud::{DOCTYPE, Markup, html};
use voice_otp_schemas::TenantId;
use voice_otp_store::access::Role;

use crate::console::access::Caller;

/// Which page this is, for the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
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
pub(super) fn bare(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Voice OTP" }
                link rel="stylesheet" href="/assets/console.css";
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                script src="/assets/console.js" defer {}
            }
            body { main.bare { (content) } }
        }
    }
}

pub(super) fn brand() -> Markup {
    html! { a.brand href="/" { img src="/assets/icon.svg" alt=""; "Voice OTP" } }
}

/// A page with navigation.
pub(super) fn page(
    caller: &Caller,
    tenant: Option<&TenantId>,
    at: At,
    title: &str,
    content: &Markup,
) -> Markup {
    let link = |to: String, page: At, name: &str| html! { a href=(to) aria-current=[(page == at).then_some("page")] { (name) } };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) @if let Some(tenant) = tenant { " · " (tenant) } " · Voice OTP" }
                link rel="stylesheet" href="/assets/console.css";
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                script src="/assets/console.js" defer {}
            }
            body {
                a.skip href="#content" { "To the content" }
                div.shell {
                    header.side {
                        (brand())
                        nav aria-label="Main" {
                            @if let Some(tenant) = tenant {
                                h2 { (tenant) }
                                (link(format!("/t/{tenant}/overview"), At::Overview, "Overview"))
                                (link(format!("/t/{tenant}/deliveries"), At::Deliveries, "Deliveries"))
                                (link(format!("/t/{tenant}/providers/voice"), At::Providers, "Message Providers"))
                                (link(format!("/t/{tenant}/methods"), At::Methods, "Methods"))
                                (link(format!("/t/{tenant}/audit"), At::Audit, "Audit log"))
                            }
                            @if caller.who.role == Role::Operator {
                                h2 { "Operators" }
                                (link("/operate/tenants".to_owned(), At::Tenants, "Tenants"))
                                (link("/operate/accounts".to_owned(), At::Accounts, "Accounts"))
                                (link("/operate/system".to_owned(), At::System, "System"))
                            }
                        }
                        div.who {
                            div { "Signed in as " strong { (caller.who.name) } }
                            form method="post" action="/sign-out" { (csrf(caller)) button type="submit" { "Sign out" } }
                        }
                    }
                    main id="content" tabindex="-1" { (content) }
                }
            }
        }
    }
}

/// What every form of a session carries.
pub(super) fn csrf(caller: &Caller) -> Markup {
    html! { input type="hidden" name="csrf" value=(caller.csrf()); }
}

/// A word for a status, and how it looks.
pub(super) fn pill(status: &str) -> Markup {
    let (tone, word) = match status {
        "delivered" => ("pill good", "Delivered"),
        "failed" => ("pill bad", "Failed"),
        "rejected" => ("pill bad", "Rejected"),
        "busy" => ("pill warn", "Busy"),
        "no_answer" => ("pill warn", "No answer"),
        "hung_up" => ("pill warn", "Hung up"),
        "voicemail" => ("pill warn", "Voicemail"),
        "expired" => ("pill warn", "Expired"),
        "cancelled" => ("pill warn", "Cancelled"),
        "accepted" => ("pill", "Accepted"),
        "deferred" => ("pill", "Waiting"),
        "placed" => ("pill", "Placed"),
        "ringing" => ("pill", "Ringing"),
        "answered" => ("pill", "Answered"),
        "in_progress" => ("pill", "In progress"),
        other => ("pill", other),
    };
    html! { span class=(tone) { (word) } }
}

/// A time, RFC 3339, short for people; in full for machines.
pub(super) fn time(at: &str) -> Markup {
    let short: String = at
        .chars()
        .take(19)
        .map(|c| if c == 'T' { ' ' } else { c })
        .collect();
    html! { time datetime=(at) { (short) } }
}
