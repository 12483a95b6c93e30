//! Answering: a call was answered and requests its instructions.

use std::sync::Arc;

use super::clock::LedgerClock;
use super::deliveries::Deliveries;
use super::schedule::Schedule;
use super::settings_reader::SettingsReader;
use super::shutdown::Shutdown;
use super::{Engine, UpdateOutcome};
use crate::account::CallSid;
use crate::call::Call;
use crate::call::answer::{CallInstructions, InstructionRequest, call_instructions};
use crate::delivery::{AttemptId, State};
use crate::ports::{Attempt, Ports};

/// Decides what is played to calls that request their instructions.
pub(super) struct Answerer<P: Ports> {
    pub(super) deliveries: Arc<Deliveries<P::Ledger>>,
    pub(super) settings: Arc<SettingsReader<P::Directory>>,
    pub(super) schedule: Arc<Schedule>,
    pub(super) clock: Arc<LedgerClock>,
    pub(super) shutdown: Shutdown,
}

impl<P: Ports> Engine<P> {
    /// What to play to the call of an attempt, which requests its instructions with a valid
    /// signature. Returns once that is saved, so that what was played is a fact. `None` if the
    /// worker is stopping, or has no key for the delivery: Twilio must ask another worker.
    pub async fn answer(
        self: &Arc<Self>,
        found: Attempt,
        attempt: AttemptId,
        call: &Call,
        request: &InstructionRequest,
    ) -> Option<CallInstructions> {
        let key = found.delivery.key.clone();
        // The request is also an update: the call was answered.
        if self.apply_call_update(found, attempt, call).await == UpdateOutcome::Stopping {
            return None;
        }
        self.answerer
            .answer(&key, attempt, &call.sid, request)
            .await
    }
}

impl<P: Ports> Answerer<P> {
    async fn answer(
        &self,
        key: &voice_otp_schemas::DeliveryKey,
        attempt: AttemptId,
        call_sid: &CallSid,
        request: &InstructionRequest,
    ) -> Option<CallInstructions> {
        loop {
            let delivery = self.deliveries.reload(key).await?;
            let current = delivery.state == State::Calling
                && delivery.attempt_id == Some(attempt)
                && delivery.call_sid.as_ref() == Some(call_sid);
            let settings = match self.settings.of(&key.tenant_id).await {
                Some(Ok(settings)) if current => settings,
                None if self.shutdown.hard.is_cancelled() => return None,
                // The delivery is final or has another call, or the tenant was deleted.
                Some(_) | None => return Some(CallInstructions::HangUp),
            };
            // `None` if the code is sealed with a key that isn't here: another worker has it.
            let (instructions, change) =
                call_instructions(&delivery, &settings, request, self.clock.latest())?;
            let Some(change) = change else {
                return Some(instructions);
            };
            if let Some(saved) = self.deliveries.save(change).await.ok()? {
                self.schedule.update(saved);
                return Some(instructions);
            }
        }
    }
}
