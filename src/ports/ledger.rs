//! The ledger: deliveries, rate limits, the outbox and worker registrations.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::{Context, DeliveryKey, PhoneNumber, TenantId, Timestamp, UserRef};

use crate::account::{AccountSid, CallSid};
use crate::admission::{Admission, Admitted};
use crate::delivery::{AttemptId, CancelCause, Change, Delivery, Slot};
use crate::event::Event;
use crate::price::Price;

/// Why a ledger operation failed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The ledger is unreachable or busy. Retry later; the operation may or may not have been
    /// applied.
    #[error("database unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The ledger rejects the data of a row in the batch. Nothing of the batch was applied.
    #[error("the database rejected a row")]
    InvalidRow(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The ledger gave up on the batch: it took too long, exceeded a limit, or met data that can't
    /// be read. One of its rows may be the cause, so the batch is retried in smaller parts. It may
    /// or may not have been applied.
    #[error("the database gave up on a batch")]
    GaveUp(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The ledger's answer violates its contract.
    #[error("unexpected answer from the database: {0}")]
    ProtocolViolation(&'static str),
}

/// The epoch of one worker registration. Epochs are random and never reused, so that a worker which
/// registers again never owns what its previous registration owned, even if the ledger has lost
/// that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerEpoch(pub i64);

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    /// The ledger's time.
    pub now: Timestamp,
    /// Whether the worker's lease was extended. If not, it had expired, and other workers may own
    /// its deliveries.
    pub alive: bool,
}

/// The ledger's answer to one admission.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The request is new and a call will be placed.
    Admitted(Box<Admitted>),
    /// The request is new and has its final status; these events were written.
    Finished(Vec<Event>),
    /// The request is new; its tenant or account is paused, so it has no slot. These events were
    /// written.
    AdmittedWithoutSlot(Vec<Event>),
    /// The delivery id is known, with the same content.
    Duplicate,
    /// The delivery id is known, with different content.
    ConflictingDuplicate,
    /// The tenant's settings are newer than those that the plan was made from. Nothing was written;
    /// plan again.
    StaleSettings,
    /// Another transaction has locked the account's rate limit. Nothing was written; retry shortly.
    RowLocked,
    /// The request is new and must not be placed: it was cancelled before it arrived, or superseded
    /// by a newer request of the same user. Nothing was written; plan it again to finish with this
    /// reason.
    Inadmissible(CancelCause),
}

/// A due delivery whose next attempt is to be started.
#[derive(Debug, Clone)]
pub struct AttemptStart {
    /// The delivery as last known; the ledger compares its revision.
    pub delivery: Arc<Delivery>,
    /// The id of the new attempt, unique and random.
    pub attempt_id: AttemptId,
    /// The Twilio account, by the tenant's current settings.
    pub account_sid: AccountSid,
    /// The From number, by the tenant's current settings.
    pub from: PhoneNumber,
    /// The key of the rate limit, by the tenant's current settings.
    pub pace_key: String,
}

/// The ledger's answer to one attempt start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOutcome {
    /// The intent is stored. Send the POST at the slot.
    Started {
        /// The slot, now or within [`Tuning::begin_ahead`](crate::Tuning::begin_ahead).
        slot: Slot,
        /// The delivery's new revision.
        revision: i64,
    },
    /// The old slot was void. The new slot is later. Epoch 0 means that none was reserved: it
    /// would be after the deadline, or the delivery waits in the account's queue, and this is an
    /// estimate.
    Rescheduled {
        /// The new slot.
        slot: Slot,
        /// The delivery's new revision.
        revision: i64,
    },
    /// Another call from the same From number to the same number is being placed.
    LineBusy,
    /// Another call to the same user is being placed or in progress.
    UserBusy,
    /// A newer request of the same user is known.
    Superseded,
    /// The account has reached its limit of calls in progress.
    AtConcurrencyLimit,
    /// Another transaction has locked the delivery or the account's rate limit. Nothing was
    /// written; retry shortly.
    RowLocked,
    /// The delivery was changed concurrently. Read it again.
    Conflict,
}

/// The ledger's answer to one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// The change is stored, and its events are in the outbox.
    Saved {
        /// Who publishes the delivery's earlier events.
        earlier_events: EarlierEvents,
    },
    /// The delivery was changed concurrently. Nothing was written; compute the change again on the
    /// newer value.
    Conflict,
    /// Another transaction has locked the delivery. Nothing was written; retry shortly.
    RowLocked,
}

/// The ledger's answer to the report that a delivery's code was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// It is recorded, now or before.
    Recorded {
        /// Whether the delivery waits for a redial, which is now pointless.
        awaits_redial: bool,
    },
    /// There is no such delivery, or it is archived.
    Unknown,
    /// Another transaction has locked the delivery. Nothing was written; retry shortly.
    RowLocked,
}

