//! Fixed data for the pages.

use serde_json::json;
use voice_otp_schemas::TenantId;

use crate::problem::{FieldError, Problem};
use crate::services::audit::AuditEntry;
use crate::services::deliveries::{CountryFigures, Delivery, Figures, HourFigures, SpendFigures};
use crate::services::provider::{RedialRule, SecretState, Speech, VoiceProvider};

pub(super) const ACCOUNT: &str = "AC0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

pub(super) fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

pub(super) fn problem(field: &str, message: &str) -> Problem {
    Problem::invalid(vec![FieldError::new(field, message)])
}

pub(super) fn provider() -> VoiceProvider {
    let unset = SecretState {
        set: false,
        since: None,
    };
    VoiceProvider {
        provider: "twilio",
        version: 7,
        updated_at: Some("2026-01-31T09:30:00.000Z".to_owned()),
        enabled: true,
        offered: false,
        account_sid: ACCOUNT.to_owned(),
        auth_token: SecretState {
            set: true,
            since: Some("2026-01-30T08:00:00.000Z".to_owned()),
        },
        secondary_auth_token: unset.clone(),
        api_key_sid: None,
        api_key_secret: unset,
        from: "+16175551212".to_owned(),
        region: Some("dublin.ie1".to_owned()),
        default_locale: Some("tlh".to_owned()),
        ring_timeout_s: 30,
        allowed_countries: vec!["US".to_owned(), "CA".to_owned()],
        calls_per_second: 2.5,
        account_shared: false,
        test_mode: false,
        credentials_rejected: false,
        paused: false,
        speech: Speech {
            brands: [("*".to_owned(), "Acme".to_owned())].into(),
            greetings: [("tlh".to_owned(), "nuqneH".to_owned())].into(),
            ..Speech::default()
        },
        voicemail: "wait_for_beep".to_owned(),
        redial: [(
            "busy".to_owned(),
            RedialRule {
                times: 2,
                after_s: 45,
            },
        )]
        .into(),
    }
}

pub(super) fn delivery(id: &str, status: &str) -> Delivery {
    let finished = status != "in_progress";
    Delivery {
        delivery_id: id.to_owned(),
        status: status.to_owned(),
        to_masked: Some("+1415*****71".to_owned()),
        country: Some("US".to_owned()),
        call_sid: Some("CA0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b".to_owned()),
        attempts: 1,
        test_call: !finished,
        admitted_at: "2026-01-31T09:30:00.123Z".to_owned(),
        expires_at: "2026-01-31T09:33:00.000Z".to_owned(),
        ended_at: finished.then(|| "2026-01-31T09:30:30.000Z".to_owned()),
        placed_ms: Some(210),
        to_ring_ms: Some(1_800),
    }
}

pub(super) fn figures() -> Figures {
    let hour = |hour, deliveries, delivered| HourFigures {
        hour: format!("2026-01-31T{hour:02}:00:00.000Z"),
        deliveries,
        delivered,
    };
    let us = CountryFigures {
        deliveries: 10,
        delivered: 8,
        ended: 9,
    };
    Figures {
        since: "2026-01-31T09:00:00.000Z".to_owned(),
        partial: false,
        deliveries: 10,
        placed: 9,
        delivered: 8,
        success_rate: Some(0.889),
        to_ring_ms: Some(1_850),
        by_outcome: [("delivered".to_owned(), 8), ("in_progress".to_owned(), 1)].into(),
        by_country: [("US".to_owned(), us)].into(),
        spend: vec![SpendFigures {
            unit: "USD".to_owned(),
            amount: 0.126,
            calls: 9,
        }],
        by_hour: vec![hour(9, 10, 8), hour(10, 0, 0)],
    }
}

pub(super) fn audit_entry() -> AuditEntry {
    AuditEntry {
        id: 3,
        at: "2026-01-31T09:30:00.000Z".to_owned(),
        actor: "Ada (00000000-0000-0000-0000-000000000000)".to_owned(),
        tenant_id: Some("acme".to_owned()),
        action: "voice_provider.changed".to_owned(),
        detail: json!({ "speech.readings": { "from": 3, "to": 2 } }),
    }
}
