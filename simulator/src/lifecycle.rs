//! The lifecycle of a call: one task that waits, advances the call's stage, and sends its
//! callbacks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::call::{CallStage, FinalStatus};
use crate::call_parameters::ProgressEvent;
use crate::call_plan::{AnswerPlan, CallPlan, RingOutcome};
use crate::callback;
use crate::fate::Fate;
use crate::state::SimulatorState;
use crate::webhook::Webhook;

/// The price of a started minute, in thousandths of the account's currency.
const PRICE_PER_MINUTE: u64 = 14;

/// A running call.
///
/// Its methods return `None` once an update has ended the call.
pub(crate) struct CallLifecycle {
    pub(crate) state: Arc<SimulatorState>,
    /// The call's index in the call store.
    pub(crate) id: usize,
    /// How long it is queued. This is real time at any speed, since keeping to the account's rate
    /// is the client's job.
    pub(crate) queue_time: Duration,
    pub(crate) plan: CallPlan,
    /// Cancelled by an update that ends the call.
    pub(crate) hang_up: CancellationToken,
}

/// How a call ended by itself.
struct CallEnd {
    status: FinalStatus,
    sip_response: u16,
    /// How long it lasted from the answer, if it was answered.
    talked: Option<Duration>,
}

impl CallLifecycle {
    /// Runs until the call's price is known, or the simulator stops.
    pub(crate) async fn run(self) {
        let halt = self.state.halt.clone();
        halt.run_until_cancelled(self.run_to_end()).await;
    }

    async fn run_to_end(&self) {
        // As at Twilio, a call that is cancelled while it is queued sends no callback.
        let dialled = self
            .unless_hung_up(self.queue_time)
            .await
            .and_then(|()| self.reach(CallStage::Dialling));
        if dialled.is_none() {
            return;
        }
        self.notify(ProgressEvent::Initiated);
        if let Some(end) = self.dial().await {
            self.end(&end);
        }
        self.notify(ProgressEvent::Completed);
        sleep(self.state.scaled(self.plan.price_delay)).await;
        self.set_price();
    }

    /// Dials, rings, and talks if the call is answered.
    async fn dial(&self) -> Option<CallEnd> {
        self.wait(self.plan.dial).await?;
        match self.plan.outcome {
            RingOutcome::Busy => return Some(CallEnd::unanswered(FinalStatus::Busy, 486)),
            RingOutcome::Failed => return Some(CallEnd::unanswered(FinalStatus::Failed, 404)),
            RingOutcome::NoAnswer | RingOutcome::Rejected | RingOutcome::Answered(_) => {}
        }
        self.reach(CallStage::Ringing)?;
        self.notify(ProgressEvent::Ringing);
        let before_timeout = self.plan.ring <= self.plan.timeout;
        match self.plan.outcome {
            RingOutcome::Answered(answer_plan) if before_timeout => {
                self.wait(self.plan.ring).await?;
                self.talk(answer_plan).await
            }
            RingOutcome::Rejected if before_timeout => {
                self.wait(self.plan.ring).await?;
                Some(CallEnd::unanswered(FinalStatus::NoAnswer, 603))
            }
            _ => {
                self.wait(self.plan.timeout).await?;
                Some(CallEnd::unanswered(FinalStatus::NoAnswer, 487))
            }
        }
    }

    /// Plays the call's speech after the answer.
    async fn talk(&self, answer_plan: AnswerPlan) -> Option<CallEnd> {
        let (twiml_url, fate) = self.answer(answer_plan)?;
        self.notify(ProgressEvent::Answered);
        let completed = |talked| {
            Some(CallEnd {
                status: FinalStatus::Completed,
                sip_response: 200,
                talked: Some(talked),
            })
        };
        let mut left = answer_plan.ends_after;
        if let Some(detection) = answer_plan.detection_after {
            self.wait(detection).await?;
            callback::send_detection(&self.state, self.id, detection);
            left = left.saturating_sub(detection);
        }
        if let Some(twiml_url) = twiml_url {
            return completed(self.converse(&twiml_url, answer_plan, fate).await?);
        }
        self.wait(left).await?;
        completed(answer_plan.ends_after)
    }

    fn reach(&self, stage: CallStage) -> Option<()> {
        let now = self.state.clock.now();
        self.state.calls().get_mut(self.id)?.reach(stage, now)
    }

