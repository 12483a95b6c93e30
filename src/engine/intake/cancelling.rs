//! Cancelling deliveries: by an event, by a newer request of the user, by an entered code.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use voice_otp_schemas::request::{Cancelled, Incoming, Target};
use voice_otp_schemas::{DeliveryKey, Timestamp};

use super::{Disposition, Message, disposition_of, set};
use crate::delivery::{CancelCause, Change, Delivery, State};
use crate::engine::Engine;
use crate::engine::batch::BatchError;
use crate::engine::deliveries::{Changed, SavedNow};
use crate::engine::retry::until_answered;
use crate::ports::{Ledger as _, Marked, Ports, UserCancellation};

/// How often a change that met another writer's is computed again. After that the message is
/// retried soon, without the batch's permit.
const MAX_CONFLICTS: usize = 3;

/// The deliveries that cancellations name, each with the position of the cancellation.
type Targets = Vec<(usize, Delivery)>;

impl<P: Ports> Engine<P> {
    /// Cancels the deliveries that `cancelled` events name: one disposition each, in order.
    pub(super) async fn cancel_all(self: &Arc<Self>, messages: &[&Message]) -> Vec<Disposition> {
        let authorized = self.authorize_all(messages).await;
        let (mut by_id, mut by_user) = (Vec::new(), Vec::new());
        for (position, (message, answer)) in messages.iter().zip(&authorized).enumerate() {
            let (Incoming::Cancelled(cancelled), Ok(())) = (&message.incoming, answer) else {
                continue;
            };
            match named(cancelled) {
                Named::Delivery(key) => by_id.push((position, key)),
                Named::User(cancellation) => by_user.push((position, cancellation)),
            }
        }
        let dispositions = authorized.into_iter();
        let dispositions =
            dispositions.map(|answer| answer.err().unwrap_or(Disposition::Acknowledge));
        let mut dispositions: Vec<Disposition> = dispositions.collect();
        let mut targets = self.find_deliveries(by_id, &mut dispositions).await;
        targets.extend(self.find_of_users(by_user, &mut dispositions).await);
        let deliveries = targets
            .iter()
            .map(|(_, delivery)| delivery.clone())
            .collect();
        let compute = |delivery: &Delivery, now| delivery.cancel(CancelCause::Request, now);
        let failed = self.change_all(deliveries, compute).await;
        for (position, delivery) in targets {
            if let Some(disposition) = failed.get(&delivery.key) {
                set(&mut dispositions, position, *disposition);
            }
        }
        dispositions
    }

    /// The deliveries that cancellations name by id. For those that have not arrived yet, the
    /// cancellation is recorded.
    async fn find_deliveries(
        &self,
        named: Vec<(usize, DeliveryKey)>,
        dispositions: &mut [Disposition],
    ) -> Targets {
        let (mut targets, mut missing) = (Targets::new(), Vec::new());
        let keys = named.iter().map(|(_, key)| key.clone()).collect();
        for ((position, key), found) in named.into_iter().zip(self.find_each(keys).await) {
            match found {
                Ok(Some(delivery)) => targets.push((position, delivery)),
                Ok(None) => missing.push((position, key)),
                Err(error) => set(dispositions, position, disposition_of(&error)),
            }
        }
        let work = |keys: Vec<DeliveryKey>| async move {
            let inserted = self.ledger.insert_tombstones(&keys).await;
            (keys, inserted)
        };
        let keys = missing.iter().map(|(_, key)| key.clone()).collect();
        let inserted = self.ask(keys, &work, "record cancellations").await;
        let mut arrived = Vec::new();
        for ((position, key), inserted) in missing.into_iter().zip(inserted) {
            match inserted {
                Ok(true) => {}
                Ok(false) => arrived.push((position, key)),
                Err(error) => set(dispositions, position, disposition_of(&error)),
            }
        }
        // They have arrived meanwhile, or are archived.
        let keys = arrived.iter().map(|(_, key)| key.clone()).collect();
        for ((position, _), found) in arrived.into_iter().zip(self.find_each(keys).await) {
            match found {
                Ok(found) => targets.extend(found.map(|delivery| (position, delivery))),
                Err(error) => set(dispositions, position, disposition_of(&error)),
            }
        }
        targets
    }

    /// The deliveries of the users that cancellations name. The cancellations are recorded first,
    /// for requests that are being admitted, or that arrive late.
    async fn find_of_users(
        &self,
        named: Vec<(usize, UserCancellation)>,
        dispositions: &mut [Disposition],
    ) -> Targets {
        let (positions, cancellations): (Vec<usize>, Vec<UserCancellation>) =
            named.into_iter().unzip();
        let record = |group: Vec<UserCancellation>| async move {
            let recorded = self.ledger.cancel_users(&group).await;
            (group, recorded)
        };
        let recorded = self.ask(cancellations.clone(), &record, "record cancellations");
        let recorded = recorded.await;
        let (mut known, mut places) = (Vec::new(), Vec::new());
        for ((position, cancellation), recorded) in
            positions.iter().zip(cancellations).zip(recorded)
        {
            match recorded {
                Ok(true) => {
                    places.push(*position);
                    known.push(cancellation);
                }
                Ok(false) => set(dispositions, *position, Disposition::RetrySoon),
                Err(error) => set(dispositions, *position, disposition_of(&error)),
            }
        }
        let find = |group: Vec<UserCancellation>| async move {
            let found = self.ledger.find_users(&group).await;
            (group, found)
        };
        let mut targets = Targets::new();
        for (position, found) in places
            .into_iter()
            .zip(self.ask(known, &find, "find users").await)
        {
            match found {
                Ok(found) => targets.extend(found.into_iter().map(|one| (position, one))),
                Err(error) => set(dispositions, position, disposition_of(&error)),
            }
        }
        targets
    }

