//! Callees who are asked for a key: their calls request instructions from the workers, as Twilio
//! does, and they press a key, the wrong one, or none.

use std::sync::Arc;
use std::time::Duration;

use voice_otp::call::answer::{CallInstructions, CallStep, InstructionRequest};
use voice_otp::call::{Call, CallStatus};
use voice_otp::delivery::AttemptId;
use voice_otp::settings::policy::Voicemail;

use super::bug::Bug;
use super::world::World;

/// How long Twilio waits for a call's instructions.
const TWILIO_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How often Twilio tries to get them.
const TRIES: usize = 3;
const RIGHT_KEY: &str = "1";
const WRONG_KEY: &str = "5";

/// Lets the callee of a call that was just answered act, if the call requests instructions.
pub(super) fn answer(world: &Arc<World>, attempt: AttemptId, call: &Call) {
    if call.status == CallStatus::InProgress
        && let Some(policy) = world.telephony.policy_of(attempt)
    {
        let listening = listen(Arc::clone(world), attempt, policy, call.clone());
        drop(tokio::task::spawn(listening));
    }
}

/// One callee, from the prompt to the end of the call.
async fn listen(world: Arc<World>, attempt: AttemptId, policy: Voicemail, call: Call) {
    let mut step = CallStep::Answered(policy);
    let mut digits = None;
    loop {
        let request = InstructionRequest {
            step,
            digits: digits.clone(),
            listened: None,
        };
        let instructions = instructions(&world, attempt, &call, &request).await;
        if !is_in_progress(&world, &call) {
            return;
        }
        if digits.as_deref() == Some(RIGHT_KEY)
            && !matches!(instructions, None | Some(CallInstructions::HangUp))
        {
            world.codes_read.lock().unwrap().insert(attempt);
            return;
        }
        let Some(CallInstructions::Gather { step: next, .. }) = instructions else {
            return;
        };
        step = next;
        world.pause(2_000).await;
        if !is_in_progress(&world, &call) {
            return;
        }
        let pressed = match world.below(4) {
            0 => return,
            1 => WRONG_KEY,
            _ => RIGHT_KEY,
        };
        if pressed == RIGHT_KEY {
            world.keys_pressed.lock().unwrap().insert(attempt);
        }
        let confirms = world.plan.bug == Some(Bug::AnyKeyConfirms);
        let sent = if confirms { RIGHT_KEY } else { pressed };
        digits = Some(sent.to_owned());
    }
}

/// What the workers answer, of which each may be crashed, stalled or stopping.
async fn instructions(
    world: &Arc<World>,
    attempt: AttemptId,
    call: &Call,
    request: &InstructionRequest,
) -> Option<CallInstructions> {
    for _ in 0..TRIES {
        let worker = world.random_worker().await;
        let asked = async {
            let found = worker.engine.attempt(attempt).await.ok()??;
            let engine = &worker.engine;
            engine.answer(found, attempt, call, request).await
        };
        if let Ok(Some(instructions)) = tokio::time::timeout(TWILIO_TIMEOUT, asked).await {
            return Some(instructions);
        }
    }
    None
}

fn is_in_progress(world: &World, call: &Call) -> bool {
    world.telephony.status_of(&call.sid) == Some(CallStatus::InProgress)
}
