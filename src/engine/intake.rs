//! Intake: what a group of messages becomes in the ledger.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use voice_otp_schemas::TenantId;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::request::{Cancelled, Incoming, Target, Verified};
use voice_otp_schemas::status::Status;

use super::{Changed, Engine};
use crate::batch::{BatchError, work_on};
use crate::bulkhead::Berth;
use crate::delivery::{AttemptId, Delivery, Key, State, WorkerEpoch};
use crate::plan::{Admission, Placement, Plan, plan};
use crate::policy::Voicemail;
use crate::ports::{
    Admitted, Caller as _, Directory as _, Ledger as _, LedgerError, Lower, Ports, Verdict,
};

/// A message that could be read.
#[derive(Debug)]
pub struct Message {
    /// What it says.
    pub incoming: Incoming,
    /// The broker's user that it is from, where it says; the broker vouches for the name.
    pub user: Option<String>,
}

impl From<Incoming> for Message {
    /// A message from nobody that the broker vouches for.
    fn from(incoming: Incoming) -> Self {
        Self {
            incoming,
            user: None,
        }
    }
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It is durable, or known already: acknowledge it.
    Done,
    /// No status can answer it: put it with the dead letters, then acknowledge it.
    Dead(Dead),
    /// Its account's pace is locked by somebody: the same again in a moment, and not in the way of others.
    Busy,
    /// This worker can't take it on now: give it back.
    Again,
}

/// Why a message that could be read belongs to the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dead {
    /// Its id is taken by a request with other content.
    ConflictingDuplicate,
    /// It is from somebody who may not speak for its tenant.
    PublisherNotAllowed,
    /// The database refuses it.
    RefusedByDatabase,
}

impl Dead {
    /// A constant word for headers and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::ConflictingDuplicate => "conflicting_duplicate",
            Self::PublisherNotAllowed => "publisher_not_allowed",
            Self::RefusedByDatabase => "refused_by_database",
        }
    }
}

/// A request being admitted, and where its answer goes.
struct Seat<'a> {
    place: usize,
    message: &'a Message,
    /// Why it must not be placed, once the ledger has said so.
    unwanted: Option<ReasonCode>,
    berth: Option<Berth>,
}

/// The longest that admission waits for room to place the calls at once: begun with the admission they cost a statement less.
const ROOM_PATIENCE: Duration = Duration::from_millis(50);
/// How often it looks.
const ROOM_LOOK: Duration = Duration::from_millis(2);

/// Settings may change between a plan and its admission; this often in a row they don't.
const STALE_ROUNDS: usize = 5;

impl<P: Ports> Engine<P> {
    /// Takes a group of messages in: a disposition each, in their order. Returns when the ledger has them; an
    /// unavailable ledger is waited for.
    pub async fn take_in(self: &Arc<Self>, group: &[Message]) -> Vec<Disposition> {
        let mut dispositions = Vec::with_capacity(group.len());
        // Requests together; what takes some back only after those before it, and before those after it.
        for part in group.chunk_by(|one, next| is_request(one) && is_request(next)) {
            match part {
                [
                    Message {
                        incoming: Incoming::Cancelled(cancelled),
                        user,
                    },
                ] => {
                    let allowed = self.may_speak(user.as_deref(), &cancelled.tenant_id).await;
                    dispositions.push(if let Err(not) = allowed {
                        not
                    } else {
                        self.cancel(cancelled).await
                    });
                }
                [
                    Message {
                        incoming: Incoming::Verified(verified),
                        user,
                    },
                ] => {
                    let allowed = self.may_speak(user.as_deref(), &verified.tenant_id).await;
                    dispositions.push(if let Err(not) = allowed {
                        not
                    } else {
                        self.verified(verified).await
                    });
                }
                requests => dispositions.extend(self.take_requests(requests).await),
            }
        }
        dispositions
    }

    /// Whether somebody may speak for a tenant; else what to do with the message. Nobody is kept from speaking for a
    /// tenant that isn't there.
    async fn may_speak(&self, user: Option<&str>, tenant: &TenantId) -> Result<(), Disposition> {
        // What is remembered may be a moment old, and a dead letter can't be followed any more: so it is looked at anew.
        for remembered in [true, false] {
            match self.settings_of(tenant).await {
                Some(Ok(settings)) if settings.may_publish(user) => return Ok(()),
                Some(Ok(_)) if remembered => self.directory.forget(tenant),
                Some(Ok(_)) => break,
                Some(Err(_)) => return Err(Disposition::Again),
                None if self.hard.is_cancelled() => return Err(Disposition::Again),
                None => return Ok(()),
            }
        }
        tracing::warn!(
            tenant.id = %tenant,
            user = user.unwrap_or("-"),
            "a message for a tenant is from somebody who may not speak for it: voice-otp tenant set --publisher"
        );
        Err(Disposition::Dead(Dead::PublisherNotAllowed))
    }

