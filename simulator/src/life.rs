//! The life of a call: one task that waits, moves the call on, and tells who wants to know.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::call::{Ending, Stage};
use super::callback;
use super::fate::Fate;
use super::order::{Ask, Event};
use super::plan::{Outcome, Plan, Talk};
use super::world::World;

/// The price of a minute, in thousandths of the account's currency.
const PRICE_PER_MINUTE: u64 = 14;

/// A call under way.
pub(crate) struct Life {
    pub(crate) world: Arc<World>,
    /// The call's id in the book.
    pub(crate) id: usize,
    /// How long it is queued. That is real time whatever the speed: the account's pace is the caller's to keep.
    pub(crate) wait: Duration,
    pub(crate) plan: Plan,
    pub(crate) hang_up: CancellationToken,
}

/// An end that came by itself.
struct End {
    ending: Ending,
    sip_response: u16,
    talked: Option<Duration>,
}

impl Life {
    /// Lives until the call's price is known, or the simulator stops.
    pub(crate) async fn run(self) {
        let halt = self.world.halt.clone();
        halt.run_until_cancelled(self.live()).await;
    }

    async fn live(&self) {
        // A call that is cancelled while it is queued ends in silence: no callback tells of it.
        let dialled = self
            .unless_hung_up(self.wait)
            .await
            .and_then(|()| self.reach(Stage::Dialling));
        if dialled.is_none() {
            return;
        }
        self.tell(Event::Initiated);
        if let Some(end) = self.proceed().await {
            self.end(&end);
        }
        self.tell(Event::Completed);
        sleep(self.world.scaled(self.plan.billing)).await;
        self.bill();
    }

    /// From dialling to the end; nothing when the call was ended from outside.
    async fn proceed(&self) -> Option<End> {
        self.pass(self.plan.dial).await?;
        match self.plan.outcome {
            Outcome::Busy => return Some(End::unanswered(Ending::Busy, 486)),
            Outcome::Failed => return Some(End::unanswered(Ending::Failed, 404)),
            Outcome::NoAnswer | Outcome::Rejected | Outcome::Answered(_) => {}
        }
        self.reach(Stage::Ringing)?;
        self.tell(Event::Ringing);
        let in_time = self.plan.ring <= self.plan.timeout;
        match self.plan.outcome {
            Outcome::Answered(talk) if in_time => {
                self.pass(self.plan.ring).await?;
                self.talk(talk).await
            }
            Outcome::Rejected if in_time => {
                self.pass(self.plan.ring).await?;
                Some(End::unanswered(Ending::NoAnswer, 603))
            }
            _ => {
                self.pass(self.plan.timeout).await?;
                Some(End::unanswered(Ending::NoAnswer, 487))
            }
        }
    }

    async fn talk(&self, talk: Talk) -> Option<End> {
        let (ask, fate) = self.answer(talk)?;
        self.tell(Event::Answered);
        let completed = |talked| {
            Some(End {
                ending: Ending::Completed,
                sip_response: 200,
                talked: Some(talked),
            })
        };
        let mut left = talk.lasts;
        if let Some(detection) = talk.detection {
            self.pass(detection).await?;
            callback::detected(&self.world, self.id, detection);
            left = left.saturating_sub(detection);
        }
        if let Some(ask) = ask {
            return completed(self.converse(&ask, talk, fate).await?);
        }
        self.pass(left).await?;
        completed(talk.lasts)
    }

    fn reach(&self, stage: Stage) -> Option<()> {
        let now = self.world.clock.now();
        self.world.book().get_mut(self.id)?.reach(stage, now)
    }

    fn answer(&self, talk: Talk) -> Option<(Option<Ask>, Fate)> {
        let now = self.world.clock.now();
        let mut book = self.world.book();
        let call = book.get_mut(self.id)?;
        call.reach(Stage::InProgress, now)?;
        call.answered = Some((Instant::now(), talk));
        Some((call.order.ask.clone(), call.fate))
    }

    fn end(&self, end: &End) {
        let now = self.world.clock.now();
        if let Some(call) = self.world.book().get_mut(self.id)
            && call.reach(Stage::Ended(end.ending), now).is_some()
        {
            call.sip_response = Some(end.sip_response);
            call.talked = end.talked;
        }
    }

    fn bill(&self) {
        let now = self.world.clock.now();
        if let Some(call) = self.world.book().get_mut(self.id)
            && call.stage == Stage::Ended(Ending::Completed)
        {
            let price = call.minutes().max(1) * PRICE_PER_MINUTE;
            call.price = Some(format!("-{}.{:03}00", price / 1_000, price % 1_000));
            call.updated = now;
        }
    }

    fn tell(&self, event: Event) {
        callback::progress(&self.world, self.id, event);
    }

    /// Lets a stretch of life pass, at the simulator's speed; nothing when the call is ended meanwhile.
    pub(crate) async fn pass(&self, lasts: Duration) -> Option<()> {
        self.unless_hung_up(self.world.scaled(lasts)).await
    }

    async fn unless_hung_up(&self, wait: Duration) -> Option<()> {
        self.hang_up.run_until_cancelled(sleep(wait)).await
    }
}

impl End {
    fn unanswered(ending: Ending, sip_response: u16) -> Self {
        Self {
            ending,
            sip_response,
            talked: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::Order;
    use super::super::{Account, Fate, Settings};
    use super::*;

    fn world(calls_per_second: f64, calls: usize, fate: Fate) -> Arc<World> {
        let world = Arc::new(World::new(Settings {
            accounts: Vec::new(),
            seed: 7,
            speed: 1.0,
        }));
        let mut account = Account::new("AC00000000000000000000000000000001", "token");
        account.calls_per_second = calls_per_second;
        let account = Arc::new(account);
        for _ in 0..calls {
            world.place(&account, Order::example(), fate).unwrap();
        }
        world
    }

    fn stages(world: &World) -> Vec<Stage> {
        world
            .book()
            .all(None)
            .into_iter()
            .map(|call| call.stage)
            .collect()
    }

    async fn seconds(seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_its_turn_and_then_takes_the_time_of_life() {
        let world = world(0.1, 2, Fate::Answers);
        assert_eq!(stages(&world), [Stage::Queued, Stage::Queued]);
        seconds(9).await;
        assert_eq!(stages(&world), [Stage::InProgress, Stage::Queued]);
        seconds(9).await;
        assert_eq!(stages(&world), [Stage::InProgress, Stage::InProgress]);
        seconds(20).await;
        assert_eq!(stages(&world), [Stage::Ended(Ending::Completed); 2]);
        for call in world.book().all(None) {
            assert_eq!(
                (call.duration_s(), call.price.as_deref()),
                (20, Some("-0.01400"))
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_phone_that_nobody_answers_rings_until_the_time_out() {
        let world = world(1.0, 1, Fate::NoAnswer);
        seconds(59).await;
        assert_eq!(stages(&world), [Stage::Ringing]);
        seconds(3).await;
        assert_eq!(stages(&world), [Stage::Ended(Ending::NoAnswer)]);
        assert_eq!(world.book().all(None)[0].sip_response, Some(487));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_simulator_leaves_no_call_under_way() {
        let world = world(1.0, 3, Fate::Answers);
        seconds(1).await;
        world.halt.cancel();
        world.tasks.close();
        world.tasks.wait().await;
        assert!(
            stages(&world)
                .iter()
                .all(|stage| !matches!(stage, Stage::Ended(_)))
        );
    }
}