    /// Cancels the older open deliveries of the user that a new delivery is for.
    pub(in crate::engine) async fn supersede(self: Arc<Self>, newer: DeliveryKey) {
        let older = until_answered(&self.shutdown, "find older requests", || {
            self.ledger.find_older_requests(&newer)
        });
        for request in older.await.unwrap_or_default() {
            // What is lost here is found when the newer delivery's attempt is started.
            let (Changed::Done | Changed::Lost) =
                self.cancel_delivery(request, CancelCause::Superseded).await;
        }
    }

    /// Records that codes were entered, and cancels redials that wait: one disposition each, in
    /// order.
    pub(super) async fn verify_all(self: &Arc<Self>, messages: &[&Message]) -> Vec<Disposition> {
        let mut dispositions = Vec::with_capacity(messages.len());
        let mut named = Vec::new();
        let authorized = self.authorize_all(messages).await;
        for (position, (message, answer)) in messages.iter().zip(authorized).enumerate() {
            dispositions.push(answer.err().unwrap_or(Disposition::Acknowledge));
            if let (Ok(()), Some(key)) = (answer, message.incoming.key()) {
                named.push((position, key));
            }
        }
        let work = |keys: Vec<DeliveryKey>| async move {
            let marked = self.ledger.mark_verified(&keys).await;
            (keys, marked)
        };
        let keys = named.iter().map(|(_, key)| key.clone()).collect();
        let marked = self.ask(keys, &work, "mark deliveries as verified").await;
        let mut redials = Vec::new();
        for ((position, key), marked) in named.into_iter().zip(marked) {
            match marked {
                Ok(Marked::Recorded {
                    awaits_redial: true,
                }) => redials.push((position, key)),
                Ok(Marked::Recorded {
                    awaits_redial: false,
                }) => {}
                Ok(Marked::Unknown) => tracing::debug!(
                    tenant.id = %key.tenant_id,
                    "a code was entered for an unknown delivery"
                ),
                Ok(Marked::RowLocked) => set(&mut dispositions, position, Disposition::RetrySoon),
                Err(error) => set(&mut dispositions, position, disposition_of(&error)),
            }
        }
        let keys = redials.iter().map(|(_, key)| key.clone()).collect();
        let mut waiting = Vec::new();
        for ((position, _), found) in redials.iter().zip(self.find_each(keys).await) {
            match found {
                Ok(found) => waiting.extend(found),
                Err(error) => set(&mut dispositions, *position, disposition_of(&error)),
            }
        }
        let compute = |delivery: &Delivery, now| {
            let waits = delivery.state == State::Waiting && delivery.redials > 0;
            waits.then(|| delivery.cancel(CancelCause::Verified, now))?
        };
        let failed = self.change_all(waiting, compute).await;
        for (position, key) in redials {
            if let Some(disposition) = failed.get(&key) {
                set(&mut dispositions, position, *disposition);
            }
        }
        dispositions
    }

    /// Changes deliveries to cancel them, with one statement for all. A row that another
    /// transaction has locked isn't waited for. Returns what to do with the messages about those
    /// that could not be changed now.
    pub(super) async fn change_all(
        self: &Arc<Self>,
        mut open: Vec<Delivery>,
        compute: impl Fn(&Delivery, Timestamp) -> Option<Change>,
    ) -> HashMap<DeliveryKey, Disposition> {
        let mut failed = HashMap::new();
        for _ in 0..MAX_CONFLICTS {
            let (now, mut seen) = (self.clock.now(), HashSet::new());
            let first = open.iter().filter(|delivery| seen.insert(&delivery.key));
            let changes: Vec<Change> = first
                .filter_map(|delivery| compute(delivery, now))
                .collect();
            open = Vec::new();
            if changes.is_empty() {
                break;
            }
            let keys: Vec<DeliveryKey> = changes
                .iter()
                .map(|change| change.delivery.key.clone())
                .collect();
            let answers = self.deliveries.save_all(self.lease.worker(), changes).await;
            let mut changed_by_others = Vec::new();
            for (key, answer) in keys.into_iter().zip(answers) {
                match answer {
                    Ok(SavedNow::Saved(delivery)) => self.follow_cancellation(*delivery),
                    Ok(SavedNow::Conflict) => changed_by_others.push(key),
                    Ok(SavedNow::RowLocked) => {
                        failed.insert(key, Disposition::RetrySoon);
                    }
                    Err(error) => {
                        failed.insert(key, disposition_of(&error));
                    }
                }
            }
            let found: Vec<Result<Option<Delivery>, BatchError>> =
                self.find_each(changed_by_others.clone()).await;
            for (key, found) in changed_by_others.into_iter().zip(found) {
                match found {
                    Ok(newer) => open.extend(newer),
                    Err(error) => {
                        failed.insert(key, disposition_of(&error));
                    }
                }
            }
        }
        failed.extend(
            open.into_iter()
                .map(|delivery| (delivery.key, Disposition::RetrySoon)),
        );
        failed
    }
}

/// What a cancellation names.
enum Named {
    Delivery(DeliveryKey),
    User(UserCancellation),
}

fn named(cancelled: &Cancelled) -> Named {
    let tenant_id = cancelled.tenant_id.clone();
    match &cancelled.target {
        Target::Delivery(delivery_id) => Named::Delivery(DeliveryKey {
            tenant_id,
            delivery_id: delivery_id.clone(),
        }),
        Target::User(user_ref) => Named::User(UserCancellation {
            tenant_id,
            user_ref: user_ref.clone(),
            time: cancelled.time,
        }),
    }
}
