//! `POST …/Calls/{sid}.json`: cancels a call or hangs it up.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use tokio::time::Instant;

use crate::api_error::ApiError;
use crate::auth;
use crate::call::{CallStage, FinalStatus};
use crate::params::Params;
use crate::read::not_found;
use crate::state::SimulatorState;

/// Parameters of Twilio's that the simulator doesn't support, since voice-otp doesn't send them.
const UNSUPPORTED: [&str; 8] = [
    "Url",
    "Method",
    "FallbackUrl",
    "FallbackMethod",
    "StatusCallback",
    "StatusCallbackMethod",
    "Twiml",
    "TimeLimit",
];

/// Handles an update of a call's status.
pub(crate) async fn update(
    State(state): State<Arc<SimulatorState>>,
    Path((account, file)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<impl IntoResponse, ApiError> {
    let account = auth::authorize(&state.accounts(), &account, &headers)?;
    let params = Params::of_form(&headers, &body)?;
    params.check_names(&["Status"], &UNSUPPORTED)?;
    let status = params.one_of("Status", &["canceled", "completed"], ApiError::strict)?;
    let status = status.ok_or_else(|| ApiError::strict("Status is required"))?;
    let now = state.clock.now();
    let mut store = state.calls();
    let call = store
        .at_path(&account.sid, &file)
        .ok_or_else(|| not_found(&account.sid, &file))?;
    let (final_status, sip_response) = final_status(call.stage, status)?;
    // The call's own task may be about to end it, too: the first to lock the store decides.
    if call.reach(CallStage::Ended(final_status), now).is_some() {
        call.sip_response = Some(sip_response);
        call.talked = call.answered.map(|(at, answer_plan)| {
            let elapsed = Instant::now()
                .saturating_duration_since(at)
                .mul_f64(state.speed);
            elapsed.min(answer_plan.ends_after)
        });
        call.hang_up.cancel();
    }
    Ok(Json(call.resource()))
}

/// The final status that an update leads to, and the SIP response.
///
/// # Errors
/// 21220 if the call can't be updated to this status.
fn final_status(stage: CallStage, status: &str) -> Result<(FinalStatus, u16), ApiError> {
    match stage {
        // The call isn't answered, so `completed` cancels it as well.
        CallStage::Queued | CallStage::Dialling | CallStage::Ringing => {
            Ok((FinalStatus::Canceled, 487))
        }
        CallStage::InProgress if status == "completed" => Ok((FinalStatus::Completed, 200)),
        CallStage::InProgress => Err(ApiError::bad_request(
            21220,
            "Call is in progress. Cannot cancel.",
        )),
        CallStage::Ended(_) => Err(ApiError::bad_request(
            21220,
            "Call is not in-progress. Cannot redirect.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_call_can_be_ended() {
        for stage in [CallStage::Queued, CallStage::Dialling, CallStage::Ringing] {
            assert_eq!(
                final_status(stage, "canceled"),
                Ok((FinalStatus::Canceled, 487))
            );
            assert_eq!(
                final_status(stage, "completed"),
                Ok((FinalStatus::Canceled, 487))
            );
        }
        assert_eq!(
            final_status(CallStage::InProgress, "completed"),
            Ok((FinalStatus::Completed, 200))
        );
        for (stage, status) in [
            (CallStage::InProgress, "canceled"),
            (CallStage::Ended(FinalStatus::Busy), "canceled"),
            (CallStage::Ended(FinalStatus::Completed), "completed"),
        ] {
            assert_eq!(final_status(stage, status).unwrap_err().code, Some(21220));
        }
    }
}
