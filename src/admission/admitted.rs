//! What the ledger adds to an admission, and the delivery that comes of both.

use voice_otp_schemas::Timestamp;

use super::{Admission, PlannedCall};
use crate::delivery::{Delivery, Slot, State};
use crate::event::Event;
use crate::settings::policy::Voicemail;

/// The facts of a new row, as the ledger reports them: the delivery was admitted and has a slot.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The slot reserved under the account's rate limit.
    pub slot: Slot,
    /// When the row was committed.
    pub admitted_at: Timestamp,
    /// Whether the first attempt was started in the same statement: state `placing`, attempt 1,
    /// intent stored.
    pub begun: bool,
    /// Whether this worker owns the delivery. A delivery due later than
    /// [`Tuning::hold_ahead`](crate::Tuning::hold_ahead) has no owner until shortly before its
    /// slot.
    pub held: bool,
    /// When the delivery needs attention next.
    pub wake_at: Timestamp,
    /// The `accepted` event that was written; `None` where an earlier admission, whose answer was
    /// lost, wrote it.
    pub event: Option<Event>,
    /// Whether older requests of the same user are still open.
    pub has_older_requests: bool,
}

impl Delivery {
    /// The delivery as the ledger stored it at admission, so that it needn't be read back.
    pub fn admitted(admission: Admission, call: PlannedCall, admitted: &Admitted) -> Self {
        let attempt_id = call.attempt_id.filter(|_| admitted.begun);
        Self {
            key: admission.key,
            revision: 1,
            state: if admitted.begun {
                State::Placing
            } else {
                State::Waiting
            },
            wake_at: admitted.wake_at,
            secrets: Some(call.secrets),
            to_masked: admission.to_masked,
            locale: call.locale,
            context: admission.context,
            trace: admission.trace,
            account_sid: Some(call.account_sid),
            pace_key: Some(call.pace_key),
            requested_at: admission.requested_at,
            admitted_at: admitted.admitted_at,
            expires_at: admission.expires_at,
            place_by: call.place_by,
            slot: Some(admitted.slot),
            announced_at: Some(admitted.slot.at),
            attempt: u32::from(admitted.begun),
            attempt_id,
            intent_at: attempt_id.map(|_| admitted.admitted_at),
            line: None,
            settle_after: None,
            call_sid: None,
            heard_after: call.heard_after,
            placed_at: None,
            ringing_at: None,
            answered_at: None,
            cancel_reason: None,
            voicemail: Voicemail::default(),
            played: None,
            answered_by: None,
            redials: 0,
            verified: false,
            tries: 0,
            sequence: 1,
            final_status: None,
        }
    }
}
