//! Sample requests, cancellations and settings. Requests are built as JSON, as auth services build
//! them, and then read.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use voice_otp::account::AccountSid;
use voice_otp::settings::Draft;
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::envelope::{Message, STRUCTURED};
use voice_otp_schemas::request::{CANCELLED, Incoming, REQUESTED, VERIFIED, read, rfc3339};
use voice_otp_schemas::{DeliveryId, TenantId, Timestamp};
use voice_otp_store::ledger::Limits;

/// Builds a request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    tenant: String,
    id: String,
    to: String,
    code: String,
    /// How long after its publishing the code expires.
    life: Duration,
    requested_ago: Duration,
    user: Option<String>,
    extension: Option<String>,
}

impl Request {
    /// A request for a call to number 1, with a code that expires in three minutes.
    pub(crate) fn new(tenant: &str, id: &str) -> Self {
        Self {
            tenant: tenant.to_owned(),
            id: id.to_owned(),
            to: number(1),
            code: "493027".to_owned(),
            life: Duration::from_mins(3),
            requested_ago: Duration::ZERO,
            user: None,
            extension: None,
        }
    }

    pub(crate) fn to(self, to: u32) -> Self {
        Self {
            to: number(to),
            ..self
        }
    }

    pub(crate) fn code(self, code: &str) -> Self {
        Self {
            code: code.to_owned(),
            ..self
        }
    }

    pub(crate) fn expires_in(self, life: Duration) -> Self {
        Self { life, ..self }
    }

    /// Sets the event's `time` this long before it is published.
    pub(crate) fn requested_ago(self, requested_ago: Duration) -> Self {
        Self {
            requested_ago,
            ..self
        }
    }

    pub(crate) fn of_user(self, user: &str) -> Self {
        Self {
            user: Some(user.to_owned()),
            ..self
        }
    }

    pub(crate) fn with_extension(self, extension: &str) -> Self {
        Self {
            extension: Some(extension.to_owned()),
            ..self
        }
    }

    pub(crate) fn key(&self) -> DeliveryKey {
        key(&self.tenant, &self.id)
    }

    /// The request as an event, published at `now`.
    pub(crate) fn incoming(&self, now: Timestamp) -> Incoming {
        let mut data = json!({
            "tenant_id": self.tenant,
            "to": self.to,
            "code": self.code,
            "expires_at": rfc3339(now + self.life),
            "context": { "flow": "login" },
        });
        if let Some(user) = &self.user {
            data["user_ref"] = json!(user);
        }
        if let Some(extension) = &self.extension {
            data["extension"] = json!(extension);
        }
        event(REQUESTED, &self.id, now - self.requested_ago, &data)
    }
}

/// A cancellation of a delivery.
pub(crate) fn cancelled(tenant: &str, id: &str, now: Timestamp) -> Incoming {
    event(
        CANCELLED,
        "a-cancellation",
        now,
        &json!({ "tenant_id": tenant, "delivery_id": id }),
    )
}

/// A cancellation of all deliveries of a user.
pub(crate) fn cancelled_user(tenant: &str, user: &str, now: Timestamp) -> Incoming {
    event(
        CANCELLED,
        "a-cancellation",
        now,
        &json!({ "tenant_id": tenant, "user_ref": user }),
    )
}

/// A report that a delivery's code was entered.
pub(crate) fn verified(tenant: &str, id: &str, now: Timestamp) -> Incoming {
    event(
        VERIFIED,
        "a-verification",
        now,
        &json!({ "tenant_id": tenant, "delivery_id": id }),
    )
}

fn event(kind: &str, id: &str, now: Timestamp, data: &Value) -> Incoming {
    let event = json!({
        "specversion": "1.0",
        "id": id,
        "source": "/auth/login",
        "type": kind,
        "time": rfc3339(now),
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "data": data,
    });
    let body = event.to_string();
    read(Message {
        content_type: Some(STRUCTURED),
        headers: &[],
        body: body.as_bytes(),
    })
    .expect("the event can be read")
}

/// One of 10,000 numbers that can be called.
pub(crate) fn number(n: u32) -> String {
    assert!(n < 10_000, "there are no more numbers");
    format!("+1415555{n:04}")
}

pub(crate) fn key(tenant: &str, id: &str) -> DeliveryKey {
    DeliveryKey {
        tenant_id: TenantId::parse(tenant).unwrap(),
        delivery_id: DeliveryId::parse(id).unwrap(),
    }
}

pub(crate) fn account(n: u32) -> AccountSid {
    AccountSid::parse(&format!("AC{n:032x}")).unwrap()
}

/// Settings with an account and its rate in calls per second. The rate is one percent higher than
/// given, to make up for the reserve. All accounts call from the same number.
pub(crate) fn draft(account: u32, rate: f64) -> Draft {
    Draft {
        account_sid: self::account(account).as_str().to_owned(),
        auth_token: SecretString::from("0123456789abcdef0123456789abcdef"),
        from: "+12025550123".to_owned(),
        enabled: true,
        calls_per_second: Some(rate * 1.01),
        ..Draft::default()
    }
}

/// The ledger's limits, with a worker's default tuning.
pub(crate) fn limits() -> Limits {
    let tuning = voice_otp::Tuning::default();
    Limits {
        lease: tuning.lease,
        begin_ahead: tuning.begin_ahead,
        slot_late: tuning.slot_late,
        hold_ahead: tuning.hold_ahead,
        claim_ahead: tuning.claim_ahead,
        rescue: tuning.post_timeout * 2 + tuning.lease,
        forgotten: tuning.sweep_age,
        recent: tuning.longest_life * 2,
        retention: Duration::from_hours(7 * 24),
    }
}