/// A cancellation of a user's requests. It cancels those that are not newer: by the times of both
/// events, where both have one, else by their arrival at the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCancellation {
    /// The tenant of the user.
    pub tenant_id: TenantId,
    /// The user.
    pub user_ref: UserRef,
    /// The event's `time`.
    pub time: Option<Timestamp>,
}

/// Who publishes a delivery's earlier events at the moment when new ones are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlierEvents {
    /// There are none, or all are published.
    Published,
    /// The first unpublished one belongs to this worker.
    OwnedHere,
    /// The first unpublished one belongs to another worker. That worker, or a sweeper, publishes
    /// the new ones too.
    OwnedElsewhere,
}

/// An attempt, looked up by its id.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The delivery that the attempt belongs to.
    pub delivery: Delivery,
    /// Whether the attempt had a call and has ended, while the delivery continued. Updates for it
    /// are ignored.
    pub ended: bool,
}

/// A completed call whose price is not known yet.
#[derive(Debug, Clone)]
pub struct UnpricedCall {
    /// Twilio's SID of the call.
    pub call_sid: CallSid,
    /// The delivery that the call was placed for.
    pub key: DeliveryKey,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// When the call ended.
    pub ended_at: Timestamp,
    /// The called number, masked.
    pub to_masked: Option<String>,
    /// The request's context, copied into the price event.
    pub context: Context,
}

