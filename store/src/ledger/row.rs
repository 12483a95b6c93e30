//! A delivery's row, read; and its secret part, sealed and opened.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use voice_otp::account::{AccountSid, CallSid};
use voice_otp::delivery::{AttemptId, Delivery, Key, Line, Order, Said, Slot, State};
use voice_otp::policy::Voicemail;
use voice_otp::ports::LedgerError;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{
    Context, DeliveryId, Extension, Locale, OtpCode, PhoneNumber, TenantId, Timestamp,
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::keys::{Keyring, Sealed};

/// The secret part, as it is sealed.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Secret {
    to: String,
    code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extension: Option<String>,
}

fn place(key: &Key) -> String {
    format!("{key}/deliveries.sealed")
}

pub(super) fn seal(key: &Key, order: &Order, keys: &Keyring) -> Sealed {
    let secret = Secret {
        to: order.to.expose().to_owned(),
        code: order.code.expose().to_owned(),
        extension: order
            .extension
            .as_ref()
            .map(|extension| extension.expose().to_owned()),
    };
    // Three strings always have a JSON form.
    let text = Zeroizing::new(serde_json::to_vec(&secret).unwrap_or_default());
    keys.seal(&place(key), &text)
}

fn open(key: &Key, key_id: &str, sealed: &[u8], keys: &Keyring) -> Option<Order> {
    let opened = keys.open(&place(key), key_id, sealed);
    let opened = opened
        .inspect_err(|error| tracing::warn!(tenant.id = %key.tenant_id, delivery.id = %key.delivery_id, error = error as &dyn std::error::Error, "can't open a delivery"))
        .ok()?;
    let secret: Secret = serde_json::from_slice(&opened).ok()?;
    Some(Order {
        to: PhoneNumber::parse(&secret.to).ok()?,
        code: OtpCode::parse(&secret.code).ok()?,
        extension: secret
            .extension
            .as_deref()
            .and_then(|text| Extension::parse(text).ok()),
    })
}

/// Reads a row with every column of `deliveries`.
pub(super) fn delivery(row: &Row, keys: &Keyring) -> Result<Delivery, LedgerError> {
    let key = Key {
        tenant_id: TenantId::parse(row.get("tenant_id"))
            .map_err(|_| LedgerError::Nonsense("tenant_id"))?,
        delivery_id: DeliveryId::parse(row.get("delivery_id"))
            .map_err(|_| LedgerError::Nonsense("delivery_id"))?,
    };
    let sealed: (Option<&str>, Option<&[u8]>) = (row.get("sealed_key"), row.get("sealed"));
    let order = match sealed {
        (Some(key_id), Some(sealed)) => open(&key, key_id, sealed, keys).map(Arc::new),
        _ => None,
    };
    let context: serde_json::Value = row.get("context");
    let text = |column: &str| row.get::<_, Option<&str>>(column);
    let count = |column: &str| u32::try_from(row.get::<_, i32>(column)).unwrap_or(0);
    let slot = match (row.get("slot_at"), row.get("slot_epoch")) {
        (Some(at), Some(epoch)) => Some(Slot { at, epoch }),
        _ => None,
    };
    Ok(Delivery {
        revision: row.get("revision"),
        state: State::from_word(row.get("state")).ok_or(LedgerError::Nonsense("state"))?,
        wake_at: row.get("wake_at"),
        order,
        to_masked: row.get("to_masked"),
        locale: text("locale").and_then(|text| Locale::parse(text).ok()),
        context: Context::from_json(&context).unwrap_or_default(),
        trace: Trace {
            traceparent: row.get("traceparent"),
            tracestate: row.get("tracestate"),
        },
        account_sid: text("account_sid").and_then(|text| AccountSid::parse(text).ok()),
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
        call_sid: text("call_sid").and_then(|text| CallSid::parse(text).ok()),
        heard_after: Duration::from_millis(u64::from(count("heard_after_ms"))),
        placed_at: row.get("placed_at"),
        ringing_at: row.get("ringing_at"),
        answered_at: row.get("answered_at"),
        withdrawn: text("withdrawn").and_then(reason_code),
        voicemail: Voicemail::from_word(row.get("voicemail"))
            .ok_or(LedgerError::Nonsense("voicemail"))?,
        said: text("said").and_then(Said::from_word),
        answered_by: row.get("answered_by"),
        redials: count("redials"),
        verified: row.get::<_, Option<Timestamp>>("verified_at").is_some(),
        tries: count("tries"),
        sequence: count("sequence"),
        ended: text("ended").and_then(Status::from_word),
        key,
    })
}

pub(super) fn reason_code(word: &str) -> Option<ReasonCode> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

pub(super) fn reason_word(code: ReasonCode) -> Option<String> {
    serde_json::to_value(code)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
}
