//! `POST …/Calls/{sid}.json`: ends a call from outside.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use tokio::time::Instant;

use super::auth;
use super::call::{Ending, Stage};
use super::params::Params;
use super::read::missing;
use super::refusal::Refusal;
use super::world::World;

/// What Twilio can change in a call, and the simulator can't.
const KNOWN: [&str; 8] = [
    "Url",
    "Method",
    "FallbackUrl",
    "FallbackMethod",
    "StatusCallback",
    "StatusCallbackMethod",
    "Twiml",
    "TimeLimit",
];

/// Handles an update.
pub(crate) async fn update(
    State(world): State<Arc<World>>,
    Path((account, file)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<impl IntoResponse, Refusal> {
    let account = auth::account(&world.directory(), &account, &headers)?;
    let params = Params::of_form(&headers, &body)?;
    params.only(&["Status"], &KNOWN)?;
    let status = params.word("Status", &["canceled", "completed"], Refusal::strict)?;
    let status = status.ok_or_else(|| Refusal::strict("Status is required"))?;
    let now = world.clock.now();
    let mut book = world.book();
    let call = book
        .at(&account.sid, &file)
        .ok_or_else(|| missing(&account.sid, &file))?;
    let (ending, sip_response) = ending(call.stage, status)?;
    // The call's own task may be about to end it too: whoever holds the book first decides.
    if call.reach(Stage::Ended(ending), now).is_some() {
        call.sip_response = Some(sip_response);
        call.talked = call.answered.map(|(at, talk)| {
            let elapsed = Instant::now()
                .saturating_duration_since(at)
                .mul_f64(world.speed);
            elapsed.min(talk.lasts)
        });
        call.hang_up.cancel();
    }
    Ok(Json(call.resource()))
}

/// How the call ends, and with which SIP response.
fn ending(stage: Stage, status: &str) -> Result<(Ending, u16), Refusal> {
    match stage {
        // Nobody has answered yet, so there is nothing to complete.
        Stage::Queued | Stage::Dialling | Stage::Ringing => Ok((Ending::Canceled, 487)),
        Stage::InProgress if status == "completed" => Ok((Ending::Completed, 200)),
        Stage::InProgress => Err(Refusal::bad(21220, "Call is in progress. Cannot cancel.")),
        Stage::Ended(_) => Err(Refusal::bad(
            21220,
            "Call is not in-progress. Cannot redirect.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_that_is_not_over_can_be_ended() {
        for stage in [Stage::Queued, Stage::Dialling, Stage::Ringing] {
            assert_eq!(ending(stage, "canceled"), Ok((Ending::Canceled, 487)));
            assert_eq!(ending(stage, "completed"), Ok((Ending::Canceled, 487)));
        }
        assert_eq!(
            ending(Stage::InProgress, "completed"),
            Ok((Ending::Completed, 200))
        );
        for (stage, status) in [
            (Stage::InProgress, "canceled"),
            (Stage::Ended(Ending::Busy), "canceled"),
            (Stage::Ended(Ending::Completed), "completed"),
        ] {
            assert_eq!(ending(stage, status).unwrap_err().code, Some(21220));
        }
    }
}
