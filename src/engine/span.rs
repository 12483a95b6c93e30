//! The span of a delivery.
//!
//! Every task that works on a delivery runs in its span, from intake to the final status, so that
//! events need not repeat the ids. A new attempt begins a new span with the same ids.

use tracing::Span;
use tracing::field::Empty;
use voice_otp_schemas::DeliveryKey;

use crate::delivery::Delivery;

/// The span of a delivery of which only the key is known.
pub(super) fn of_key(key: &DeliveryKey) -> Span {
    tracing::info_span!(
        "delivery",
        tenant.id = %key.tenant_id,
        delivery.id = %key.delivery_id,
        delivery.attempt = Empty,
        call.sid = Empty,
    )
}

/// The span of a delivery in its current attempt.
pub(super) fn of(delivery: &Delivery) -> Span {
    let span = of_key(&delivery.key);
    if delivery.attempt > 0 {
        span.record("delivery.attempt", delivery.attempt);
    }
    if let Some(sid) = &delivery.call_sid {
        span.record("call.sid", tracing::field::display(sid));
    }
    span
}

/// The span after a delivery changed: the same one while the attempt is the same, with the call's
/// SID added once it is known.
pub(super) fn renewed(span: &Span, before: &Delivery, after: &Delivery) -> Option<Span> {
    if before.attempt != after.attempt || (before.call_sid.is_some() && after.call_sid.is_none()) {
        return Some(of(after));
    }
    if let (None, Some(sid)) = (&before.call_sid, &after.call_sid) {
        span.record("call.sid", tracing::field::display(sid));
    }
    None
}