/// Stores deliveries, rate limits, the outbox and worker registrations.
///
/// Every method is one transaction, and its time is the only time that counts. After
/// [`LedgerError::Unavailable`] the caller retries, so every method is idempotent or fenced by a
/// revision.
pub trait Ledger: Send + Sync + 'static {
    /// Registers a worker under a new epoch, with a lease. `name` is shown to operators.
    fn register_worker(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<(WorkerEpoch, Timestamp), LedgerError>> + Send;

    /// Extends a worker's lease.
    fn heartbeat(
        &self,
        worker: WorkerEpoch,
    ) -> impl Future<Output = Result<Heartbeat, LedgerError>> + Send;

    /// Since when the ledger has another history, if commits from before may be lost: after a
    /// failover or a restoration. A call of a delivery that was admitted earlier may have been
    /// placed although the ledger doesn't know.
    fn suspect_since(&self) -> Option<Timestamp>;

    /// How far the ledger's clock went back in the last hour; zero if it didn't.
    fn recent_step_back(&self) -> impl Future<Output = Result<Duration, LedgerError>> + Send;

    /// Repairs slots, holds, leases and due times after the ledger's clock went back by `step`:
    /// they are that much too far ahead. A registration does it too, if a lease shows the step.
    fn repair_clock_step(
        &self,
        step: Duration,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Ends a worker's lease. Other workers may claim its deliveries at once.
    fn release_worker(
        &self,
        worker: WorkerEpoch,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Admits a batch: one verdict per admission, in order. Only new requests take a slot.
    fn admit(
        &self,
        worker: WorkerEpoch,
        group: &[Admission],
    ) -> impl Future<Output = Result<Vec<Verdict>, LedgerError>> + Send;

    /// Starts the attempts of due deliveries: one outcome each, in order.
    fn start_attempts(
        &self,
        worker: WorkerEpoch,
        group: &[AttemptStart],
    ) -> impl Future<Output = Result<Vec<StartOutcome>, LedgerError>> + Send;

    /// Saves changes, with their events, where the delivery still has the revision that the change
    /// was computed from. The worker becomes the owner. A batch must not hold the same delivery
    /// twice.
    fn save(
        &self,
        worker: WorkerEpoch,
        group: &[Change],
    ) -> impl Future<Output = Result<Vec<Saved>, LedgerError>> + Send;

    /// Gives slots to deliveries that wait in an account's queue, in the order of admission, as far
    /// as these slots come soon. Claims up to `limit` deliveries that are due, or soon will be, and
    /// whose owner's lease has expired or who have no owner. Also lists the worker's own overdue
    /// deliveries.
    fn claim_due(
        &self,
        worker: WorkerEpoch,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Delivery>, LedgerError>> + Send;

    /// Reads deliveries by key, in any order; unknown keys are left out.
    fn find_all(
        &self,
        keys: &[DeliveryKey],
    ) -> impl Future<Output = Result<Vec<Delivery>, LedgerError>> + Send;

    /// Reads one delivery.
    fn find(
        &self,
        key: &DeliveryKey,
    ) -> impl Future<Output = Result<Option<Delivery>, LedgerError>> + Send {
        async { Ok(self.find_all(std::slice::from_ref(key)).await?.pop()) }
    }

    /// Reads the delivery that an attempt belongs to.
    fn find_attempt(
        &self,
        attempt: AttemptId,
    ) -> impl Future<Output = Result<Option<Attempt>, LedgerError>> + Send;

    /// Records cancellations of users, so that admission refuses older requests that it sees later:
    /// whether each is recorded. One that isn't could not be had now, since another transaction
    /// records one for the same user; retry shortly.
    fn cancel_users(
        &self,
        cancellations: &[UserCancellation],
    ) -> impl Future<Output = Result<Vec<bool>, LedgerError>> + Send;

    /// Reads the open deliveries that each of these cancellations cancels, in order.
    fn find_users(
        &self,
        cancellations: &[UserCancellation],
    ) -> impl Future<Output = Result<Vec<Vec<Delivery>>, LedgerError>> + Send;

    /// Reads those of these open deliveries that a recorded cancellation of their user cancels. An
    /// admission and a cancellation that run at the same moment may not see each other. The
    /// cancellation was recorded before it looked for deliveries, so that whoever looks after both,
    /// as the caller does before it places the calls, sees both.
    fn find_cancelled(
        &self,
        requests: &[(DeliveryKey, UserRef)],
    ) -> impl Future<Output = Result<Vec<Delivery>, LedgerError>> + Send;

    /// Reads the open deliveries of the same user that are older than this one.
    fn find_older_requests(
        &self,
        key: &DeliveryKey,
    ) -> impl Future<Output = Result<Vec<Delivery>, LedgerError>> + Send;

    /// Records the cancellations of deliveries that have not arrived yet, so that their requests
    /// are refused when they do. False for a delivery that exists: nothing is written for it.
    fn insert_tombstones(
        &self,
        keys: &[DeliveryKey],
    ) -> impl Future<Output = Result<Vec<bool>, LedgerError>> + Send;

    /// Moves some finished deliveries to the archive and drops archive partitions past their
    /// retention. Returns how many it moved; more may remain while that isn't 0.
    fn archive_finished(&self) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Counts deliveries that are still open longer than `overdue` after their code's expiry. Must
    /// be 0. Of all living workers only the oldest counts; the others get 0.
    fn count_overdue(
        &self,
        worker: WorkerEpoch,
        overdue: Duration,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Which of these calls belong to a delivery.
    fn known_calls(
        &self,
        sids: &[CallSid],
    ) -> impl Future<Output = Result<Vec<CallSid>, LedgerError>> + Send;

    /// Whether the delivery's current attempt was, or may have been, sent from this account and
    /// number. If not, their call list says nothing about it.
    fn was_placed_from(
        &self,
        delivery: &Delivery,
        account: &AccountSid,
        from: &PhoneNumber,
    ) -> bool;

    /// Claims up to `limit` calls whose price should be queried now. Each goes to one worker, at
    /// growing intervals; a call without a price for a day is dropped.
    fn claim_unpriced_calls(
        &self,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<UnpricedCall>, LedgerError>> + Send;

    /// Removes calls whose price has been published, and adds the prices to the tenants' hourly
    /// spend.
    fn clear_unpriced_calls(
        &self,
        priced: &[(CallSid, Price)],
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Records that codes were entered: one answer per delivery, in order.
    fn mark_verified(
        &self,
        keys: &[DeliveryKey],
    ) -> impl Future<Output = Result<Vec<Marked>, LedgerError>> + Send;

    /// Hands out no slot of an account before `wait` has passed. Reserved slots become void, and
    /// waiting deliveries get new ones in the same order, when they are claimed. A wait that ends
    /// before, or hardly after, the current one is ignored.
    fn throttle_account(
        &self,
        pace_key: &str,
        wait: Duration,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Opens an account's circuit: no slots for a while, longer each time in a row, then half-open
    /// probes. Returns that while; `None` if the circuit was open already.
    fn open_circuit(
        &self,
        pace_key: &str,
    ) -> impl Future<Output = Result<Option<Duration>, LedgerError>> + Send;

    /// Closes an account's circuit. Waiting deliveries get slots at the account's rate from now on.
    fn close_circuit(&self, pace_key: &str)
    -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Deletes published events from the outbox.
    fn delete_published(
        &self,
        events: &[(DeliveryKey, u32)],
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Claims the unpublished events of up to `limit` deliveries of expired workers, in order per
    /// delivery. What it returns is this worker's from then on, and isn't returned again.
    fn claim_unpublished(
        &self,
        worker: WorkerEpoch,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Event>, LedgerError>> + Send;

    /// Lists this worker's own unpublished events that are old, in order per delivery: those of up
    /// to `limit` deliveries whose first unpublished event was written after `after`, the oldest
    /// first. Those of the tenants in `without` are left out. Also returns when the last of those
    /// first events was written; `None`: there are no more.
    fn find_own_unpublished(
        &self,
        worker: WorkerEpoch,
        after: Timestamp,
        limit: usize,
        without: &HashSet<TenantId>,
    ) -> impl Future<Output = Result<(Vec<Event>, Option<Timestamp>), LedgerError>> + Send;
}
