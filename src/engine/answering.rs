//! Answering: what a call is told that asks, once that is saved.

use std::sync::Arc;

use super::{Engine, News};
use crate::answer::{Answer, Asked, answer};
use crate::delivery::{AttemptId, State};
use crate::ports::{Attempt, Ports};
use crate::progress::Call;

impl<P: Ports> Engine<P> {
    /// What to tell the call of an attempt, which was answered and asks, with a signature that holds. Returns when what it is told
    /// is saved. None if the worker is stopping, or has no key for the delivery: ask another.
    pub async fn answer(
        self: &Arc<Self>,
        found: Attempt,
        attempt: AttemptId,
        call: &Call,
        asked: &Asked,
    ) -> Option<Answer> {
        let key = found.delivery.key.clone();
        // That it was answered is news, too.
        if self.news(found, attempt, call).await == News::Stopping {
            return None;
        }
        loop {
            let delivery = self.reload(&key).await?;
            let ours = delivery.state == State::Calling
                && delivery.attempt_id == Some(attempt)
                && delivery.call_sid.as_ref() == Some(&call.sid);
            let settings = match self.settings_of(&key.tenant_id).await {
                Some(Ok(settings)) if ours => settings,
                // The delivery is over, or has another call, or its tenant is gone.
                Some(_) => return Some(Answer::HangUp),
                None => {
                    return if self.hard.is_cancelled() {
                        None
                    } else {
                        Some(Answer::HangUp)
                    };
                }
            };
            // Sealed with a key that isn't here: another worker has it, and Twilio asks again.
            let (answer, change) = answer(&delivery, &settings, asked, self.clock.now())?;
            let Some(change) = change else {
                return Some(answer);
            };
            if let Some(saved) = self.save_one(change).await.ok()? {
                self.agenda.learn(saved);
                return Some(answer);
            }
        }
    }
}