    async fn take_requests(self: &Arc<Self>, group: &[Message]) -> Vec<Disposition> {
        let mut dispositions = vec![Disposition::Again; group.len()];
        let mut seats: Vec<Seat<'_>> = group
            .iter()
            .enumerate()
            .map(|(place, message)| Seat {
                place,
                message,
                unwanted: None,
                berth: None,
            })
            .collect();
        self.wait_for_room(seats.len()).await;
        for _ in 0..STALE_ROUNDS {
            if seats.is_empty() || self.hard.is_cancelled() {
                break;
            }
            seats = self.admit(seats, &mut dispositions).await;
        }
        dispositions
    }

    /// Waits a moment for room to place so many calls, if there is none.
    async fn wait_for_room(&self, calls: usize) {
        let mut waited = Duration::ZERO;
        while self.placing.room() < calls.min(self.tuning.placing_permits) && waited < ROOM_PATIENCE
        {
            if self.pause_or_hard(ROOM_LOOK).await {
                return;
            }
            waited += ROOM_LOOK;
        }
    }

    /// Admits requests; gives back the ones whose settings were stale.
    async fn admit<'a>(
        self: &Arc<Self>,
        seats: Vec<Seat<'a>>,
        dispositions: &mut [Disposition],
    ) -> Vec<Seat<'a>> {
        let tenants: HashSet<&TenantId> = seats
            .iter()
            .filter_map(|seat| tenant_of(&seat.message.incoming))
            .collect();
        let tenants: Vec<TenantId> = tenants.into_iter().cloned().collect();
        let Some(settings) = self.settings(&tenants).await else {
            return Vec::new();
        };
        let now = self.clock.now();
        let mut planned = Vec::with_capacity(seats.len());
        for mut seat in seats {
            let known = tenant_of(&seat.message.incoming).and_then(|tenant| settings.get(tenant));
            let known = match known {
                Some(Ok(settings)) => Some(settings.as_ref()),
                Some(Err(error)) => {
                    tracing::warn!(
                        error = error as &dyn std::error::Error,
                        "can't open a tenant's secrets, leaving the request to another worker"
                    );
                    continue;
                }
                None => None,
            };
            if let Some(settings) = known
                && !settings.may_publish(seat.message.user.as_deref())
                && let Err(not) = self
                    .may_speak(seat.message.user.as_deref(), &settings.tenant_id)
                    .await
            {
                // Not `rejected`: a stranger must neither take the tenant's ids nor speak in its statuses.
                if let Some(answer) = dispositions.get_mut(seat.place) {
                    *answer = not;
                }
                continue;
            }
            let Some(mut admission) = plan(
                &seat.message.incoming,
                known,
                self.caller.has_callbacks(),
                &self.tuning,
                now,
            ) else {
                continue;
            };
            if let (Plan::Place(_), Some(why)) = (&admission.plan, seat.unwanted) {
                admission.unwanted(why, now);
            }
            if let Plan::Place(placement) = &mut admission.plan
                && placement.parked.is_none()
            {
                seat.berth = self.placing.try_enter(&placement.pace_key);
                placement.attempt_id = seat.berth.is_some().then(|| self.dice.attempt_id());
            }
            planned.push((seat, admission));
        }
        let (seats, admissions): (Vec<_>, Vec<_>) = planned.into_iter().unzip();
        let worker = self.life.worker();
        let (verdicts, lost) = self.admit_group(worker, &admissions).await;
        let mut stale = Vec::new();
        for ((mut seat, admission), verdict) in seats.into_iter().zip(admissions).zip(verdicts) {
            let disposition = match verdict {
                Ok(Verdict::Placing(admitted)) => {
                    self.counts.admitted.fetch_add(1, Ordering::Relaxed);
                    self.set_out(worker, admission, &admitted, seat.berth.take());
                    Disposition::Done
                }
                Ok(Verdict::Ended(events)) => {
                    self.counts.admitted.fetch_add(1, Ordering::Relaxed);
                    self.counts.ended.fetch_add(1, Ordering::Relaxed);
                    if let Some(last) = events.last() {
                        tracing::info!(tenant.id = %last.key.tenant_id, delivery.id = %last.key.delivery_id, outcome = last.status.map_or("", Status::as_str), "delivery ended");
                    }
                    self.relay.send(events, Lower::Published);
                    Disposition::Done
                }
                Ok(Verdict::Parked(events)) => {
                    self.counts.admitted.fetch_add(1, Ordering::Relaxed);
                    self.relay.send(events, Lower::Published);
                    Disposition::Done
                }
                Ok(Verdict::Busy) => Disposition::Busy,
                Ok(Verdict::Repeat) => {
                    if lost {
                        // Perhaps its own row, admitted a moment ago: the answer that said so was lost.
                        drop(
                            self.tasks
                                .spawn(Arc::clone(self).find_again(admission.key.clone())),
                        );
                    }
                    Disposition::Done
                }
                Ok(Verdict::Conflict) => Disposition::Dead(Dead::ConflictingDuplicate),
                Ok(Verdict::Unwanted(why)) => {
                    seat.berth = None;
                    seat.unwanted = Some(why);
                    stale.push(seat);
                    continue;
                }
                Ok(Verdict::StaleSettings) => {
                    self.directory.forget(&admission.key.tenant_id);
                    seat.berth = None;
                    stale.push(seat);
                    continue;
                }
                Err(BatchError::Refused(_)) => Disposition::Dead(Dead::RefusedByDatabase),
                Err(BatchError::Closed) => Disposition::Again,
            };
            if let Some(answer) = dispositions.get_mut(seat.place) {
                *answer = disposition;
            }
        }
        stale
    }

    /// The verdicts, and whether an answer was lost on the way to them.
    async fn admit_group(
        &self,
        worker: WorkerEpoch,
        admissions: &[Admission],
    ) -> (Vec<Result<Verdict, BatchError>>, bool) {
        let lost = AtomicBool::new(false);
        let lost_here = &lost;
        let work = |group: Vec<Admission>| async move {
            let result = self.ledger.admit(worker, &group).await;
            lost_here.fetch_or(
                matches!(result, Err(LedgerError::Unavailable(_))),
                Ordering::Relaxed,
            );
            (group, result)
        };
        if admissions.is_empty() {
            return (Vec::new(), false);
        }
        let verdicts = tokio::select! {
            verdicts = work_on(admissions.to_vec(), &work, "admit") => verdicts,
            () = self.hard.cancelled() => admissions.iter().map(|_| Err(BatchError::Closed)).collect(),
        };
        (verdicts, lost.load(Ordering::Relaxed))
    }

    /// Takes a delivery that waits into the agenda. Should another worker have it, the revision tells them apart.
    async fn find_again(self: Arc<Self>, key: Key) {
        if let Some(found) = self.reload(&key).await
            && found.state == State::Waiting
        {
            self.agenda.learn(found);
        }
    }

    /// A delivery just admitted goes to be placed, or into the agenda.
    fn set_out(
        self: &Arc<Self>,
        worker: WorkerEpoch,
        admission: Admission,
        admitted: &Admitted,
        berth: Option<Berth>,
    ) {
        let Plan::Place(placement) = admission.plan.clone() else {
            return;
        };
        // What was said before the answer got lost is in the ledger, and the sweeper's.
        self.relay.send(
            admitted.event.clone().into_iter().collect(),
            Lower::Published,
        );
        if admitted.has_rivals {
            drop(
                self.tasks
                    .spawn(Arc::clone(self).supersede(admission.key.clone())),
            );
        }
        if !admitted.held {
            return;
        }
        let delivery = Delivery::admitted(admission, *placement, admitted);
        if delivery.state != State::Placing {
            self.agenda.learn(delivery);
            return;
        }
        if let (Some(held), Some(berth)) = (self.agenda.take(delivery), berth) {
            self.tasks
                .spawn(Arc::clone(self).place(worker, held, berth));
        }
    }

    /// Takes back what has not been heard.
    async fn cancel(self: &Arc<Self>, cancelled: &Cancelled) -> Disposition {
        let tenant_id = &cancelled.tenant_id;
        let found = loop {
            let found = match &cancelled.target {
                Target::Delivery(delivery_id) => {
                    let key = Key {
                        tenant_id: tenant_id.clone(),
                        delivery_id: delivery_id.clone(),
                    };
                    match self.ledger.find(&key).await {
                        Ok(None) => self.forbid(&key).await,
                        found => found,
                    }
                    .map(|found| found.into_iter().collect())
                }
                Target::User(user) => self.ledger.find_user(tenant_id, user).await,
            };
            match found {
                Ok(found) => break found,
                Err(LedgerError::Data(_) | LedgerError::Nonsense(_)) => {
                    return Disposition::Dead(Dead::RefusedByDatabase);
                }
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "can't look a delivery up, trying again"
                ),
            }
            if self.pause_or_hard(Duration::from_millis(250)).await {
                return Disposition::Again;
            }
        };
        for delivery in found {
            if self
                .withdraw(delivery, ReasonCode::CancelledByRequest)
                .await
                == Changed::Lost
            {
                return Disposition::Again;
            }
        }
        Disposition::Done
    }

    /// Notes that a delivery was taken back before it came; finds it if it has come meanwhile.
    async fn forbid(&self, key: &Key) -> Result<Option<Delivery>, LedgerError> {
        if self.ledger.forbid(key).await? {
            Ok(None)
        } else {
            self.ledger.find(key).await
        }
    }

    /// Takes back the older deliveries of the user that a new one is for.
    pub(super) async fn supersede(self: Arc<Self>, newer: Key) {
        loop {
            match self.ledger.rivals(&newer).await {
                Ok(rivals) => {
                    for rival in rivals {
                        // What is lost here is seen when the newer one is begun.
                        let (Changed::Done | Changed::Lost) =
                            self.withdraw(rival, ReasonCode::Superseded).await;
                    }
                    return;
                }
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "can't look older requests up, trying again"
                    );
                }
            }
            if self.pause_or_hard(Duration::from_millis(250)).await {
                return;
            }
        }
    }

    /// Notes that a code was entered.
    async fn verified(self: &Arc<Self>, verified: &Verified) -> Disposition {
        let key = Key {
            tenant_id: verified.tenant_id.clone(),
            delivery_id: verified.delivery_id.clone(),
        };
        loop {
            match self.ledger.verified(&key).await {
                Ok(known) => {
                    if known
                        && let Some(found) = self.reload(&key).await
                        && found.state == State::Waiting
                        && found.redials > 0
                        && self.withdraw(found, ReasonCode::Verified).await == Changed::Lost
                    {
                        return Disposition::Again;
                    }
                    if !known {
                        tracing::debug!(tenant.id = %key.tenant_id, "a code was entered for a delivery that isn't known");
                    }
                    return Disposition::Done;
                }
                Err(LedgerError::Data(_) | LedgerError::Nonsense(_)) => {
                    return Disposition::Dead(Dead::RefusedByDatabase);
                }
                Err(LedgerError::Unavailable(_)) => {}
            }
            if self.pause_or_hard(Duration::from_millis(250)).await {
                return Disposition::Again;
            }
        }
    }
}