    /// Marks the call as answered. Returns where to request its `TwiML`, and its fate.
    fn answer(&self, answer_plan: AnswerPlan) -> Option<(Option<Webhook>, Fate)> {
        let now = self.state.clock.now();
        let mut store = self.state.calls();
        let call = store.get_mut(self.id)?;
        call.reach(CallStage::InProgress, now)?;
        call.answered = Some((Instant::now(), answer_plan));
        Some((call.parameters.twiml_url.clone(), call.fate))
    }

    fn end(&self, end: &CallEnd) {
        let now = self.state.clock.now();
        if let Some(call) = self.state.calls().get_mut(self.id)
            && call.reach(CallStage::Ended(end.status), now).is_some()
        {
            call.sip_response = Some(end.sip_response);
            call.talked = end.talked;
        }
    }

    fn set_price(&self) {
        let now = self.state.clock.now();
        if let Some(call) = self.state.calls().get_mut(self.id)
            && call.stage == CallStage::Ended(FinalStatus::Completed)
        {
            let price = call.minutes().max(1) * PRICE_PER_MINUTE;
            call.price = Some(format!("-{}.{:03}00", price / 1_000, price % 1_000));
            call.updated = now;
        }
    }

    fn notify(&self, event: ProgressEvent) {
        callback::send_progress(&self.state, self.id, event);
    }

    /// Waits for a real-time duration at the simulator's speed.
    pub(crate) async fn wait(&self, duration: Duration) -> Option<()> {
        self.unless_hung_up(self.state.scaled(duration)).await
    }

    async fn unless_hung_up(&self, wait: Duration) -> Option<()> {
        self.hang_up.run_until_cancelled(sleep(wait)).await
    }
}

impl CallEnd {
    fn unanswered(status: FinalStatus, sip_response: u16) -> Self {
        Self {
            status,
            sip_response,
            talked: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call_parameters::CallParameters;
    use crate::create::start_call;
    use crate::{Account, Settings};

    fn state_with_calls(calls_per_second: f64, calls: usize, fate: Fate) -> Arc<SimulatorState> {
        let state = Arc::new(SimulatorState::new(Settings {
            accounts: Vec::new(),
            seed: 7,
            speed: 1.0,
        }));
        let mut account = Account::new("AC00000000000000000000000000000001", "token");
        account.calls_per_second = calls_per_second;
        let account = Arc::new(account);
        for _ in 0..calls {
            start_call(&state, &account, CallParameters::example(), fate).unwrap();
        }
        state
    }

    fn stages(state: &SimulatorState) -> Vec<CallStage> {
        state
            .calls()
            .all(None)
            .into_iter()
            .map(|call| call.stage)
            .collect()
    }

    async fn seconds(seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_its_turn_and_then_runs_in_real_time() {
        let state = state_with_calls(0.1, 2, Fate::Answers);
        assert_eq!(stages(&state), [CallStage::Queued, CallStage::Queued]);
        seconds(9).await;
        assert_eq!(stages(&state), [CallStage::InProgress, CallStage::Queued]);
        seconds(9).await;
        assert_eq!(
            stages(&state),
            [CallStage::InProgress, CallStage::InProgress]
        );
        seconds(20).await;
        assert_eq!(
            stages(&state),
            [CallStage::Ended(FinalStatus::Completed); 2]
        );
        for call in state.calls().all(None) {
            assert_eq!(
                (call.duration_s(), call.price.as_deref()),
                (20, Some("-0.01400"))
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_phone_rings_until_the_timeout() {
        let state = state_with_calls(1.0, 1, Fate::NoAnswer);
        seconds(59).await;
        assert_eq!(stages(&state), [CallStage::Ringing]);
        seconds(3).await;
        assert_eq!(stages(&state), [CallStage::Ended(FinalStatus::NoAnswer)]);
        assert_eq!(state.calls().all(None)[0].sip_response, Some(487));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_simulator_leaves_no_call_running() {
        let state = state_with_calls(1.0, 3, Fate::Answers);
        seconds(1).await;
        state.halt.cancel();
        state.tasks.close();
        state.tasks.wait().await;
        assert!(
            stages(&state)
                .iter()
                .all(|stage| !matches!(stage, CallStage::Ended(_)))
        );
    }
}
