//! Reading a delivery's row; sealing and opening its secret part.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use voice_otp::account::{AccountSid, CallSid};
use voice_otp::delivery::{AttemptId, CancelCause, Delivery, Line, Played, Secrets, Slot, State};
use voice_otp::ports::LedgerError;
use voice_otp::settings::policy::Voicemail;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{
    Context, DeliveryId, DeliveryKey, Extension, Locale, OtpCode, PhoneNumber, TenantId, Timestamp,
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::keys::{Keyring, Sealed};

/// The secret part of a delivery in the form in which it is sealed.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Secret {
    to: String,
    code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extension: Option<String>,
}

/// The associated data of a sealed part: it can't be moved to another delivery.
fn place(key: &DeliveryKey) -> String {
    format!("{key}/deliveries.sealed")
}

#[expect(
    clippy::expect_used,
    reason = "a struct of three strings always has a JSON form"
)]
pub(super) fn seal(key: &DeliveryKey, secrets: &Secrets, keys: &Keyring) -> Sealed {
    let secret = Secret {
        to: secrets.to.expose().to_owned(),
        code: secrets.code.expose().to_owned(),
        extension: secrets
            .extension
            .as_ref()
            .map(|extension| extension.expose().to_owned()),
    };
    let text = Zeroizing::new(serde_json::to_vec(&secret).expect("strings have a JSON form"));
    keys.seal(&place(key), &text)
}

/// Opens the secret part. What can't be opened is logged; the core finishes such a delivery.
fn open(key: &DeliveryKey, key_id: &str, sealed: &[u8], keys: &Keyring) -> Option<Secrets> {
    let opened = keys
        .open(&place(key), key_id, sealed)
        .inspect_err(|error| {
            tracing::warn!(
                tenant.id = %key.tenant_id,
                delivery.id = %key.delivery_id,
                error = error as &dyn std::error::Error,
                "failed to open a delivery's secret part"
            );
        })
        .ok()?;
    let secrets = parse(&opened);
    if secrets.is_none() {
        tracing::warn!(
            tenant.id = %key.tenant_id,
            delivery.id = %key.delivery_id,
            "a delivery's secret part is invalid"
        );
    }
    secrets
}

fn parse(opened: &[u8]) -> Option<Secrets> {
    let secret: Secret = serde_json::from_slice(opened).ok()?;
    Some(Secrets {
        to: PhoneNumber::parse(&secret.to).ok()?,
        code: OtpCode::parse(&secret.code).ok()?,
        extension: secret
            .extension
            .as_deref()
            .and_then(|text| Extension::parse(text).ok()),
    })
}

/// Reads rows that have the columns of [`delivery`].
pub(super) fn deliveries(rows: &[Row], keys: &Keyring) -> Result<Vec<Delivery>, LedgerError> {
    rows.iter().map(|row| delivery(row, keys)).collect()
}

/// Reads the key from the columns `tenant_id` and `delivery_id`.
pub(super) fn key(row: &Row) -> Result<DeliveryKey, LedgerError> {
    Ok(DeliveryKey {
        tenant_id: TenantId::parse(row.get("tenant_id"))
            .map_err(|_| LedgerError::ProtocolViolation("tenant_id"))?,
        delivery_id: DeliveryId::parse(row.get("delivery_id"))
            .map_err(|_| LedgerError::ProtocolViolation("delivery_id"))?,
    })
}

/// Reads the request's context. An invalid one is logged and read as empty: an error would fail the
/// whole batch on every retry.
pub(super) fn context(row: &Row, key: &DeliveryKey) -> Context {
    let stored: serde_json::Value = row.get("context");
    Context::from_json(&stored).unwrap_or_else(|_| {
        report_invalid(key, "context");
        Context::default()
    })
}

/// Reads a nullable text column. An invalid value is logged and read as null: an error would fail
/// the whole batch on every retry.
fn optional<T>(
    row: &Row,
    key: &DeliveryKey,
    column: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let stored: Option<&str> = row.get(column);
    let parsed = stored.and_then(parse);
    if stored.is_some() && parsed.is_none() {
        report_invalid(key, column);
    }
    parsed
}

fn report_invalid(key: &DeliveryKey, column: &'static str) {
    tracing::error!(
        tenant.id = %key.tenant_id,
        delivery.id = %key.delivery_id,
        column,
        "a stored value is invalid; ignored"
    );
}

/// Reads a row that has every column of `deliveries` that the core knows; see
/// `sql/statements/find_deliveries.sql`.
pub(super) fn delivery(row: &Row, keys: &Keyring) -> Result<Delivery, LedgerError> {
    let key = key(row)?;
    let sealed: (Option<&str>, Option<&[u8]>) = (row.get("sealed_key"), row.get("sealed"));
    let secrets = match sealed {
        (Some(key_id), Some(sealed)) => open(&key, key_id, sealed, keys).map(Arc::new),
        _ => None,
    };
    // Counts are written from a u32, bit by bit.
    let count = |column: &str| row.get::<_, i32>(column).cast_unsigned();
    let slot = match (row.get("slot_at"), row.get("slot_epoch")) {
        (Some(at), Some(epoch)) => Some(Slot { at, epoch }),
        _ => None,
    };
    Ok(Delivery {
        revision: row.get("revision"),
        state: State::parse(row.get("state")).ok_or(LedgerError::ProtocolViolation("state"))?,
        wake_at: row.get("wake_at"),
        secrets,
        to_masked: row.get("to_masked"),
        locale: optional(row, &key, "locale", |text| Locale::parse(text).ok()),
        context: context(row, &key),
        trace: Trace {
            traceparent: row.get("traceparent"),
            tracestate: row.get("tracestate"),
        },
        account_sid: optional(row, &key, "account_sid", |text| {
            AccountSid::parse(text).ok()
        }),
        pace_key: row.get("pace_key"),
        requested_at: row.get("requested_at"),
        admitted_at: row.get("admitted_at"),
        expires_at: row.get("expires_at"),
        place_by: row.get("place_by"),
        slot,
        announced_at: row.get("announced_at"),
        attempt: count("attempt"),
        attempt_id: row
            .get::<_, Option<uuid::Uuid>>("attempt_id")
            .map(AttemptId),
        intent_at: row.get("intent_at"),
        line: row.get::<_, Option<Vec<u8>>>("line").map(Line),
        settle_after: row.get("settle_after"),
        call_sid: optional(row, &key, "call_sid", |text| CallSid::parse(text).ok()),
        heard_after: Duration::from_millis(u64::from(count("heard_after_ms"))),
        placed_at: row.get("placed_at"),
        ringing_at: row.get("ringing_at"),
        answered_at: row.get("answered_at"),
        cancel_reason: optional(row, &key, "cancel_reason", CancelCause::parse),
        voicemail: Voicemail::parse(row.get("voicemail"))
            .ok_or(LedgerError::ProtocolViolation("voicemail"))?,
        played: optional(row, &key, "played", Played::parse),
        answered_by: row.get("answered_by"),
        redials: count("redials"),
        verified: row.get::<_, Option<Timestamp>>("verified_at").is_some(),
        tries: count("tries"),
        sequence: count("sequence"),
        final_status: optional(row, &key, "final_status", Status::parse),
        key,
    })
}
