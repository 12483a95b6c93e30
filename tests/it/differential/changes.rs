//! Changes that may happen to a delivery.

use std::time::Duration;

use voice_otp::Tuning;
use voice_otp::call::CallStatus;
use voice_otp::call::progress::{Progress, progress};
use voice_otp::delivery::{Change, Delivery, State};
use voice_otp::settings::policy::Policy;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

use super::operation::Pick;
use crate::ledger_contract::stage::call;

/// A change that may happen to a delivery; for a finished one, a change that must be refused.
pub(super) fn change(delivery: &Delivery, pick: &Pick, now: Timestamp) -> Option<Change> {
    let mut change = Change::unchanged(delivery);
    match (delivery.state, pick.choice) {
        (State::Waiting, 0 | 1) => return Some(delivery.expire(now)),
        (State::Waiting, 2 | 3) => change.delivery.slot = None,
        (State::Waiting, _) => wait_for_retry(&mut change, now),
        (State::Placing, 0) => return Some(delivery.revert_start(now)),
        (State::Placing, 1 | 2) => {
            return Some(delivery.mark_unsettled(
                now + Duration::from_secs(2),
                now + Duration::from_secs(10),
                "no answer",
                now,
            ));
        }
        (State::Placing, 3) => {
            change.end_attempt();
            change.finish(
                now,
                Status::Failed,
                Reason::new(ReasonCode::TenantCredentials, "the credentials are wrong"),
            );
        }
        (State::Placing | State::Unsettled, 4) => {
            change.end_attempt();
            change.delivery.state = State::Waiting;
            wait_for_retry(&mut change, now);
        }
        (State::Placing | State::Unsettled, _) => {
            return update(delivery, pick.sid, CallStatus::Queued, now);
        }
        (State::Calling, 0 | 1) => return update(delivery, pick.sid, CallStatus::Ringing, now),
        (State::Calling, 2 | 3) => return update(delivery, pick.sid, CallStatus::InProgress, now),
        (State::Calling, 4) => return update(delivery, pick.sid, CallStatus::Completed, now),
        (State::Calling, 5) => return update(delivery, pick.sid, CallStatus::Busy, now),
        (State::Calling | State::Final, _) => change.delivery.tries += 1,
    }
    Some(change)
}

fn wait_for_retry(change: &mut Change, now: Timestamp) {
    change.delivery.wake_at = now + Duration::from_secs(3);
    change.defer(now, Reason::new(ReasonCode::Retry, "retry"));
}

fn update(delivery: &Delivery, sid: u32, status: CallStatus, now: Timestamp) -> Option<Change> {
    let mut call = call(sid, status);
    if let Some(own) = &delivery.call_sid {
        call.sid = own.clone();
    }
    match progress(
        delivery,
        &call,
        &Policy::default(),
        &Tuning::default(),
        false,
        now,
    ) {
        Progress::Change(change) => Some(*change),
        Progress::Unchanged | Progress::Orphaned => None,
    }
}