fn is_request(message: &Message) -> bool {
    matches!(
        message.incoming,
        Incoming::Requested(_) | Incoming::Invalid(_)
    )
}

fn tenant_of(incoming: &Incoming) -> Option<&TenantId> {
    match incoming {
        Incoming::Requested(request) => Some(&request.tenant_id),
        Incoming::Invalid(invalid) => Some(&invalid.tenant_id),
        Incoming::Cancelled(_) | Incoming::Verified(_) => None,
    }
}

impl Delivery {
    /// The delivery that the ledger made of an admission.
    pub fn admitted(admission: Admission, placement: Placement, admitted: &Admitted) -> Self {
        let attempt_id: Option<AttemptId> = placement.attempt_id.filter(|_| admitted.begun);
        Self {
            key: admission.key,
            revision: 1,
            state: if admitted.begun {
                State::Placing
            } else {
                State::Waiting
            },
            wake_at: admitted.wake_at,
            order: Some(placement.order),
            to_masked: admission.to_masked,
            locale: placement.locale,
            context: admission.context,
            trace: admission.trace,
            account_sid: Some(placement.account_sid),
            pace_key: Some(placement.pace_key),
            requested_at: admission.requested_at,
            admitted_at: admitted.admitted_at,
            expires_at: admission.expires_at,
            place_by: placement.place_by,
            slot: Some(admitted.slot),
            announced_at: Some(admitted.slot.at),
            attempt: u32::from(admitted.begun),
            attempt_id,
            intent_at: attempt_id.map(|_| admitted.admitted_at),
            line: None,
            settle_after: None,
            call_sid: None,
            heard_after: placement.heard_after,
            placed_at: None,
            ringing_at: None,
            answered_at: None,
            withdrawn: None,
            voicemail: Voicemail::default(),
            said: None,
            answered_by: None,
            redials: 0,
            verified: false,
            tries: 0,
            sequence: 1,
            ended: None,
        }
    }
}
